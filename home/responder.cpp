#include "home/responder.h"

#include "base/log.h"

namespace gmgate::home {

namespace {
constexpr std::size_t tag_octets = 6;
}

void Responder::answer(sip::ServerTransactionId id, const Endpoint& source,
                       const sip::Message& request, int status, std::string_view reason,
                       std::initializer_list<sip::HeaderField> headers) {
    const auto tag = random_.token(tag_octets);
    sip::ResponseOptions options;
    options.reason = reason;
    options.to_tag = tag;
    options.source = source;
    options.headers = {headers.begin(), headers.size()};
    log::debug("home", "{} {}: {} {}", request.method(), request.request_uri(), status, reason);
    if (!sip::build_response(request, status, options, buffer_)) {
        transactions_->forget(id);
        return;
    }
    transactions_->respond(id, status, buffer_);
}

}  // namespace gmgate::home
