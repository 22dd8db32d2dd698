#pragma once
// Requests to the kernel and their outcomes: batches, acknowledgements by sequence number, dumps.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/secret.h"
#include "sa/kernel/channel.h"
#include "sa/kernel/decoder.h"
#include "sa/kernel/encoder.h"

namespace gmgate::kernel {

// How one request ended.
struct Outcome {
    int error = 0;     // errno; 0: done
    std::string text;  // the kernel's own words; may be empty
    // Its answer never came: it may be done or not.
    bool unknown = false;
};

struct RequestCounters {
    metrics::Counter requests;  // messages
    metrics::Counter errors;    // outcomes other than 0
    metrics::Counter lost;      // answers that never came
    metrics::Counter dumps;
    metrics::Counter dump_retries;  // the tables changed while they were read
};

// One netlink conversation. Its buffers are secret memory and wiped after each exchange: requests
// and dumps carry keys.
class Requests {
  public:
    explicit Requests(std::unique_ptr<Channel> channel);

    // Messages whose answers surely fit into the socket's buffer at once.
    static constexpr std::size_t largest_batch = 128;
    static constexpr std::size_t largest_query = 32;  // get_state: answers are larger

    // An empty batch to write requests into.
    Encoder& begin();
    // Sends the batch; one outcome a message, in its order. `answer`: what came back besides
    // acknowledgements, with the position of the request in the batch.
    std::span<const Outcome> run(
        const std::function<void(std::size_t, const MessageView&)>& answer = {});
    // The batch is one dump. `restart` is called before each try: what earlier ones told is void,
    // because the kernel's tables changed meanwhile. After eight tries the last one counts.
    Outcome dump(const std::function<void()>& restart,
                 const std::function<void(const MessageView&)>& each);

    [[nodiscard]] const RequestCounters& counters() const { return counters_; }

  private:
    bool receive_dump(Outcome& outcome, bool& interrupted,
                      const std::function<void(const MessageView&)>& each);

    std::unique_ptr<Channel> channel_;
    SecretPages send_;
    SecretPages receive_;
    Encoder encoder_;
    std::uint32_t next_sequence_ = 1;
    std::vector<Outcome> outcomes_;
    std::vector<bool> answered_;
    RequestCounters counters_;
};

// The largest datagram of a dump is 32 KiB; more than one message fits into 64.
inline constexpr std::size_t receive_buffer_octets = 64UL << 10U;

}  // namespace gmgate::kernel
