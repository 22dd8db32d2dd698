#pragma once
// gmhome's own home network (S-CSCF, registrar, HSS with Milenage) for a test in virtual time, with
// every Cx operation recorded: what was asked, what the HSS held before and after (CM1 to CM4 of
// TS 33.203 clause 6.1). The HSS can be slow, silent or broken.

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/timer_wheel.h"
#include "home/local_hss.h"
#include "home/registrar.h"
#include "home/server.h"
#include "ue/usim.h"

namespace gmgate::test {

// One Cx operation. Flag and S-CSCF name as the HSS held them.
struct Cx {
    enum class Operation : std::uint8_t { query, av_request, put, pull } operation{};
    std::string impi, impu;
    home::ServerAssignment assignment{};  // of a Put
    bool resynchronisation = false;       // RAND and AUTS came with an Av-Req (C4)
    home::CxResult result{};
    home::LocalHss::Flag flag_before{}, flag_after{};
    std::string server_before, server_after;
};

class HomeNetwork final : public sip::TransportLayer {
  public:
    // What leaves the home network; `flow` as the home network sees it.
    using Send = std::function<void(const sip::Flow& flow, std::string text)>;

    static constexpr std::string_view realm = "home.example";
    static constexpr std::string_view service_route = "sip:orig@192.0.2.9:5060;lr";

    static home::RegistrarConfig default_config() {
        home::RegistrarConfig c;
        c.realm = realm;
        c.server_name = "sip:scscf.home.example";
        c.service_route = {std::string(service_route)};
        c.rechallenge = 1;
        return c;
    }

    HomeNetwork(const Clock& clock, Random& random, Send send,
                home::RegistrarConfig config = default_config())
        : timers(clock), hss(random), cx_(*this), send_(std::move(send)) {
        registrar = std::make_unique<home::Registrar>(std::move(config), cx_, timers, random);
        home::ServerConfig s;
        s.listen = {*Endpoint::parse("192.0.2.9:5060"), *Endpoint::parse("[2001:db8::9]:5060")};
        server = std::make_unique<home::Server>(s, *registrar, timers, random);
        server->attach(*this);
    }

    // A subscriber sip:<user>@home.example with a tel: and, in the same implicit set, `more`. The
    // card that belongs to it.
    ue::Usim enroll(const std::string& user, Random& random, std::vector<std::string> more = {}) {
        std::array<std::uint8_t, 16> k{};
        std::array<std::uint8_t, 16> opc{};
        random.fill(k);
        random.fill(opc);
        home::Subscriber s;
        s.impi = user + "@" + std::string(realm);
        s.impus = {"sip:" + s.impi, "tel:+1555" + std::to_string(1000 + hss.subscribers())};
        for (auto& m : more) s.impus.push_back(std::move(m));
        s.k = Secret<16>{std::span<const std::uint8_t, 16>(k)};
        s.opc = Secret<16>{std::span<const std::uint8_t, 16>(opc)};
        ue::CardKeys card{s.k.copy(), s.opc.copy()};
        const auto added = hss.add(std::move(s));
        EXPECT_TRUE(added) << (added ? "" : added.error().text);
        return ue::Usim(std::move(card));
    }

    void receive(const sip::Flow& flow, std::string text) { server->on_message(flow, text); }

    // ---- what the test makes go wrong ----
    bool silent = false;                        // the whole core: receives, and never answers
    bool hss_silent = false;                    // Cx operations get no answer
    bool hss_slow = false;                      // they wait for release()
    std::optional<home::CxResult> hss_answers;  // Av-Req fails so
    // The oldest Cx operation that waits is carried out.
    bool release() {
        if (waiting_.empty()) return false;
        auto work = std::move(waiting_.front());
        waiting_.pop_front();
        work();
        return true;
    }

    // ---- what the test looks at ----
    [[nodiscard]] std::vector<Cx> puts() const {
        std::vector<Cx> found;
        for (const Cx& c : cx) {
            if (c.operation == Cx::Operation::put) found.push_back(c);
        }
        return found;
    }
    [[nodiscard]] home::LocalHss::Flag flag(std::string_view impi) const {
        return hss.view(impi)->flag;
    }
    [[nodiscard]] std::string assigned(std::string_view impi) const {
        return hss.view(impi)->server_name;
    }
    std::vector<Cx> cx;

