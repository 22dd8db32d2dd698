#pragma once
// Lets a program of this host (sipp, a softphone) be the application in a phone: it speaks plain
// SIP over UDP with the bridge, and the bridge carries that through the SAs of a registered phone.
//
// Out: the program's Vias make room for the phone's, its Contact becomes the phone's; requests
// outside dialogs get the Service-Route and P-Preferred-Identity; all get what RFC 3329 demands. A
// host in the Request-URI that is the bridge's means the home network, or, in a dialog, the peer's
// Contact with the route set that belongs to it (so that a program that keeps no routes can call).
// In: requests go to the program with a Via of the bridge's on top; responses to where the request
// came from. Everything else passes as it is. One phone's; one thread.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/timer_wheel.h"
#include "control/sip/values.h"
#include "ue/aging_map.h"
#include "ue/application.h"
#include "ue/dialog.h"
#include "ue/statistics.h"

namespace gmgate::ue {

class Bridge final : public Application {
  public:
    struct Options {
        Endpoint self;                // where the program sends to
        std::optional<Endpoint> app;  // where it is; nullopt: where it last sent from
        std::string realm;
    };
    using Send = std::function<void(const Endpoint& to, std::string_view datagram)>;

    // References must outlive it. `ready`: the phone is registered.
    Bridge(const TimerWheel& timers, AgentHost& phone, BridgeStatistics& statistics,
           Options options, Send send, std::function<void()> ready);

    void from_application(const Endpoint& from, std::string_view datagram);

    void phone_registered() override;
    bool phone_request(const sip::Message& m, const ReplyPath& path) override;
    bool phone_response(const sip::Message& m) override;

  private:
    // A request of the program's that may be answered.
    struct Asked {
        std::string vias;  // its header lines
        std::string uri;   // Request-URI it went out with
        Endpoint from;
    };
    void app_request(const sip::Message& m, const Endpoint& from);
    void app_response(const sip::Message& m);
    void refuse(const sip::Message& m, const Endpoint& to, int code, std::string_view reason);
    void learn(const sip::Message& m, bool from_network);
    void drop(std::string_view why);
    [[nodiscard]] bool is_self(const sip::Uri& uri) const;
    [[nodiscard]] static std::string branch_for(char side, const sip::Message& m,
                                                const sip::Via& via);
    [[nodiscard]] static std::string contact_line(const sip::Message& m, const Flow& flow);

    const TimerWheel& timers_;
    AgentHost& phone_;
    BridgeStatistics& statistics_;
    Options options_;
    Send send_;
    std::function<void()> ready_;
    bool announced_ = false;
    std::optional<Endpoint> app_;
    AgingMap<Asked> asked_;       // by our branch
    AgingMap<ReplyPath> asking_;  // requests of the network, by our branch
    AgingMap<Dialog> dialogs_;    // by Call-ID
};

}  // namespace gmgate::ue
