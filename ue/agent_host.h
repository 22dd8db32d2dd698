#pragma once
// What an agent (ue/agent.h) needs of the phone it is in: who it is, and a way through its SAs.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "ue/requests.h"

namespace gmgate::ue {

// How a request came, so that its answers go back that way (A2), also much later.
struct ReplyPath {
    std::uint32_t set = 0;  // serial of the SAs
    bool tcp = false;
    bool our_connection = false;  // TCP: on the one we opened
    bool rport = false;           // UDP: back from the port it came to, not from our client port
};

// A request as it was sent, to be sent again.
struct SentRequest {
    std::string bytes;
    std::uint32_t set = 0;
    bool tcp = false;
};

// A registered phone, as its requests show it. Valid until the next call into the phone.
struct Flow {
    std::uint32_t set = 0;  // serial of the SAs in use
    Endpoint contact;       // its address and port_us: Contact and the Via's sent-by
    bool tcp = false;       // its requests go over TCP whatever their size
    Style style = Style::plain;
    Identity identity;
    std::string route;   // value of Route of a request outside a dialog: the Service-Route
    std::string verify;  // header lines
};

class Call;

enum class CallEvent : std::uint8_t {
    incoming,     // somebody calls
    ringing,      // the other end rings
    answered,     // by the other end (2xx), or by us and acknowledged
    held,         // our hold was accepted
    resumed,      // our end of the hold was
    not_changed,  // neither was
    peer_held,
    peer_resumed,
    ended,
};
[[nodiscard]] std::string_view name(CallEvent event);

// What a NOTIFY of the phone's own registration said.
struct RegistrationNews {
    std::uint32_t version = 0;
    bool full = true;
    bool reauthenticate = false;  // the network wants a REGISTER soon ("shortened")
    bool gone = false;            // the registration ended
    bool may_return = false;      // ... and the phone is to register anew ("deactivated")
};

class AgentHost {
  public:
    virtual ~AgentHost() = default;
    // nullopt: not registered.
    [[nodiscard]] virtual std::optional<Flow> flow() const = 0;
    // On the SAs with that serial, or on the ones in use if those are gone. False: there are none.
    virtual bool send_request(std::uint32_t set, bool tcp, std::string_view bytes) = 0;
    virtual bool send_response(const ReplyPath& path, std::string_view bytes) = 0;
    // For people.
    virtual void narrate(std::string_view line) const = 0;
    // From inside the call: place, change and end what you like, destroy nothing.
    virtual void call_event(Call& call, CallEvent event) = 0;
    virtual void message_came(std::string_view from, std::string_view text) = 0;
    virtual void registration_news(const RegistrationNews& news) = 0;
};

}  // namespace gmgate::ue
