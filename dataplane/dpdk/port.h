#pragma once
// Where packets come from and go to: a DPDK port (port.cpp), the TAP (host_port.h), or memory in
// tests.

#include <rte_ether.h>
#include <rte_mbuf.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "dataplane/dpdk/interface.h"

namespace gmgate::dataplane {

// Queue q is served by one thread; different queues by different threads.
class Port {
  public:
    virtual ~Port() = default;
    // Up to `max` frames, the caller's from then on.
    virtual std::uint16_t receive(unsigned queue, rte_mbuf** out, std::uint16_t max) = 0;
    // Takes all of them: what cannot be sent now is freed. Returns how many were sent. Frames may
    // have several segments.
    virtual std::uint16_t send(unsigned queue, rte_mbuf** frames, std::uint16_t count) = 0;
    // Becomes readable when the queue has something; -1: only asking tells. The worker calls
    // revive() when poll(2) reports an error on it; false: the descriptor will not work again.
    [[nodiscard]] virtual int wait_fd(unsigned queue) const = 0;
    virtual bool revive(unsigned queue) = 0;
};

// Two sizes of packet buffers, both with RTE_PKTMBUF_HEADROOM in front.
class BufferPools {
  public:
    static constexpr std::uint16_t small_room = 2048;   // a frame of the wire and what ESP adds
    static constexpr std::uint16_t large_room = 16384;  // a reassembled datagram

    // `memory_mb`: what EAL was given; the pools take at most about half of it. Throws nothing;
    // exhausted: which memory.
    [[nodiscard]] static Result<std::unique_ptr<BufferPools>> create(const std::string& name,
                                                                     unsigned workers,
                                                                     unsigned memory_mb);
    ~BufferPools();
    BufferPools(const BufferPools&) = delete;
    BufferPools& operator=(const BufferPools&) = delete;

    // For frames of up to `octets`.
    [[nodiscard]] rte_mempool* for_size(std::size_t octets) const {
        return octets <= small_room - 64 ? small_ : large_;
    }
    [[nodiscard]] rte_mempool* small() const { return small_; }
    [[nodiscard]] rte_mempool* large() const { return large_; }

  private:
    BufferPools() = default;
    rte_mempool* small_ = nullptr;
    rte_mempool* large_ = nullptr;
};

// A DPDK port with one queue pair per worker where the device has so many; workers share queues to
// send on otherwise.
class EthPort final : public Port {
  public:
    // An af_packet port on a kernel interface.
    [[nodiscard]] static Result<std::unique_ptr<EthPort>> open_af_packet(
        const std::string& interface, int interface_index, unsigned workers, rte_mempool* pool);
    // "0000:3b:00.0" (probed by EAL already) or "net_…,arguments".
    [[nodiscard]] static Result<std::unique_ptr<EthPort>> open_device(const std::string& device,
                                                                      unsigned workers,
                                                                      rte_mempool* pool);
    ~EthPort() override;

    std::uint16_t receive(unsigned queue, rte_mbuf** out, std::uint16_t max) override;
    std::uint16_t send(unsigned queue, rte_mbuf** frames, std::uint16_t count) override;
    [[nodiscard]] int wait_fd(unsigned queue) const override;
    bool revive(unsigned queue) override;

    // Any thread.
    struct Errors {
        std::uint64_t receive = 0;  // damaged, or lost for want of room
        std::uint64_t send = 0;
    };
    [[nodiscard]] Errors errors() const;
    [[nodiscard]] bool link_up() const;
    [[nodiscard]] MacAddress mac() const;

  private:
    EthPort() = default;
    Result<void> start(unsigned workers, rte_mempool* pool);

    std::uint16_t id_ = 0;
    bool started_ = false;
    bool hot_plugged_ = false;  // ours to remove
    std::string device_;
    unsigned receive_queues_ = 0;
    unsigned send_queues_ = 0;
    unsigned workers_ = 0;
    std::vector<int> sockets_;  // af_packet's, by queue: to sleep on; not ours to close
    mutable std::atomic<std::uint64_t> ring_full_{0};
    std::vector<std::unique_ptr<std::atomic_flag>> send_locks_;  // if send queues are shared
};

}  // namespace gmgate::dataplane
