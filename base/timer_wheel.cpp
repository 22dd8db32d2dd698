#include "base/timer_wheel.h"

#include <algorithm>

namespace gmgate {

namespace {
constexpr Duration tick_length = std::chrono::milliseconds(1);
}

TimePoint Timer::deadline() const {
    return wheel_ == nullptr ? TimePoint::max()
                             : wheel_->epoch_ + tick_length * static_cast<Duration::rep>(tick_);
}

void Timer::stop() {
    if (wheel_ != nullptr) wheel_->unlink(*this);
}

void TimerWheel::List::push(Timer& t) {
    t.prev_ = head.prev_;
    t.next_ = &head;
    head.prev_->next_ = &t;
    head.prev_ = &t;
}

void TimerWheel::List::splice_from(List& other) {
    if (other.empty()) return;
    other.head.next_->prev_ = head.prev_;
    head.prev_->next_ = other.head.next_;
    other.head.prev_->next_ = &head;
    head.prev_ = other.head.prev_;
    other.head.prev_ = other.head.next_ = &other.head;
}

TimerWheel::TimerWheel(const Clock& clock) : clock_(clock), epoch_(clock.now()) {}

TimerWheel::~TimerWheel() {
    const auto orphan = [](List& list) {
        while (!list.empty()) {
            Timer* t = list.head.next_;
            list.head.next_ = t->next_;
            t->next_->prev_ = &list.head;
            t->prev_ = t->next_ = nullptr;
            t->wheel_ = nullptr;
        }
    };
    for (auto& level : wheel_) {
        for (auto& list : level) orphan(list);
    }
    orphan(cascade_);
    orphan(due_);
}

std::uint64_t TimerWheel::tick_of(TimePoint t) const {
    if (t <= epoch_) return 0;
    return static_cast<std::uint64_t>((t - epoch_) / tick_length);
}

void TimerWheel::start(Timer& timer, Duration after) {
    const TimePoint now = clock_.now();
    start_at(timer, after > TimePoint::max() - now ? TimePoint::max() : now + after);
}

void TimerWheel::start_at(Timer& timer, TimePoint when) {
    timer.stop();
    // An empty wheel is not walked past the time it slept: that could be days of ticks.
    if (size_ == 0) current_ = std::max(current_, tick_of(clock_.now()));
    timer.wheel_ = this;
    // Rounded up: a timer never fires early.
    const TimePoint up =
        when > TimePoint::max() - tick_length ? when : when + tick_length - Duration(1);
    timer.tick_ = std::max(tick_of(up), current_);
    ++size_;
    insert(timer);
}

void TimerWheel::insert(Timer& timer) {
    if (timer.tick_ < current_) {
        due_.push(timer);
        return;
    }
    const std::uint64_t delta = timer.tick_ - current_;
    for (unsigned level = 0; level < levels; ++level) {
        if (delta < (std::uint64_t{1} << (bits * (level + 1)))) {
            wheel_[level][(timer.tick_ >> (bits * level)) & (slots - 1)].push(timer);
            return;
        }
    }
    // Beyond 34 years: parked in the farthest slot, looked at again when that comes round.
    const std::uint64_t far = current_ + (std::uint64_t{1} << (bits * levels)) - 1;
    wheel_[levels - 1][(far >> (bits * (levels - 1))) & (slots - 1)].push(timer);
}

void TimerWheel::unlink(Timer& timer) {
    timer.prev_->next_ = timer.next_;
    timer.next_->prev_ = timer.prev_;
    timer.prev_ = timer.next_ = nullptr;
    timer.wheel_ = nullptr;
    --size_;
}

bool TimerWheel::advance(std::size_t budget) {
    const std::uint64_t target = tick_of(clock_.now());
    for (;;) {
        while (!cascade_.empty()) {
            if (budget-- == 0) return true;
            Timer* t = cascade_.head.next_;
            t->prev_->next_ = t->next_;
            t->next_->prev_ = t->prev_;
            insert(*t);
        }
        while (!due_.empty()) {
            if (budget-- == 0) return true;
            Timer* t = due_.head.next_;
            unlink(*t);
            if (t->callback_ != nullptr)
                t->callback_(t->context_);  // may start, stop or destroy any timer
        }
        if (current_ > target) return false;
        if (size_ == 0) {  // nothing to walk past
            current_ = target + 1;
            return false;
        }
        // Tick `current_` is due. Entering a new round of a level brings down that level's slot
        // first.
        const std::size_t index = current_ & (slots - 1);
        if (index == 0 && current_ != 0) {
            for (unsigned level = 1; level < levels; ++level) {
                const std::size_t slot = (current_ >> (bits * level)) & (slots - 1);
                cascade_.splice_from(wheel_[level][slot]);
                if (slot != 0) break;
            }
            if (!cascade_.empty()) {
                // Timers of this tick land in wheel_[0][0] and are taken on the next turn of this
                // loop, which must not cascade again: an emptied slot stays empty until a full
                // round later, so repeating is harmless.
                continue;
            }
        }
        due_.splice_from(wheel_[0][index]);
        ++current_;
    }
}

Duration TimerWheel::until_next() const {
    if (size_ == 0) return Duration::max();
    if (!due_.empty() || !cascade_.empty()) return Duration::zero();
    // The next non-empty slot of level 0, or the next boundary at which a higher level comes down.
    std::uint64_t tick = current_;
    if ((tick & (slots - 1)) == 0 && tick != 0) {
        // A boundary itself is work.
        tick = current_;
    } else {
        const std::uint64_t boundary = (current_ | (slots - 1)) + 1;
        while (tick < boundary && wheel_[0][tick & (slots - 1)].empty()) ++tick;
    }
    const TimePoint when = epoch_ + tick_length * static_cast<Duration::rep>(tick);
    const TimePoint now = clock_.now();
    return when <= now ? Duration::zero() : when - now;
}

}  // namespace gmgate
