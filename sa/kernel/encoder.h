#pragma once
// XFRM messages into octets: no socket, no allocation, no clock.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "sa/kernel/message.h"

namespace gmgate::kernel {

// Writes messages one behind the other into a buffer it does not own (secret memory: states hold
// keys). A message that does not fit is left out whole and makes ok() false. Sequence numbers count
// up from what the constructor got, one a message.
class Encoder {
  public:
    Encoder() = default;
    Encoder(std::span<std::uint8_t> buffer, std::uint32_t first_sequence)
        : buffer_(buffer), first_(first_sequence) {}

    void add_state(const State& state);  // XFRM_MSG_NEWSA, acknowledged; fails if it exists
    // XFRM_MSG_UPDSA, acknowledged; fails if there is none. The kernel takes over encapsulation
    // and limits, nothing else: counters, window and addresses stay.
    void update_state(const State& state);
    void delete_state(const StateId& id);   // XFRM_MSG_DELSA, acknowledged
    void get_state(const StateId& id);      // XFRM_MSG_GETSA: answered by the state, or an error
    void dump_states();                     // XFRM_MSG_GETSA of all ESP states
    void put_policy(const Policy& policy);  // XFRM_MSG_UPDPOLICY, acknowledged: new or in its place
    void delete_policy(const Policy& policy);  // XFRM_MSG_DELPOLICY by selector, acknowledged
    void dump_policies();                      // XFRM_MSG_GETPOLICY of all

    [[nodiscard]] bool ok() const { return ok_; }
    [[nodiscard]] std::size_t count() const { return count_; }
    [[nodiscard]] std::uint32_t first_sequence() const { return first_; }
    [[nodiscard]] std::span<const std::uint8_t> octets() const { return buffer_.first(used_); }
    // A state takes at most so many octets, the other messages less.
    static constexpr std::size_t largest_message = 768;

  private:
    bool begin(std::uint16_t type, std::uint16_t flags);
    void finish();
    void put(const void* data, std::size_t size);
    template <class T>
    void put_attribute(std::uint16_t type, const T& value) {
        put_attribute_octets(type, &value, sizeof value);
    }
    void put_attribute_octets(std::uint16_t type, const void* data, std::size_t size);
    void put_algorithm(std::uint16_t type, const Algorithm& algorithm);
    void put_offload(const OffloadDevice& device);
    void put_state(std::uint16_t type, std::uint16_t flags, const State& state);
    void put_template(const Policy& policy);
    void state_name(std::uint16_t type, std::uint16_t flags, const StateId& id);

    std::span<std::uint8_t> buffer_;
    std::uint32_t first_ = 0;
    std::size_t used_ = 0;     // octets of whole messages
    std::size_t message_ = 0;  // octets of the one under way
    std::size_t count_ = 0;
    bool fits_ = true;
    bool ok_ = true;
};

}  // namespace gmgate::kernel
