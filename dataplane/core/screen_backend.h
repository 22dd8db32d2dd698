#pragma once
// One packet backend out of two: `front` verifies inbound ESP and drops what is forged, `behind`
// (the kernel) decapsulates what is left and does all outbound. The control plane sees one
// sa::Backend, fed by one install.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/metrics.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "sa/backend.h"

namespace gmgate::dataplane {

// Knows neither layer's type. A packet's way is front → behind, so sets open from behind and close
// from the front: nothing passes the screen that the layer behind does not hold.
class ScreenBackend final : public sa::Backend {
  public:
    // Both outlive it. io: no descriptor for the events.
    [[nodiscard]] static Result<std::unique_ptr<ScreenBackend>> create(sa::Backend& front,
                                                                       sa::Backend& behind);

    // All or nothing across the two (C12): behind first, then the front, live in both when it
    // returns. If either refuses, neither holds the set and the error is the one that refused.
    [[nodiscard]] Result<void> install(const sa::SetParams& params) override;
    // The front first, then behind.
    using sa::Backend::remove;
    void remove(sa::SetId id) override;
    void remove(std::span<const sa::SetId> ids) override;

    // Inbound as the front counts it; forged and replayed are the sum, because what the front drops
    // never comes behind; outbound and its sequence as behind has it.
    void stats(std::span<const sa::SetId> ids, std::span<sa::SetStats> stats) const override;

    [[nodiscard]] int event_fd() const override;
    // The front's events; from behind only what the front cannot know: outbound sequence numbers
    // near their end, and packets that failed behind although the screen had found them authentic.
    void drain_events(const std::function<void(const sa::BackendEvent&)>& handle) override;

    [[nodiscard]] std::uint32_t owner_of(const IpAddress& ue, const IpAddress& ours) const override;
    // The smaller of the two.
    [[nodiscard]] std::size_t capacity() const override;
    [[nodiscard]] std::size_t installed() const override;

    // Events of integrity failures from behind: the layers disagree about a key or a packet. Any
    // thread.
    [[nodiscard]] std::uint64_t disagreements() const {
        return disagreements_.load(std::memory_order_relaxed);
    }
    // Installs undone because the front refused what behind had taken. Any thread.
    [[nodiscard]] std::uint64_t undone() const { return undone_.load(std::memory_order_relaxed); }
    // gmgate_screen_*.
    void register_metrics(metrics::Registry& registry) const;

  private:
    ScreenBackend(sa::Backend& front, sa::Backend& behind) : front_(front), behind_(behind) {}

    sa::Backend& front_;
    sa::Backend& behind_;
    UniqueFd events_;  // an epoll of both descriptors
    std::atomic<std::uint64_t> disagreements_{0};
    std::atomic<std::uint64_t> undone_{0};
};

}  // namespace gmgate::dataplane
