// Any text through every value parser; views must lie in the text, and what is accepted must
// survive being written again.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "control/sip/values.h"

using namespace gmgate::sip;

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const auto inside = [&](std::string_view v) {
        require(v.empty() ||
                (v.data() >= text.data() && v.data() + v.size() <= text.data() + text.size()));
    };
    switch (data[0] % 10) {
        case 0:
            if (const auto u = parse_uri(text)) {
                inside(u->user), inside(u->host), inside(u->params), inside(u->headers);
                require(same_identity(*u, *u));
                (void)u->address_of_record();
            }
            break;
        case 1:
            if (const auto n = parse_name_addr(text)) {
                inside(n->display), inside(n->params), inside(n->uri.text), inside(n->tag());
                (void)unescape(n->display);
                const auto written = "<" + std::string(n->uri.text) + ">" + std::string(n->params);
                const auto again = parse_name_addr(written);
                require(again && again->tag() == n->tag());
            }
            break;
        case 2:
            if (const auto v = parse_via(text)) {
                inside(v->host), inside(v->params), inside(v->branch), inside(v->received);
                require(!v->transport.empty() && !v->host.empty());
            }
            break;
        case 3:
            if (const auto c = parse_cseq(text))
                require(c->number < 0x80000000U && !c->method.empty());
            break;
        case 4:
            if (const auto c = parse_contact(text))
                require(c->star || !c->address.uri.text.empty());
            break;
        case 5:
            if (const auto d = parse_digest_credentials(text)) {
                if (d->username) inside(*d->username);
                if (d->response) inside(*d->response);
            }
            break;
        case 6:
            if (const auto d = parse_digest_challenge(text)) {
                if (d->ck) inside(*d->ck);
                if (d->nonce) inside(*d->nonce);
            }
            break;
        case 7: {
            ValueSplitter s(text);
            std::size_t n = 0;
            while (const auto v = s.next()) inside(*v), ++n;
            require(n >= 1 && n <= text.size() + 1);
            break;
        }
        case 8: {
            ParamReader r(text);
            while (const auto p = r.next())
                inside(p->whole), inside(p->value), require(!p->name.empty());
            break;
        }
        default:
            (void)parse_q(text), (void)parse_number(text), (void)header_id(text),
                (void)unescape(text);
            break;
    }
    return 0;
}
