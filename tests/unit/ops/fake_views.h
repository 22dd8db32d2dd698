#pragma once
// SAs, registrations and traces made by rule, for the tests of the operator's API.

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "control/ops/views.h"

namespace gmgate::ops {

inline SaRow fake_sa(std::uint64_t number) {
    SaRow r;
    r.id = number;
    r.state = number % 10 == 0 ? "registration" : "established";
    r.impi = "00101" + std::to_string(1000000000 + number) + "@ims.example";
    r.impus = {"sip:" + r.impi, "tel:+49" + std::to_string(number)};
    const std::array<std::uint8_t, 4> ue{10, 20, static_cast<std::uint8_t>(number >> 8U),
                                         static_cast<std::uint8_t>(number)};
    const std::array<std::uint8_t, 4> ours{10, 20, 255, 1};
    r.ue = IpAddress::v4(ue);
    r.ours = IpAddress::v4(ours);
    const auto n = static_cast<std::uint32_t>(number);
    r.numbers = {0x1000 + 2 * n,
                 0x1001 + 2 * n,
                 0x04000000 + 2 * n,
                 0x04000001 + 2 * n,
                 5062,
                 5063,
                 6200,
                 6100};
    r.suite = {sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc};
    r.age = std::chrono::seconds(number);
    r.expires_in = std::chrono::seconds(600030);
    r.stats.in_packets = number * 3;
    return r;
}

// Cursor: number of the next set. Numbers begin with 1.
class FakeSas final : public SaView {
  public:
    explicit FakeSas(std::size_t n) : n_(n) {}
    Cursor scan(const Query&, Cursor cursor, std::size_t budget, bool,
                const std::function<void(const SaRow&)>& visit) const override {
        largest_budget = std::max(largest_budget.load(), budget);
        std::uint64_t i = cursor == 0 ? 1 : cursor;
        for (std::size_t k = 0; k < budget && i <= n_; ++k, ++i) {
            ++looked_at;
            visit(fake_sa(i));
        }
        return i > n_ ? 0 : i;
    }
    [[nodiscard]] std::vector<std::pair<std::string, std::size_t>> count() const override {
        return {{"registration", n_ / 10}, {"established", n_ - n_ / 10}};
    }

    mutable std::atomic<std::size_t> looked_at{0};
    mutable std::atomic<std::size_t> largest_budget{0};

