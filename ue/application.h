#pragma once

#include "control/sip/message.h"
#include "ue/agent_host.h"

namespace gmgate::ue {

// A program that speaks SIP by way of a phone, in place of the phone's own agent.
class Application {
  public:
    virtual ~Application() = default;
    virtual void phone_registered() = 0;
    // Under its SAs; false: the phone is to deal with it.
    virtual bool phone_request(const sip::Message& m, const ReplyPath& path) = 0;
    virtual bool phone_response(const sip::Message& m) = 0;
};

}  // namespace gmgate::ue
