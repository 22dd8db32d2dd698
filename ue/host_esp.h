#pragma once
// ESP that is not gmue's own: the host's kernel encapsulates, the phone has ordinary sockets on
// port_uc and port_us. The real one is ue/kernel_esp.h; tests have theirs.

#include <memory>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"
#include "sa/algorithms/key_expansion.h"
#include "ue/network.h"
#include "ue/sa_numbers.h"

namespace gmgate::ue {

// Calls come from the loop. What is heard here came under the set: the kernel drops the rest.
class HostSetHandler {
  public:
    virtual ~HostSetHandler() = default;
    virtual void host_datagram(bool at_client_port, const Endpoint& from,
                               std::string_view payload) = 0;
    // port_pc → port_us, the P-CSCF's; start() it to hear more.
    virtual void host_accepted(std::unique_ptr<HostStream> stream) = 0;
};

// One set of four SAs in the kernel, with its sockets. Destroying it removes all of it; streams
// under it must go first.
class HostSet {
  public:
    virtual ~HostSet() = default;
    virtual void send(bool from_client_port, std::string_view payload) = 0;
    // port_uc → port_ps.
    virtual std::unique_ptr<HostStream> connect(ClearStreamHandler& handler) = 0;
};

class HostEsp {
  public:
    virtual ~HostEsp() = default;
    // All or nothing. The error's text is for a person.
    virtual Result<std::unique_ptr<HostSet>> install(const IpAddress& ue, const IpAddress& pcscf,
                                                     const SaNumbers& numbers, sa::Suite suite,
                                                     const sa::EspKeys& keys,
                                                     HostSetHandler& handler) = 0;
};

}  // namespace gmgate::ue
