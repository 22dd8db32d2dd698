#pragma once
// The registrar's answers as text.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "control/sip/build.h"
#include "control/sip/message.h"
#include "home/aka.h"
#include "home/register_request.h"

namespace gmgate::home {

// Builds one response after the other in the same buffer. The views it returns live until the next
// call; an empty one: the request lacks the headers a response needs. One thread.
class RegisterResponder {
  public:
    RegisterResponder(std::string realm, std::string qop, std::string charging_function);
    ~RegisterResponder() { wipe_buffers(); }
    RegisterResponder(const RegisterResponder&) = delete;
    RegisterResponder& operator=(const RegisterResponder&) = delete;

    // What is answered, and how.
    struct To {
        const sip::Message& request;
        std::string_view tag;            // for the To header
        std::optional<Endpoint> source;  // see sip::ResponseOptions
    };
    // SM4: WWW-Authenticate with nonce, ck and ik. Call wipe_buffers() when it has been sent.
    std::string_view challenge(const To& to, std::string_view nonce, const AuthVector& vector);
    struct Accepted {
        std::string_view contact;         // URI of the binding; empty: none is left
        std::string_view contact_params;  // as the UE wrote them; its expires is replaced
        std::uint32_t expires = 0;        // granted
        std::string_view path;
        std::span<const std::string> service_route;
        std::span<const std::string> impus;  // the implicit registration set
    };
    // SM10, 200.
    std::string_view accept(const To& to, const Accepted& accepted);
    // Any other; `header_name` may be empty. No security parameter ever stands in it (6.1.2.2).
    std::string_view refuse(const To& to, const Refusal& refusal);

    // Overwrites what was built: it may hold keys.
    void wipe_buffers();

  private:
    std::string_view build(const To& to, int code, std::string_view reason,
                           std::span<const sip::HeaderField> headers);

    std::string realm_;
    std::string qop_;
    std::string charging_function_;
    std::string challenge_;  // the WWW-Authenticate value: keys
    std::string contact_;
    std::string associated_;
    std::string service_route_;
    std::string out_;
};

}  // namespace gmgate::home
