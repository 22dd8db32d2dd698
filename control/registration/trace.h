#pragma once
// What happened to whom: a bounded ring of small records, from which the operator's tools draw the
// ladder SM1…SM12 of one phone.
//
// A record holds only the names of methods and steps, numbers and times, so no key, nonce or body
// can get in (S1). Recording writes 64 octets: no allocation, no lock. One thread (the control
// thread).

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "control/registration/reasons.h"
#include "sa/types.h"

namespace gmgate::registration {

enum class Entity : std::uint8_t { ue, pcscf, core };
[[nodiscard]] std::string_view name(Entity entity);  // "UE", "P-CSCF", "core"

// The messages of TS 33.203 6.1.1 that touch the P-CSCF, and what is no message.
enum class Step : std::uint8_t {
    none,  // any other SIP message
    sm1,
    sm2,
    sm5,
    sm6,
    sm7,
    sm8,
    sm11,
    sm12,
    set_installed,      // the four SAs are live
    set_established,    // the authentication is complete
    set_removed,        // the four SAs are gone
    packet_dropped,     // the packet layer dropped an ESP packet of this set (C1)
    procedure_ended,    // the registration procedure ended for `reason`
    registration_ended  // the registration ended for `reason`
};
[[nodiscard]] std::string_view name(Step step);  // "SM1", "SA set installed", "" for none

// One message or event.
struct TraceRecord {
    TimePoint time{};
    std::uint64_t user = 0;     // keyed hash of the IMPI
    std::uint64_t attempt = 0;  // the registration it belongs to; 0: to the latest that began
    std::uint64_t call = 0;     // keyed hash of the Call-ID; 0: no message, or not known
    sa::SetId set = 0;          // 0: no set is involved
    sa::Spi spi = 0;            // the SA that carried the message; 0: in clear, or not on Gm
    std::uint16_t status = 0;   // of a response; 0: a request or an event
    Entity from = Entity::ue;
    Entity to = Entity::pcscf;
    Step step = Step::none;
    Reason reason = Reason::ok;
    // "REGISTER", zero-filled; a response carries its CSeq's.
    std::array<char, 13> method{};
    enum class Over : std::uint8_t { unknown, udp, tcp };
    Over over = Over::unknown;  // between UE and P-CSCF

    [[nodiscard]] std::string_view method_name() const;
    // "REGISTER SM1", "401 SM6", "200 MESSAGE", "SA set installed".
    [[nodiscard]] std::string summary() const;
};
static_assert(sizeof(TraceRecord) <= 64);

// A record and its place in the order in which all were written; times may be equal.
struct NumberedRecord : TraceRecord {
    std::uint64_t number = 0;
};

class TraceStore {
  public:
    // `capacity` records (at least 1) are allocated at once; `seed` keys the hash of the IMPI.
    TraceStore(std::size_t capacity, std::uint64_t seed);

    // The number that stands for an IMPI in the records.
    [[nodiscard]] std::uint64_t user_of(std::string_view impi) const;
    // The number that stands for a Call-ID; never 0.
    [[nodiscard]] std::uint64_t call_of(std::string_view call_id) const;
    // Overwrites the oldest when full.
    void add(const TraceRecord& record);

    // Records of one IMPI, oldest first, at most the latest `limit`. A scan of the ring.
    [[nodiscard]] std::vector<NumberedRecord> of_user(std::string_view impi,
                                                      std::size_t limit = 1000) const;
    // The latest `limit` of all, oldest first.
    [[nodiscard]] std::vector<TraceRecord> latest(std::size_t limit) const;
    [[nodiscard]] std::size_t size() const;
    [[nodiscard]] std::size_t capacity() const { return ring_.size(); }
    [[nodiscard]] std::uint64_t recorded() const { return next_; }

  private:
    std::vector<TraceRecord> ring_;
    std::uint64_t next_ = 0;
    std::uint64_t seed_;
};

}  // namespace gmgate::registration
