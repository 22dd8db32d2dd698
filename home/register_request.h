#pragma once
// A REGISTER as the registrar reads it.

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "control/sip/message.h"
#include "control/sip/values.h"

namespace gmgate::home {

// What the P-CSCF says about the path of the request (A11).
enum class Integrity : std::uint8_t { absent, no, yes };

// Views point into the message it was read from.
struct RegisterRequest {
    std::string impu;  // canonical, from To
    std::string impi;  // Digest username, else derived from the IMPU
    Integrity integrity = Integrity::absent;
    sip::DigestCredentials credentials;  // all absent without Authorization
    bool has_contact = false;   // without: the UE asks what is registered (RFC 3261 10.2.3)
    bool all_contacts = false;  // Contact: *
    std::string_view contact_uri;
    std::string_view contact_params;  // as written, from the first ';' or empty
    std::uint16_t q = 1000;           // of the Contact, in thousandths; none, or a bad one: 1
    std::uint32_t expires = 0;        // what the UE asks for, or the default
    std::string path;                 // all Path values, joined by ", "; unfolded
    std::string_view call_id;
    std::uint32_t cseq = 0;

    // A Digest response, not empty.
    [[nodiscard]] bool has_response() const {
        return credentials.response && !credentials.response->empty();
    }
    // C3: a response that is there and empty, for a challenge, and no auts.
    [[nodiscard]] bool network_failure() const {
        return credentials.response && credentials.response->empty() && !nonce().empty() &&
               !has_auts();
    }
    [[nodiscard]] bool has_auts() const { return credentials.auts && !credentials.auts->empty(); }
    [[nodiscard]] std::string_view nonce() const {
        return credentials.nonce.value_or(std::string_view{});
    }
};

struct Refusal {
    int code = 400;
    std::string reason;       // Reason-Phrase
    std::string header_name;  // an extra header of the response; may be empty
    std::string header_value;
};

// `message` must have been parsed and be a REGISTER.
std::expected<RegisterRequest, Refusal> read_register(const sip::Message& message,
                                                      std::uint32_t default_expires);

// A header value with its folds made blanks.
[[nodiscard]] std::string unfold(std::string_view value);

}  // namespace gmgate::home
