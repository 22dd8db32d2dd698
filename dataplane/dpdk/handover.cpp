#include "dataplane/dpdk/handover.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace gmgate::dataplane {

Doorbell::Doorbell() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Doorbell::~Doorbell() {
    if (fd_ >= 0) ::close(fd_);
}

bool Doorbell::ring() {
    // What the caller published comes before the look at the flag: the sleeper does it the other
    // way round.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (!asleep_.load(std::memory_order_seq_cst)) return false;
    if (!asleep_.exchange(false, std::memory_order_seq_cst)) return false;
    const std::uint64_t one = 1;
    (void)!::write(fd_, &one, sizeof(one));
    return true;
}

void Doorbell::answer(bool readable) {
    asleep_.store(false, std::memory_order_seq_cst);
    if (!readable) return;
    std::uint64_t count = 0;
    (void)!::read(fd_, &count, sizeof(count));
}

HandOver::HandOver(unsigned workers) : workers_(workers) {
    for (unsigned i = 0; i < workers * workers; ++i) {
        const bool used = i / workers != i % workers;
        rings_.push_back(used ? std::make_unique<HandOverRing>() : nullptr);
    }
    for (unsigned i = 0; i < workers; ++i) doorbells_.push_back(std::make_unique<Doorbell>());
}

HandOver::~HandOver() {
    for (auto& ring : rings_) {
        if (!ring) continue;
        HandedOver item;
        while (ring->pop(&item, 1) == 1) rte_pktmbuf_free(item.packet);
    }
}

bool HandOver::empty_for(unsigned worker) const {
    for (unsigned from = 0; from < workers_; ++from) {
        if (from != worker && !rings_[from * workers_ + worker]->empty()) return false;
    }
    return true;
}

}  // namespace gmgate::dataplane
