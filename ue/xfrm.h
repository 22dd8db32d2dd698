#pragma once
// The kernel's IPsec by netlink, as a phone needs it: states and policies of a set of four SAs.
//
// The phone's own words to the kernel: it shares no code with the gateway's, so that one checks the
// other. Synchronous: each call returns when the kernel has answered. One thread.

#include <linux/netlink.h>
#include <linux/xfrm.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "sa/algorithms/key_expansion.h"
#include "sa/algorithms/suite.h"

namespace gmgate::ue {

// One unidirectional SA and the policy that demands it: from:port → to:port, UDP and TCP alike
// (A2).
struct XfrmSa {
    Endpoint from;
    Endpoint to;
    std::uint32_t spi = 0;  // host order
    bool outbound = false;  // we send on it
};

// The four SAs of a set: same suite, same keys. `keys` need only live during the call.
struct XfrmSet {
    std::array<XfrmSa, 4> sas;
    std::uint32_t reqid = 0;
    sa::Suite suite;
};

// What a dump of the kernel's states and policies shows of a range of reqids.
struct XfrmLeavings {
    struct State {
        IpAddress from;
        IpAddress to;
        std::uint32_t spi = 0;  // host order
    };
    struct Policy {
        xfrm_selector selector{};
        std::uint8_t direction = 0;
    };
    std::vector<State> states;
    std::vector<Policy> policies;
    [[nodiscard]] std::size_t size() const { return states.size() + policies.size(); }
};
// Adds what `message`, one of a dump, says, if it is ours: ESP in transport mode with a reqid of
// `first` and the `count - 1` after it.
void read_xfrm_dump(const nlmsghdr& message, std::uint32_t first, std::uint32_t count,
                    XfrmLeavings& out);

class Xfrm {
  public:
    // denied: no CAP_NET_ADMIN; unsupported: a kernel without XFRM.
    static Result<Xfrm> open();

    // All four states and policies, or none. unsupported: the kernel lacks ESP or an algorithm (the
    // text says which module); conflict: an SPI or policy is taken.
    Result<void> install(const XfrmSet& set, const sa::EspKeys& keys);
    // Removes what is there of the set; what is not is no error.
    void remove(const XfrmSet& set);
    // Removes all that carries one of these reqids; how many states and policies that were. denied:
    // no CAP_NET_ADMIN.
    Result<std::size_t> remove_all(std::uint32_t first_reqid, std::uint32_t count);

  private:
    explicit Xfrm(UniqueFd fd) : fd_(std::move(fd)) {}
    // Sends what batch_ holds; answers[i]: 0 or the errno of request i. Wipes the batch.
    Result<void> exchange(std::vector<int>& answers);
    void note_words(const nlmsghdr& answer, const nlmsgerr& error);
    void add_state(const XfrmSet& set, const XfrmSa& sa, const sa::EspKeys& keys);
    void add_policy(const XfrmSet& set, const XfrmSa& sa);
    void delete_state(const IpAddress& from, const IpAddress& to, std::uint32_t spi);
    void delete_state(const XfrmSa& sa) { delete_state(sa.from.address, sa.to.address, sa.spi); }
    void delete_policy(const xfrm_selector& selector, std::uint8_t direction);
    void delete_policy(const XfrmSa& sa);
    Result<void> dump(std::uint16_t type, std::uint32_t first, std::uint32_t count,
                      XfrmLeavings& out);
    nlmsghdr* begin(std::uint16_t type, std::uint16_t flags);
    void end(const nlmsghdr* message);

    UniqueFd fd_;
    std::uint32_t sequence_ = 0;
    unsigned requests_ = 0;
    std::size_t used_ = 0;
    std::vector<std::uint8_t> batch_ = std::vector<std::uint8_t>(16384);
    std::string why_;  // the kernel's own words about the last refusal
};

// One sentence with the remedy for the errno of a refused state; `kernel_words` may be empty.
[[nodiscard]] Error explain_xfrm_error(int error, sa::Suite suite, bool v6,
                                       const std::string& kernel_words);

}  // namespace gmgate::ue