  private:
    std::size_t n_;
};

class FakeRegistrations final : public RegistrationView {
  public:
    Cursor scan(const Query&, Cursor, std::size_t,
                const std::function<void(const RegistrationRow&)>& visit) const override {
        for (std::uint64_t i = 1; i <= 3; ++i) {
            const SaRow sa = fake_sa(i);
            RegistrationRow r;
            r.impi = sa.impi;
            r.impus = sa.impus;
            r.state = i == 3 ? "authenticating" : "registered";
            r.ue = sa.ue;
            r.transport = i == 2 ? "tcp" : "udp";
            r.contact = "sip:" + sa.ue.to_string() + ":5063";
            r.service_route = {"<sip:orig@scscf.ims.example;lr>"};
            r.sets = {i};
            r.age = std::chrono::seconds(133);
            if (i != 3) r.expires_in = std::chrono::hours(166);
            visit(r);
        }
        return 0;
    }
    [[nodiscard]] std::vector<std::string> states() const override {
        return {"registered", "authenticating"};
    }
    [[nodiscard]] std::size_t registered() const override { return 2; }
    [[nodiscard]] std::size_t pending() const override { return 1; }
};

class FakeCalls final : public CallView {
  public:
    Cursor scan(Cursor, std::size_t,
                const std::function<void(const CallRow&)>& visit) const override {
        const std::string a = fake_sa(1).impi;
        const std::string b = fake_sa(2).impi;
        visit({a, "sip:" + b, "0badcafe", "confirmed", std::chrono::seconds(95)});
        visit({b, "sip:" + a, "0badcafe", "confirmed", std::chrono::seconds(95)});
        visit({b, "tel:+4930", "12345678", "early", std::chrono::seconds(2)});
        return 0;
    }
};

class FakeTrace final : public TraceView {
  public:
    std::vector<TraceStep> recorded;
    [[nodiscard]] std::vector<TraceStep> steps(std::string_view impi) const override {
        if (impi == fake_sa(1).impi) return recorded;
        return impi == fake_sa(2).impi ? together : std::vector<TraceStep>{};
    }
    std::vector<TraceStep> together;
    [[nodiscard]] std::vector<TraceStep> steps(
        const std::vector<std::string>& impis) const override {
        return impis == std::vector{fake_sa(1).impi, fake_sa(2).impi} ? together
                                                                      : std::vector<TraceStep>{};
    }
};

inline FailureRow fake_failure(const std::string& reason, int seconds_ago, unsigned status,
                               const std::string& impi) {
    FailureRow r;
    r.age = std::chrono::seconds(seconds_ago);
    r.reason = reason;
    r.rule = "C5";
    r.meaning = "It went wrong.";
    r.remedy = "Look at it.";
    r.status = status;
    r.source = "10.20.0.1:5060";
    r.impi = impi;
    return r;
}

// Newest first, as the gateway gives them.
class FakeFailures final : public FailureView {
  public:
    std::vector<FailureRow> recorded{fake_failure("sec_agree_missing", 5, 421, ""),
                                     fake_failure("authentication_timeout", 70, 0, "a@ims.example"),
                                     fake_failure("sec_agree_missing", 90, 421, "b@ims.example")};
    [[nodiscard]] std::vector<FailureTotal> failure_totals() const override {
        std::vector<FailureTotal> out;
        for (const FailureRow& r : recorded) {
            const auto known = std::ranges::find(
                out, r.reason, [](const FailureTotal& t) { return t.last.reason; });
            if (known == out.end()) {
                out.push_back({1, r});
            } else {
                ++known->count;
            }
        }
        return out;
    }
    [[nodiscard]] std::vector<FailureRow> latest_failures(
        std::size_t limit, const std::optional<std::string>& reason,
        const std::optional<std::string>& impi) const override {
        std::vector<FailureRow> out;
        for (const FailureRow& r : recorded) {
            if (out.size() == limit) break;
            if ((!reason || r.reason == *reason) && (!impi || r.impi == *impi)) out.push_back(r);
        }
        return out;
    }
    [[nodiscard]] bool is_reason(std::string_view word) const override {
        return std::ranges::any_of(recorded, [&](const FailureRow& r) { return r.reason == word; });
    }
};

// The good case of TS 33.203 6.1.1, as the gateway records it.
inline std::vector<TraceStep> good_registration() {
    const auto at = [](int microseconds) {
        return std::chrono::system_clock::time_point(
            std::chrono::microseconds(1795299303120000LL + microseconds));
    };
    return {
        {at(0), Party::ue, Party::gateway, "SM1", "REGISTER", {}, false, ""},
        {at(85), Party::gateway, Party::core, "SM2", "REGISTER", {}, false, ""},
        {at(1200), Party::core, Party::gateway, "SM5", "401 REGISTER", {}, false, ""},
        {at(1240), Party::gateway, Party::gateway, "", "SA set installed", {}, false, ""},
        {at(1260), Party::gateway, Party::ue, "SM6", "401 REGISTER", {}, false, ""},
        {at(9400), Party::ue, Party::gateway, "SM7", "REGISTER", 0x04000003U, false, ""},
        {at(9500), Party::gateway, Party::core, "SM8", "REGISTER", {}, false, ""},
        {at(10700), Party::core, Party::gateway, "SM11", "200 REGISTER", {}, false, ""},
        {at(10750), Party::gateway, Party::gateway, "", "SA set established", {}, false, ""},
        {at(10800), Party::gateway, Party::ue, "SM12", "200 REGISTER", 0x00001003U, false, ""},
    };
}

}  // namespace gmgate::ops
