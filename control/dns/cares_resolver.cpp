#include "control/dns/cares_resolver.h"

#include <ares.h>

#include <algorithm>
#include <set>
#include <string>

#include "control/dns/parse.h"

namespace gmgate::dns {
namespace {

constexpr std::chrono::seconds ttl_of_nothing{60};
constexpr int class_in = 1;

}  // namespace

struct CaresResolver::Impl {
    explicit Impl(EventLoop& l) : loop(l) { timer.bind<&Impl::on_timer>(this); }
    ~Impl() {
        *alive = false;
        // Answers every question that is open with ARES_EDESTRUCTION, and closes its sockets.
        if (channel != nullptr) ares_destroy(channel);
        for (const int fd : watched) loop.unwatch(fd);
    }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    struct Question {
        Impl* impl;
        std::string name;
        Type type;
        Done done;
    };

    // Never from inside ask(): c-ares may answer at once.
    void deliver(Done done, Answer answer) {
        loop.post([still = alive, done = std::move(done), answer = std::move(answer)]() mutable {
            if (*still) done(std::move(answer));
        });
    }
    static void on_answer(void* p, int status, int /*timeouts*/, unsigned char* bytes, int length) {
        const std::unique_ptr<Question> q(static_cast<Question*>(p));
        Impl& impl = *q->impl;
        --impl.open;
        if (status == ARES_EDESTRUCTION) return;
        Answer answer;
        if (status == ARES_SUCCESS && bytes != nullptr && length > 0) {
            answer = parse({bytes, static_cast<std::size_t>(length)}, q->name, q->type);
        } else if (status == ARES_ENODATA || status == ARES_ENOTFOUND) {
            answer.outcome = Answer::Outcome::none;
            answer.ttl = ttl_of_nothing;
        }
        impl.deliver(std::move(q->done), std::move(answer));
    }
    static void on_socket(void* p, ares_socket_t fd, int readable, int writable) {
        auto& impl = *static_cast<Impl*>(p);
        const unsigned interest =
            (readable != 0 ? EventLoop::readable : 0U) | (writable != 0 ? EventLoop::writable : 0U);
        if (interest == 0) {
            if (impl.watched.erase(fd) != 0) impl.loop.unwatch(fd);
        } else if (impl.watched.insert(fd).second) {
            impl.loop.watch(fd, interest, [&impl, fd](unsigned ready) {
                const auto at = [&](unsigned bit) {
                    return (ready & bit) != 0 ? fd : ARES_SOCKET_BAD;
                };
                ares_process_fd(impl.channel, at(EventLoop::readable), at(EventLoop::writable));
                impl.arm();
            });
        } else {
            impl.loop.change(fd, interest);
        }
    }
    void on_timer() {
        ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        arm();
    }
    void arm() {
        timeval tv{};
        if (ares_timeout(channel, nullptr, &tv) == nullptr) return timer.stop();
        const auto after = std::chrono::seconds(tv.tv_sec) + std::chrono::microseconds(tv.tv_usec);
        loop.timers().start(timer, std::max<Duration>(after, std::chrono::milliseconds(1)));
    }

    EventLoop& loop;
    ares_channel channel = nullptr;
    std::set<int> watched;
    std::size_t open = 0;
    std::shared_ptr<bool> alive = std::make_shared<bool>(true);
    Timer timer;
};

CaresResolver::CaresResolver(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CaresResolver::~CaresResolver() = default;

Result<std::unique_ptr<CaresResolver>> CaresResolver::create(EventLoop& loop,
                                                             const std::vector<Endpoint>& servers,
                                                             Duration patience) {
    static const int library = ares_library_init(ARES_LIB_INIT_ALL);
    if (library != ARES_SUCCESS)
        return fail(ErrorKind::io, std::string("c-ares: ") + ares_strerror(library));
    auto impl = std::make_unique<Impl>(loop);
    ares_options options{};
    options.timeout =
        static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(patience).count());
    options.tries = 2;
    char dns_only[] = "b";
    options.lookups = dns_only;
    options.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES;
    options.sock_state_cb = &Impl::on_socket;
    options.sock_state_cb_data = impl.get();
    const int made =
        ares_init_options(&impl->channel, &options,
                          ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_FLAGS |
                              ARES_OPT_SOCK_STATE_CB | ARES_OPT_NOROTATE);
    if (made != ARES_SUCCESS) {
        return fail(ErrorKind::io, std::string("c-ares: ") + ares_strerror(made) +
                                       "; look at /etc/resolv.conf, or give core.dns_servers");
    }
    if (!servers.empty()) {
        std::string list;
        for (const Endpoint& e : servers) list += (list.empty() ? "" : ",") + e.to_string();
        const int set = ares_set_servers_ports_csv(impl->channel, list.c_str());
        if (set != ARES_SUCCESS)
            return fail(ErrorKind::invalid,
                        "core.dns_servers: " + list + ": " + ares_strerror(set));
    }
    return std::unique_ptr<CaresResolver>(new CaresResolver(std::move(impl)));
}

void CaresResolver::ask(const std::string& name, Type type, Done done) {
    if (impl_->open >= most_questions || !is_name(name)) {
        impl_->deliver(std::move(done), Answer{});
        return;
    }
    ++impl_->open;
    auto question =
        std::make_unique<Impl::Question>(Impl::Question{impl_.get(), name, type, std::move(done)});
    // Handed to c-ares, which gives it back to on_answer() exactly once.
    ares_query(impl_->channel, name.c_str(), class_in, number_of(type), &Impl::on_answer,
               question.release());
    impl_->arm();
}

}  // namespace gmgate::dns
