#include "control/registration/emergency.h"

#include <algorithm>

#include "base/bytes.h"
#include "control/registration/identity.h"
#include "control/registration/proxy.h"

namespace gmgate::registration {

bool is_emergency(std::string_view request_uri, std::span<const std::string> numbers) {
    const auto uri = sip::parse_uri(request_uri);
    if (!uri) return false;
    if (uri->scheme == sip::Scheme::urn) {
        constexpr std::string_view sos = "urn:service:sos";
        const std::string text = to_lower(uri->text);
        return text == sos || text.starts_with(std::string(sos) + ".");
    }
    if (uri->scheme == sip::Scheme::other) return false;
    std::string digits;  // visual separators mean nothing (RFC 3966)
    for (const char c : uri->user.substr(0, uri->user.find(';'))) {
        if (c != '-' && c != '.' && c != '(' && c != ')') digits += c;
    }
    return !digits.empty() && std::ranges::find(numbers, digits) != numbers.end();
}

std::string_view alternative_service() {
    return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
           "<ims-3gpp version=\"1\"><alternative-service><type>emergency</type>"
           "<reason>Emergency calls are not taken here</reason>"
           "<action>emergency-registration</action></alternative-service></ims-3gpp>\n";
}

std::string Proxy::emergency_route() const {
    return ctx_.policy.e_cscf ? "<sip:" + ctx_.policy.e_cscf->address.to_uri_host() + ":" +
                                    std::to_string(ctx_.policy.e_cscf->port) + ";lr>"
                              : std::string{};
}

void Proxy::refuse_emergency(const Arrival& arrival, const sip::Message& request,
                             const sa::User& user) {
    const std::string impi(user.impi());
    if (ctx_.policy.emergency == Emergency::refuse || arrival.transaction == 0)
        return ctx_.answer(ctx_.gm, arrival, request, 403, Reason::emergency_call, impi);
    // The phone believes it if the identity is our entry in its registration's Path.
    const FlowTokens::Text token = ctx_.tokens.make(user.id);
    const std::string path =
        "<sip:" + std::string(token.data(), token.size()) + "@" + ctx_.core_host + ";lr>";
    const std::array<sip::HeaderField, 1> headers{{{"P-Asserted-Identity", path}}};
    const std::string tag = ctx_.random.token(6);
    sip::ResponseOptions options;
    options.to_tag = tag;
    options.source = arrival.flow.remote;
    options.headers = headers;
    options.content_type = alternative_service_type;
    options.body = alternative_service();
    ctx_.refuse(Reason::emergency_call, 380, arrival.flow.remote, impi);
    if (!sip::build_response(request, 380, options, ctx_.scratch))
        return ctx_.gm.transactions->forget(arrival.transaction);
    ctx_.gm.transactions->respond(arrival.transaction, 380, ctx_.scratch);
    ctx_.note(ctx_.trace.user_of(impi), request.method(), 380,
              {Entity::pcscf, Entity::ue, Step::none, arrival.carrier.set,
               outbound_spi(arrival.reply, arrival.carrier.numbers), Reason::emergency_call});
}

}  // namespace gmgate::registration
