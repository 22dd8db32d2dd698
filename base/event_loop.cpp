#include "base/event_loop.h"

#include <uv.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

namespace gmgate {

namespace {
// What timers may take before descriptors get their turn again. A step of the wheel is anything
// from a pointer moved to an SA set removed, so the clock decides, asked after each slice; the
// number of slices bounds a clock that stands still.
constexpr Duration timer_share = std::chrono::microseconds(200);
constexpr std::size_t timer_slice = 16;
constexpr std::size_t timer_slices = 256;

void check(int rc, const char* what) {
    if (rc != 0) throw std::runtime_error(std::string(what) + ": " + uv_strerror(rc));
}

int to_uv(unsigned interest) {
    int events = 0;
    if ((interest & EventLoop::readable) != 0) events |= UV_READABLE | UV_DISCONNECT;
    if ((interest & EventLoop::writable) != 0) events |= UV_WRITABLE;
    return events;
}
}  // namespace

struct EventLoop::Impl {
    struct Watch {
        uv_poll_t handle{};
        FdCallback callback;
        bool closed = false;
    };
    struct Signal {
        uv_signal_t handle{};
        std::function<void()> callback;
    };

    explicit Impl(const Clock& clock) : wheel(clock) {
        check(uv_loop_init(&loop), "uv_loop_init");
        loop.data = this;
        check(uv_timer_init(&loop, &timer), "uv_timer_init");
        check(uv_prepare_init(&loop, &prepare), "uv_prepare_init");
        check(uv_async_init(&loop, &async, [](uv_async_t* a) { self(a)->drain(); }),
              "uv_async_init");
        timer.data = prepare.data = async.data = this;
        // Before it sleeps: fire timers, flush batches, and sleep no longer than the next timer
        // allows.
        check(uv_prepare_start(&prepare, [](uv_prepare_t* p) { self(p)->before_sleep(); }),
              "uv_prepare_start");
    }
    ~Impl() {
        for (auto& [fd, w] : watches) close_watch(std::move(w));
        watches.clear();
        for (auto& s : signals) uv_close(reinterpret_cast<uv_handle_t*>(&s->handle), nullptr);
        uv_close(reinterpret_cast<uv_handle_t*>(&timer), nullptr);
        uv_close(reinterpret_cast<uv_handle_t*>(&prepare), nullptr);
        uv_close(reinterpret_cast<uv_handle_t*>(&async), nullptr);
        uv_run(&loop, UV_RUN_DEFAULT);
        uv_loop_close(&loop);
    }

    template <class H>
    static Impl* self(H* handle) {
        return static_cast<Impl*>(handle->data);
    }

    // True if timers that are due are left.
    bool run_timers() {
        const TimePoint until = wheel.now() + timer_share;
        for (std::size_t slice = 0; slice < timer_slices; ++slice) {
            if (!wheel.advance(timer_slice)) return false;
            if (wheel.now() >= until) return true;
        }
        return true;
    }

    void before_sleep() {
        // Timers first: what they send is flushed by the idle callbacks below.
        const bool more = run_timers();
        for (auto& f : idle) f();
        std::uint64_t ms = 0;
        if (!more) {
            const Duration wait = wheel.until_next();
            if (wait == Duration::max()) {
                uv_timer_stop(&timer);
                return;
            }
            ms = static_cast<std::uint64_t>((wait + std::chrono::microseconds(999)) /
                                            std::chrono::milliseconds(1));
        }
        // libuv computed "now" before the callbacks of this round ran.
        uv_update_time(&loop);
        uv_timer_start(&timer, [](uv_timer_t*) {}, ms, 0);
    }

    void drain() {
        std::vector<std::function<void()>> work;
        {
            const std::scoped_lock lock(mutex);
            work.swap(posted);
        }
        for (auto& f : work) f();
    }

    static void close_watch(std::unique_ptr<Watch> w) {
        w->closed = true;
        uv_poll_stop(&w->handle);
        Watch* raw = w.release();
        uv_close(reinterpret_cast<uv_handle_t*>(&raw->handle), [](uv_handle_t* h) {
            const std::unique_ptr<Watch> owned(static_cast<Watch*>(h->data));
        });
    }

    static void on_poll(uv_poll_t* handle, int status, int events) {
        auto* w = static_cast<Watch*>(handle->data);
        if (w->closed) return;
        unsigned ready = 0;
        if (status < 0 || (events & (UV_READABLE | UV_DISCONNECT)) != 0) ready |= readable;
        if (status < 0 || (events & UV_WRITABLE) != 0) ready |= writable;
        w->callback(ready);
    }

    uv_loop_t loop{};
    uv_timer_t timer{};
    uv_prepare_t prepare{};
    uv_async_t async{};
    TimerWheel wheel;
    std::unordered_map<int, std::unique_ptr<Watch>> watches;
    std::vector<std::unique_ptr<Signal>> signals;
    std::vector<std::function<void()>> idle;
    std::mutex mutex;
    std::vector<std::function<void()>> posted;
};

EventLoop::EventLoop(const Clock& clock) : impl_(std::make_unique<Impl>(clock)) {}
EventLoop::~EventLoop() = default;

void EventLoop::watch(int fd, unsigned interest, FdCallback callback) {
    auto w = std::make_unique<Impl::Watch>();
    w->callback = std::move(callback);
    check(uv_poll_init(&impl_->loop, &w->handle, fd), "uv_poll_init");
    w->handle.data = w.get();
    check(uv_poll_start(&w->handle, to_uv(interest), &Impl::on_poll), "uv_poll_start");
    impl_->watches[fd] = std::move(w);
}

void EventLoop::change(int fd, unsigned interest) {
    const auto it = impl_->watches.find(fd);
    if (it == impl_->watches.end()) return;
    if (interest == 0) {
        uv_poll_stop(&it->second->handle);
    } else {
        check(uv_poll_start(&it->second->handle, to_uv(interest), &Impl::on_poll), "uv_poll_start");
    }
}

void EventLoop::unwatch(int fd) {
    const auto it = impl_->watches.find(fd);
    if (it == impl_->watches.end()) return;
    auto w = std::move(it->second);
    impl_->watches.erase(it);
    Impl::close_watch(std::move(w));
}

void EventLoop::post(std::function<void()> work) {
    {
        const std::scoped_lock lock(impl_->mutex);
        impl_->posted.push_back(std::move(work));
    }
    uv_async_send(&impl_->async);
}

void EventLoop::on_signal(int signal, std::function<void()> callback) {
    auto s = std::make_unique<Impl::Signal>();
    s->callback = std::move(callback);
    check(uv_signal_init(&impl_->loop, &s->handle), "uv_signal_init");
    s->handle.data = s.get();
    check(uv_signal_start(
              &s->handle,
              [](uv_signal_t* h, int) { static_cast<Impl::Signal*>(h->data)->callback(); }, signal),
          "uv_signal_start");
    impl_->signals.push_back(std::move(s));
}

void EventLoop::on_idle(std::function<void()> callback) {
    impl_->idle.push_back(std::move(callback));
}

TimerWheel& EventLoop::timers() {
    return impl_->wheel;
}

void EventLoop::run() {
    uv_run(&impl_->loop, UV_RUN_DEFAULT);
}

void EventLoop::stop() {
    post([this] { uv_stop(&impl_->loop); });
}

}  // namespace gmgate
