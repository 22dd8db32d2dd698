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
#include "tests/support/held_hss.h"
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

// Writes down what the HSS is asked, and what that made of it. It answers before its call returns.
class CxRecorder final : public home::Hss {
  public:
    CxRecorder(home::LocalHss& hss, std::vector<Cx>& log) : hss_(hss), log_(log) {}
    void query(std::string_view impi, std::string_view impu, QueryAnswer answer) override {
        auto c = begin(Cx::Operation::query, impi, impu);
        hss_.query(impi, impu, [&](home::CxResult r, const home::UserStatus& s) {
            end(std::move(c), r);
            answer(r, s);
        });
    }
    void av_request(const home::AvRequest& r, AvAnswer answer) override {
        auto c = begin(Cx::Operation::av_request, r.impi, r.impu);
        c.resynchronisation = r.resynchronisation != nullptr;
        hss_.av_request(r, [&](home::CxResult got, std::vector<home::AuthVector> v) {
            end(std::move(c), got);
            answer(got, std::move(v));
        });
    }
    void put(const home::PutRequest& r, PutAnswer answer) override {
        auto c = begin(Cx::Operation::put, r.impi, r.impu);
        c.assignment = r.assignment;
        hss_.put(r, [&](home::CxResult got) {
            end(std::move(c), got);
            answer(got);
        });
    }
    void pull(std::string_view impi, std::string_view impu, PullAnswer answer) override {
        auto c = begin(Cx::Operation::pull, impi, impu);
        hss_.pull(impi, impu, [&](home::CxResult got, const home::Profile& p) {
            end(std::move(c), got);
            answer(got, p);
        });
    }

  private:
    Cx begin(Cx::Operation operation, std::string_view impi, std::string_view impu) {
        Cx c;
        c.operation = operation;
        c.impi = impi;
        c.impu = impu;
        if (const auto v = hss_.view(impi)) {
            c.flag_before = v->flag;
            c.server_before = v->server_name;
        }
        return c;
    }
    void end(Cx c, home::CxResult result) {
        c.result = result;
        if (const auto v = hss_.view(c.impi)) {
            c.flag_after = v->flag;
            c.server_after = v->server_name;
        }
        log_.push_back(std::move(c));
    }
    home::LocalHss& hss_;
    std::vector<Cx>& log_;
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
        : timers(clock), hss(random), send_(std::move(send)) {
        registrar = std::make_unique<home::Registrar>(std::move(config), on_cx, timers, random);
        home::ServerConfig s;
        s.listen = {*Endpoint::parse("192.0.2.9:5060"), *Endpoint::parse("[2001:db8::9]:5060")};
        server = std::make_unique<home::Server>(s, *registrar, timers, random);
        server->attach(*this);
    }

    // A subscriber sip:<user>@home.example with a tel: and, in the same implicit set, `more`, which
    // others may have too. The card that belongs to it.
    ue::Usim enroll(const std::string& user, Random& random,
                    const std::vector<std::string>& more = {}) {
        std::array<std::uint8_t, 16> k{};
        std::array<std::uint8_t, 16> opc{};
        random.fill(k);
        random.fill(opc);
        home::Subscriber s;
        s.impi = user + "@" + std::string(realm);
        s.impus = {"sip:" + s.impi, "tel:+1555" + std::to_string(1000 + hss.subscribers())};
        for (const auto& m : more) s.impus.push_back(m);
        s.shared = more;
        s.k = Secret<16>{std::span<const std::uint8_t, 16>(k)};
        s.opc = Secret<16>{std::span<const std::uint8_t, 16>(opc)};
        ue::CardKeys card{s.k.copy(), s.opc.copy()};
        const auto added = hss.add(std::move(s));
        EXPECT_TRUE(added) << (added ? "" : added.error().text);
        return ue::Usim(std::move(card));
    }

    void receive(const sip::Flow& flow, std::string text) { server->on_message(flow, text); }

    // ---- what the test makes go wrong ----
    bool silent = false;  // the whole core: receives, and never answers; the HSS alone: on_cx

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

    TimerWheel timers;
    home::LocalHss hss;
    std::vector<Cx> cx;
    CxRecorder recorder{hss, cx};
    HeldHss on_cx{recorder};
    std::unique_ptr<home::Registrar> registrar;
    std::unique_ptr<home::Server> server;

    // sip::TransportLayer
    bool send(const sip::Flow& flow, std::span<const char> bytes) override {
        if (!silent) send_(flow, std::string(bytes.data(), bytes.size()));
        return true;
    }
    void close(sip::ConnectionId /*connection*/) override {}

  private:
    Send send_;
};

}  // namespace gmgate::test
