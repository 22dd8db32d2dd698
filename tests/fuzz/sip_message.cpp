// Any octets through the index, the checks and a proxy's edit; what was accepted must be consistent
// and stay so.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "control/sip/build.h"
#include "control/sip/edit.h"
#include "control/sip/values.h"

using namespace gmgate;
using namespace gmgate::sip;

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    Message m;
    const auto status = m.parse(bytes);
    std::size_t end = m.start_line_size();
    for (const auto& h : m.headers()) {
        require(h.line_begin >= end && h.line_begin < h.value_begin &&
                h.value_begin <= h.value_end && h.value_end < h.line_end);
        end = h.line_end;
        require(m.line(h).ends_with("\r\n"));
        require(!m.name(h).empty());
        if (h.id != HeaderId::unknown) {
            for (const auto& v : m.values(h.id)) require(v.header < m.headers().size());
        }
    }
    require(end <= m.head().size() && m.head().size() <= m.bytes().size());

    const auto rejected = m.is_request() ? check_request(m) : check_response(m);
    require(status == ParseStatus::ok || rejected);
    std::string out;
    if (m.answerable()) {
        require(build_response(m, 400, {.to_tag = "t", .source = Endpoint::parse("192.0.2.1:5060")},
                               out)
                    .has_value());
    }
    if (status != ParseStatus::ok) return 0;

    Edit edit(m);
    if (m.is_request()) {
        edit.stamp_top_via(*Endpoint::parse("[2001:db8::1]:40000"));
        edit.push_via({"SIP/2.0/UDP us;branch=z9hG4bK1"});
        edit.set_max_forwards(69);
        edit.replace_request_uri({"sip:next"});
    } else {
        edit.remove_first_value(HeaderId::via);
    }
    edit.remove_all(HeaderId::security_client);
    edit.remove_option_tag("sec-agree");
    edit.remove_first_value(HeaderId::route);
    edit.remove_auth_params(HeaderId::www_authenticate, {"ck", "ik"});
    edit.set_auth_param(HeaderId::authorization, "integrity-protected", "no");
    edit.ensure_content_length();
    if (!edit.apply(out)) return 0;

    // What we write, we read.
    Message again;
    require(again.parse(out, Framing::stream) == ParseStatus::ok);
    require(again.body() == m.body());
    require(!again.has(HeaderId::security_client));
    require(!again.has_token(HeaderId::require, "sec-agree"));
    if (m.is_request()) require(top_via(again)->branch == "z9hG4bK1");
    for (const auto* h = again.first(HeaderId::www_authenticate); h != nullptr;
         h = again.next(*h)) {
        if (const auto challenge = parse_digest_challenge(again.value(*h)))
            require(!challenge->ck && !challenge->ik);
    }
    for (const auto* h = again.first(HeaderId::authorization); h != nullptr; h = again.next(*h)) {
        const auto credentials = parse_digest_credentials(again.value(*h));
        if (credentials) require(credentials->integrity_protected == "no");
    }
    return 0;
}
