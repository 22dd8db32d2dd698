#pragma once
// New messages: responses out of requests (RFC 3261 8.2.6), and requests of gmgate's own, gmhome
// and gmue.

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"
#include "control/sip/message.h"

namespace gmgate::sip {

// RFC 3261 21 and the extensions of the Gm interface; "Unknown" for what has none.
[[nodiscard]] std::string_view reason_phrase(int code);

struct HeaderField {
    std::string_view name;
    std::string_view value;
};

struct ResponseOptions {
    std::string_view reason{};  // empty: reason_phrase(code)
    std::string_view to_tag{};  // put on To if it has none and code > 100; empty: none is added
    std::optional<Endpoint>
        source{};  // where the request came from: received/rport of the top Via (RFC 3581)
    bool copy_record_route = false;          // for answers that make a dialog (RFC 3261 12.1.1)
    std::span<const HeaderField> headers{};  // behind the copied ones, in order
    std::string_view content_type{};         // with a body only
    std::string_view body{};
};

// Writes the whole response into `out` (cleared, capacity reused): all Vias in order, From, To,
// Call-ID, CSeq exactly as they came, Timestamp for 100, then options.headers, Content-Length,
// body. invalid: the request is not answerable() (RFC demands those headers), the code is not
// 100–699, or a header given here holds a CR or LF that is not a fold.
Result<void> build_response(const Message& request, int code, const ResponseOptions& options,
                            std::string& out);

// A request from nothing. Order of calls is order of headers; values are checked for line breaks
// when finished.
//   RequestBuilder b("REGISTER", "sip:home.example");
//   b.header("CSeq", {number, " REGISTER"}).header("Via", {…});
//   auto message = b.finish();
class RequestBuilder {
  public:
    RequestBuilder(std::string_view method, std::string_view uri);
    RequestBuilder& header(std::string_view name, std::initializer_list<std::string_view> value);
    RequestBuilder& header(std::string_view name, std::string_view value) {
        return header(name, {value});
    }
    // Content-Type and the body; Content-Length is always written, 0 without a body.
    RequestBuilder& body(std::string_view content_type, std::string_view text);
    // The message. invalid: a line break in a name or value (header injection), or too large.
    Result<std::string> finish();

  private:
    std::string out_;
    std::string body_;
    bool bad_ = false;
};

}  // namespace gmgate::sip