    TimerWheel timers;
    home::LocalHss hss;
    std::unique_ptr<home::Registrar> registrar;
    std::unique_ptr<home::Server> server;

    // sip::TransportLayer
    bool send(const sip::Flow& flow, std::span<const char> bytes) override {
        if (!silent) send_(flow, std::string(bytes.data(), bytes.size()));
        return true;
    }
    void close(sip::ConnectionId /*connection*/) override {}

  private:
    // Stands between S-CSCF and HSS.
    class Recorder final : public home::Hss {
      public:
        explicit Recorder(HomeNetwork& n) : net_(n) {}
        void query(std::string_view impi, std::string_view impu, QueryAnswer answer) override {
            run([this, i = std::string(impi), u = std::string(impu),
                 a = std::move(answer)]() mutable {
                auto c = begin(Cx::Operation::query, i, u);
                home::UserStatus seen;
                net_.hss.query(i, u, [&](home::CxResult r, const home::UserStatus& s) {
                    c.result = r;
                    seen = s;
                });
                const auto result = end(std::move(c));
                a(result, seen);
            });
        }
        void av_request(const home::AvRequest& r, AvAnswer answer) override {
            run([this, i = std::string(r.impi), u = std::string(r.impu),
                 server = std::string(r.server_name),
                 resync = r.resynchronisation != nullptr ? std::optional(*r.resynchronisation)
                                                         : std::nullopt,
                 a = std::move(answer)]() mutable {
                auto c = begin(Cx::Operation::av_request, i, u);
                c.resynchronisation = resync.has_value();
                std::vector<home::AuthVector> vectors;
                if (net_.hss_answers) {
                    c.result = *net_.hss_answers;
                } else {
                    net_.hss.av_request({i, u, server, 1, resync ? &*resync : nullptr},
                                        [&](home::CxResult got, std::vector<home::AuthVector> v) {
                                            c.result = got;
                                            vectors = std::move(v);
                                        });
                }
                const auto result = end(std::move(c));
                a(result, std::move(vectors));
            });
        }
        void put(const home::PutRequest& r, PutAnswer answer) override {
            run([this, i = std::string(r.impi), u = std::string(r.impu),
                 server = std::string(r.server_name), t = r.assignment,
                 a = std::move(answer)]() mutable {
                auto c = begin(Cx::Operation::put, i, u);
                c.assignment = t;
                net_.hss.put({i, u, server, t}, [&](home::CxResult got) { c.result = got; });
                const auto result = end(std::move(c));
                a(result);
            });
        }
        void pull(std::string_view impi, std::string_view impu, PullAnswer answer) override {
            run([this, i = std::string(impi), u = std::string(impu),
                 a = std::move(answer)]() mutable {
                auto c = begin(Cx::Operation::pull, i, u);
                home::Profile profile;
                net_.hss.pull(i, u, [&](home::CxResult got, const home::Profile& p) {
                    c.result = got;
                    profile = p;
                });
                const auto result = end(std::move(c));
                a(result, profile);
            });
        }

      private:
        void run(std::move_only_function<void()> work) {
            if (net_.hss_silent) return;
            if (net_.hss_slow) {
                net_.waiting_.push_back(std::move(work));
            } else {
                work();
            }
        }
        Cx begin(Cx::Operation operation, const std::string& impi, const std::string& impu) {
            Cx c;
            c.operation = operation;
            c.impi = impi;
            c.impu = impu;
            if (const auto v = net_.hss.view(impi)) {
                c.flag_before = v->flag;
                c.server_before = v->server_name;
            }
            return c;
        }
        home::CxResult end(Cx c) {
            if (const auto v = net_.hss.view(c.impi)) {
                c.flag_after = v->flag;
                c.server_after = v->server_name;
            }
            const auto result = c.result;
            net_.cx.push_back(std::move(c));
            return result;
        }
        HomeNetwork& net_;
    };

    Recorder cx_;
    Send send_;
    std::deque<std::move_only_function<void()>> waiting_;
};

}  // namespace gmgate::test
