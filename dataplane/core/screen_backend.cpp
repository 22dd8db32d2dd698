#include "dataplane/core/screen_backend.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

namespace gmgate::dataplane {

Result<std::unique_ptr<ScreenBackend>> ScreenBackend::create(sa::Backend& front,
                                                             sa::Backend& behind) {
    std::unique_ptr<ScreenBackend> made(new ScreenBackend(front, behind));
    for (const int fd : {front.event_fd(), behind.event_fd()}) {
        if (fd < 0) continue;
        if (!made->events_.valid()) made->events_.reset(::epoll_create1(EPOLL_CLOEXEC));
        epoll_event wanted{};
        wanted.events = EPOLLIN;
        if (!made->events_.valid() ||
            ::epoll_ctl(made->events_.get(), EPOLL_CTL_ADD, fd, &wanted) != 0) {
            return fail(ErrorKind::io, std::string("no descriptor for the events of the screen: ") +
                                           std::strerror(errno));
        }
    }
    return made;
}

Result<void> ScreenBackend::install(const sa::SetParams& params) {
    if (auto done = behind_.install(params); !done) return done;
    auto done = front_.install(params);
    if (!done) {
        behind_.remove(params.id);
        undone_.fetch_add(1, std::memory_order_relaxed);
    }
    return done;
}

void ScreenBackend::remove(sa::SetId id) {
    remove(std::span<const sa::SetId>(&id, 1));
}

void ScreenBackend::remove(std::span<const sa::SetId> ids) {
    front_.remove(ids);
    behind_.remove(ids);
}

void ScreenBackend::stats(std::span<const sa::SetId> ids, std::span<sa::SetStats> stats) const {
    front_.stats(ids, stats);
    std::vector<sa::SetStats> behind(stats.size());
    behind_.stats(ids, behind);
    for (std::size_t i = 0; i < stats.size(); ++i) {
        stats[i].integrity_failures += behind[i].integrity_failures;
        stats[i].replays += behind[i].replays;
        stats[i].out_packets = behind[i].out_packets;
        stats[i].out_bytes = behind[i].out_bytes;
        stats[i].highest_out_sequence = behind[i].highest_out_sequence;
    }
}

int ScreenBackend::event_fd() const {
    return events_.valid() ? events_.get() : -1;
}

void ScreenBackend::drain_events(const std::function<void(const sa::BackendEvent&)>& handle) {
    front_.drain_events(handle);
    behind_.drain_events([&](const sa::BackendEvent& event) {
        switch (event.kind) {
            case sa::BackendEventKind::first_authentic_packet:
                return;
            case sa::BackendEventKind::integrity_failure:
                disagreements_.fetch_add(1, std::memory_order_relaxed);
                break;
            case sa::BackendEventKind::sequence_near_end:
                // Inbound numbers pass the front before they come behind.
                if (event.spi != 0) return;
                break;
        }
        handle(event);
    });
}

std::uint32_t ScreenBackend::owner_of(const IpAddress& ue, const IpAddress& ours) const {
    return front_.owner_of(ue, ours);
}

std::size_t ScreenBackend::capacity() const {
    return std::min(front_.capacity(), behind_.capacity());
}

std::size_t ScreenBackend::installed() const {
    return front_.installed();
}

void ScreenBackend::register_metrics(metrics::Registry& registry) const {
    registry.function("gmgate_screen_disagreements_total",
                      "Integrity failures behind the screen, at most one a second and SA set: the "
                      "two layers disagree about a key or a packet",
                      metrics::Kind::counter, {},
                      [this] { return static_cast<double>(disagreements()); });
    registry.function("gmgate_screen_installs_undone_total",
                      "SA sets taken back from the kernel because the screen refused them",
                      metrics::Kind::counter, {}, [this] { return static_cast<double>(undone()); });
}

}  // namespace gmgate::dataplane
