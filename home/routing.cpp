#include "home/routing.h"

#include <fmt/format.h>

#include <algorithm>
#include <ranges>

#include "base/bytes.h"
#include "control/sip/values.h"
#include "home/register_request.h"

namespace gmgate::home {

using sip::HeaderId;

namespace {

bool is_loose(std::string_view route_value) {
    const auto hop = sip::parse_name_addr(route_value);
    return hop && hop->uri.param("lr").has_value();
}

std::string entry(std::string_view user, const sip::Flow& flow, const Domain& domain) {
    return fmt::format("<sip:{}@{}{};lr>", user, domain.listening(flow.local).to_string(),
                       flow.transport == sip::Transport::tcp ? ";transport=tcp" : "");
}

}  // namespace

bool Routing::strict_next() const {
    return !routes.empty() && !is_loose(routes.front());
}

std::string Routing::next_request_uri() const {
    if (!strict_next()) return request_uri;
    const auto hop = sip::parse_name_addr(routes.front());
    return hop ? std::string(hop->uri.text) : request_uri;
}

std::string Routing::next_routes() const {
    if (!strict_next()) return fmt::format("{}", fmt::join(routes, ", "));
    std::string out;
    for (const auto& route : routes | std::views::drop(1)) out += route + ", ";
    return out + "<" + request_uri + ">";
}

Routing read_routing(const sip::Message& request, const Domain& domain,
                     const DialogTokens& tokens) {
    Routing out;
    out.request_uri = request.request_uri();
    for (const sip::Value& value : request.values(HeaderId::route))
        out.routes.push_back(unfold(value.text));
    // RFC 3261 16.4: a strict router has put our Record-Route where the target belongs.
    const auto uri = sip::parse_uri(out.request_uri);
    if (uri && uri->param("lr") && domain.is_ours(*uri) && tokens.fits(uri->user, request)) {
        out.ours_first = out.recorded = true;
        if (!out.routes.empty()) {
            if (const auto target = sip::parse_name_addr(out.routes.back())) {
                std::string text(target->uri.text);
                out.request_uri = std::move(text);
            }
            out.routes.pop_back();
        }
    }
    std::size_t ours = 0;
    for (; ours < out.routes.size(); ++ours) {
        const auto hop = sip::parse_name_addr(out.routes[ours]);
        if (!hop || !domain.is_ours(hop->uri)) break;
        out.ours_first = true;
        out.recorded = out.recorded || tokens.fits(hop->uri.user, request);
    }
    out.routes.erase(out.routes.begin(), out.routes.begin() + static_cast<std::ptrdiff_t>(ours));
    return out;
}

Routing along(std::string_view route, std::string_view target) {
    Routing out;
    out.request_uri = target;
    sip::ValueSplitter values(route);
    while (const auto value = values.next()) out.routes.emplace_back(*value);
    return out;
}

bool in_dialog(const sip::Message& request) {
    const auto to = sip::to(request);
    return to && !to->tag().empty();
}

bool makes_dialog(std::string_view method) {
    return method == "INVITE" || method == "SUBSCRIBE" || method == "REFER";
}

std::string record_route(std::string_view user, const sip::Flow& arrived, const sip::Flow& leaving,
                         const Domain& domain) {
    const std::string out = entry(user, leaving, domain);
    const std::string in = entry(user, arrived, domain);
    return out == in ? out : out + ", " + in;
}

std::string joined(const sip::Message& message, HeaderId id) {
    std::string out;
    for (const sip::Value& v : message.values(id)) {
        if (!out.empty()) out += ", ";
        out += unfold(v.text);
    }
    return out;
}

}  // namespace gmgate::home
