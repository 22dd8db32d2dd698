#pragma once
// IP fragments around ESP (E6): datagrams are made whole before the fast path sees them, and cut to
// the wire's MTU after it.

#include <rte_mbuf.h>

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/clock.h"
#include "dataplane/dpdk/stats.h"

namespace gmgate::dataplane {

// Copies each fragment to its place in one buffer, so that the result is linear and a datagram
// costs one buffer however it was cut. The table has a fixed size; a newcomer takes the place of
// the oldest of its bucket: a flood of fragments that never become whole cannot keep out datagrams
// whose fragments come together. Fragments that came under an SA (`origin`) have one bucket of 8
// for each SA, where its own oldest gives way first. Not thread-safe: one a worker.
class Reassembler {
  public:
    struct Config {
        std::size_t datagrams =
            256;  // that can be incomplete at a time; rounded up to a power of two, at least 8
        Duration timeout = std::chrono::seconds(2);
    };
    // `buffers`: their room bounds a datagram (less 320 octets for headers and ESP). `seed`:
    // strangers choose the keys.
    Reassembler(const Config& config, rte_mempool* buffers, std::uint64_t seed,
                PortCounters& counters);
    ~Reassembler();
    Reassembler(const Reassembler&) = delete;
    Reassembler& operator=(const Reassembler&) = delete;

    // Takes one Ethernet frame that is an IPv4 or IPv6 fragment, in one segment. The whole
    // datagram, or null. Fragments of different `origin`, as the SPI they came under, never meet.
    // 0: of no SA.
    [[nodiscard]] rte_mbuf* add(rte_mbuf* fragment, TimePoint now, std::uint32_t origin = 0);
    // Gives up what is too old. Cheap when there is nothing.
    void expire(TimePoint now);
    [[nodiscard]] std::size_t incomplete() const { return used_; }

  private:
    static constexpr std::size_t ways = 8;
    static constexpr std::size_t max_header =
        192;  // link layer, IP and extension headers before the fragment's data
    static constexpr std::size_t max_data = 16384;

    struct Key {
        std::array<std::uint8_t, 16> source{};
        std::array<std::uint8_t, 16> destination{};
        std::uint32_t id = 0;
        std::uint32_t origin = 0;
        std::uint8_t protocol = 0;  // IPv4; IPv6: 255
        bool operator==(const Key&) const = default;
    };
    struct Piece {
        Key key;
        std::span<const std::uint8_t> header;  // up to the data, without the IPv6 fragment header
        std::span<const std::uint8_t> data;
        std::size_t ip_at = 0;           // of the IP header in `header`
        std::size_t next_header_at = 0;  // IPv6: octet of `header` that named the fragment header
        std::uint8_t next_header = 0;
        std::uint32_t offset = 0;  // octets
        bool last = false;
        bool v6 = false;
    };
    struct Datagram {
        Key key;
        rte_mbuf* buffer = nullptr;  // null: free
        TimePoint born{};
        std::uint32_t total = 0;  // octets of data; 0: the last fragment has not come
        std::uint32_t received = 0;
        std::uint32_t fragments = 0;
        std::uint16_t header_size = 0;  // 0: the first fragment has not come
        std::uint16_t ip_at = 0;
        bool v6 = false;
        std::array<std::uint8_t, max_header> header{};
        std::bitset<max_data / 8> blocks;
    };

    static bool dissect(const rte_mbuf* m, Piece& piece);
    [[nodiscard]] std::size_t bucket_of(const Key& key) const;
    Datagram* find_or_make(const Piece& piece, TimePoint now);
    static Datagram& who_gives_way(std::span<Datagram> bucket, std::uint32_t newcomer);
    void give_up(Datagram& d, PortDropReason reason, std::uint32_t more = 0);
    [[nodiscard]] std::uint8_t* data_of(const Datagram& d) const;
    rte_mbuf* finish(Datagram& d);

    Duration timeout_;
    rte_mempool* buffers_;
    std::size_t room_;
    std::uint64_t seed_;
    PortCounters& counters_;
    std::vector<Datagram> table_;
    std::size_t used_ = 0;
};

// Cuts frame `whole` (one segment) into frames whose IP packet has at most `mtu` octets, from
// `pool`. 0 and nothing made: no buffer, or not IP, or more than out.size() pieces. `whole` stays
// the caller's in any case. `id`: for the fragments of IPv6, and of IPv4 packets that have none.
[[nodiscard]] std::uint16_t fragment_frame(const rte_mbuf* whole, std::size_t mtu,
                                           rte_mempool* pool, std::uint32_t id,
                                           std::span<rte_mbuf*> out);
// Octets of link-layer header: 14, or 18 with a VLAN tag. 0: too short, or neither IPv4 nor IPv6.
[[nodiscard]] std::size_t link_header_size(std::span<const std::uint8_t> frame, bool& v6);

}  // namespace gmgate::dataplane
