#include "ue/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace gmgate::ue {

namespace {

// Does the item number n (from 0) belong to the share? Spreads them evenly: 0.5 takes every other
// one.
bool in_share(double share, std::uint64_t n) {
    const auto upto = [&](std::uint64_t k) {
        return std::floor(static_cast<double>(k) * share + 1e-9);
    };
    return upto(n + 1) > upto(n);
}

}  // namespace

Result<MisbehaviourShare> parse_misbehaviour_share(std::string_view text) {
    MisbehaviourShare m;
    const auto colon = text.find(':');
    const auto kind = parse_misbehaviour(text.substr(0, colon));
    if (!kind || *kind == Misbehaviour::none) {
        std::string names;
        for (const auto& i : misbehaviours()) {
            if (i.kind != Misbehaviour::none)
                names += (names.empty() ? "" : ", ") + std::string(i.name);
        }
        return fail(ErrorKind::invalid,
                    fmt::format("--misbehave {}: not one of {}", text.substr(0, colon), names));
    }
    m.kind = *kind;
    if (colon == std::string_view::npos) return m;
    std::string_view amount = text.substr(colon + 1);
    const bool percent = !amount.empty() && amount.back() == '%';
    if (percent) amount.remove_suffix(1);
    double value = 0;
    const auto [end, ec] = std::from_chars(amount.data(), amount.data() + amount.size(), value);
    if (ec != std::errc{} || end != amount.data() + amount.size() || !(value > 0) ||
        (percent && value > 100) ||
        (!percent && (value != std::floor(value) || value > 10'000'000))) {
        return fail(
            ErrorKind::invalid,
            fmt::format("--misbehave {}: give a number of phones (:3) or a share (:1%)", text));
    }
    if (percent) {
        m.share = value / 100;
    } else {
        m.phones = static_cast<std::uint32_t>(value);
    }
    return m;
}

std::string_view name(Load::Stage stage) {
    switch (stage) {
        case Load::Stage::registering:
            return "registering";
        case Load::Stage::talking:
            return "messages";
        case Load::Stage::traffic:
            return "calls and messages";
        case Load::Stage::reregistering:
            return "re-registering";
        case Load::Stage::holding:
            return "registered";
        case Load::Stage::deregistering:
            return "de-registering";
        case Load::Stage::over:
            return "over";
    }
    return "";
}

Load::Load(PhoneContext& context, const LoadOptions& options)
    : context_(context), options_(options) {
    timer_.bind<&Load::on_tick>(this);
    context_.on_event = [this](Phone& p, PhoneEvent e) { on_phone(p, e); };
    traffic_ = std::make_unique<Traffic>(context_, options_.traffic);
    context_.on_call = [this](Phone& p, Call& c, CallEvent e) { traffic_->on_call(p, c, e); };
}

Load::~Load() {
    for (auto& p : phones_) p->stop();
    phones_.clear();
    context_.collect();
}

Result<std::unique_ptr<Load>> Load::make(PhoneContext& context, const LoadOptions& options) {
    std::unique_ptr<Load> load(new Load(context, options));
    if (auto r = load->plan(); !r) return std::unexpected(r.error());
    return load;
}

Result<void> Load::plan() {
    const LoadOptions& o = options_;
    if (o.suites.empty()) return fail(ErrorKind::invalid, "no suites to offer");
    if (o.styles.empty()) return fail(ErrorKind::invalid, "no handset style");
    if (o.one_suite_each) {
        for (const sa::Suite s : o.suites) suite_lists_.push_back({s});
    } else {
        suite_lists_.push_back(o.suites);
    }
    std::vector<Misbehaviour> misbehave(o.phones, Misbehaviour::none);
    for (const auto& m : o.misbehave) {
        std::uint64_t count = m.phones;
        if (m.share > 0) count = static_cast<std::uint64_t>(std::llround(m.share * o.phones));
        for (std::uint64_t k = 0; k < count; ++k) {
            // Spread over the fleet; where one is taken, the next free one.
            auto i = static_cast<std::size_t>((static_cast<double>(k) + 0.5) * o.phones /
                                              static_cast<double>(count));
            std::size_t tried = 0;
            while (tried < misbehave.size() && misbehave[i % o.phones] != Misbehaviour::none)
                ++i, ++tried;
            if (tried == misbehave.size()) {
                return fail(ErrorKind::invalid,
                            fmt::format("--misbehave asks for more phones than the {} there are",
                                        o.phones));
            }
            misbehave[i % o.phones] = m.kind;
        }
    }
    phones_.reserve(o.phones);
    std::array<std::uint64_t, 2> of_family{};
    std::array<std::uint64_t, 4> of_kind{};
    for (std::uint32_t i = 0; i < o.phones; ++i) {
        PhonePlan p;
        const bool v6 = in_share(o.ipv6_share, i);
        const auto& net = v6 ? o.net6 : o.net4;
        if (!net) {
            return fail(ErrorKind::invalid, v6 ? "phones over IPv6 need --ue-net6 and --pcscf6"
                                               : "phones over IPv4 need --ue-net and --pcscf");
        }
        const std::uint64_t nth = of_family[v6 ? 1 : 0]++;
        const std::uint64_t host = net->single() ? nth : o.first_phone + nth;
        if (host > net->last()) {
            return fail(ErrorKind::invalid,
                        fmt::format("{} has no address for phone {}: give a larger network",
                                    net->to_string(), o.first_phone + i));
        }
        p.number = o.first_phone + i;
        p.imsi = o.first_imsi + p.number - 1;
        p.imsi_digits = o.imsi_digits;
        p.address = net->host(host);
        p.tcp = in_share(o.tcp_share, nth);
        p.misbehaviour = misbehave[i];
        const std::uint64_t kind = of_kind[(v6 ? 2U : 0U) + (p.tcp ? 1U : 0U)]++;
        p.suites = &suite_lists_[kind % suite_lists_.size()];
        p.style = o.styles[(kind / suite_lists_.size() + kind) % o.styles.size()];
        p.chatty = p.misbehaviour == Misbehaviour::none && in_share(o.message_share, i);
        phones_.push_back(std::make_unique<Phone>(context_, p));
        (v6 ? v6_ : v4_).push_back(phones_.back().get());
    }
    return {};
}

void Load::start(std::function<void()> on_over) {
    on_over_ = std::move(on_over);
    started_at_ = registered_at_ = context_.timers.now();
    enter(Stage::registering);
}

void Load::enter(Stage stage) {
    stage_ = stage;
    stage_began_ = context_.timers.now();
    next_ = 0;
    in_flight_ = 0;
    if (stage == Stage::traffic) {
        traffic_over_ = !options_.traffic.any();
        std::vector<Phone*> all;
        if (!traffic_over_) {
            for (const auto& p : phones_) all.push_back(p.get());
            traffic_->start(std::move(all), [this] { traffic_over_ = true; });
        }
    }
    if (stage == Stage::reregistering) {
        renewed_ = 0;
        to_renew_ = 0;
    }
    if (stage == Stage::over) {
        timer_.stop();
        if (on_over_) on_over_();
        return;
    }
    on_tick();
}

void Load::interrupt() {
    if (++interrupts_ > 1 || stage_ == Stage::registering || stage_ == Stage::deregistering) {
        if (stage_ != Stage::over) enter(Stage::over);
        return;
    }
    if (stage_ == Stage::traffic) return traffic_->finish_early();
    enter(options_.stay ? Stage::over : Stage::deregistering);
}

// Starts as many phones on the stage's errand as rate and window allow.
void Load::on_tick() {
    context_.timers.start(timer_, tick);
    if (stage_ != Stage::registering && stage_ != Stage::reregistering &&
        stage_ != Stage::deregistering) {
        advance_stage();
        return;
    }
    std::size_t due = phones_.size();
    if (options_.rate > 0) {
        const double elapsed =
            std::chrono::duration<double>(context_.timers.now() - stage_began_).count();
        due = std::min(due, static_cast<std::size_t>(elapsed * options_.rate) + 1);
    }
    while (next_ < due && in_flight_ < options_.max_in_flight) {
        Phone& p = *phones_[next_++];
        if (stage_ == Stage::registering) {
            ++in_flight_;
            p.start();
        } else if (p.over() || !p.registered()) {
            continue;
        } else if (stage_ == Stage::deregistering) {
            ++in_flight_;
            p.deregister();
        } else if (p.plan().misbehaviour == Misbehaviour::none) {
            ++in_flight_;
            ++to_renew_;
            p.reregister();
        }
    }
    advance_stage();
}

void Load::on_phone(Phone& p, PhoneEvent event) {
    const auto landed = [&] {
        if (in_flight_ > 0) --in_flight_;
    };
    switch (event) {
        case PhoneEvent::registered:
            ++settled_;
            if (p.plan().chatty && context_.messages > 0) ++talkers_;
            // Without those that waited for silence: they say nothing about the gateway's speed.
            if (p.plan().misbehaviour == Misbehaviour::none) registered_at_ = context_.timers.now();
            landed();
            break;
        case PhoneEvent::talked:
            ++talked_;
            break;
        case PhoneEvent::reregistered:
            if (stage_ == Stage::reregistering) {
                ++renewed_;
                landed();
            }
            break;
        case PhoneEvent::finished:
        case PhoneEvent::failed:
            ++ended_;
            if (stage_ == Stage::registering) ++settled_;
            landed();
            break;
    }
}

void Load::advance_stage() {
    const TimePoint now = context_.timers.now();
    switch (stage_) {
        case Stage::registering:
            if (next_ == phones_.size() && settled_ >= phones_.size()) enter(Stage::talking);
            break;
        case Stage::talking:
            if (talked_ >= talkers_) enter(Stage::traffic);
            break;
        case Stage::traffic:
            if (traffic_over_ && interrupts_ > 0)
                enter(options_.stay ? Stage::over : Stage::deregistering);
            else if (traffic_over_)
                enter(options_.reregister_once ? Stage::reregistering : Stage::holding);
            break;
        case Stage::reregistering:
            if (next_ == phones_.size() && renewed_ >= to_renew_) enter(Stage::holding);
            break;
        case Stage::holding:
            if (options_.hold < Duration{0} || now - stage_began_ < options_.hold) break;
            enter(options_.stay ? Stage::over : Stage::deregistering);
            break;
        case Stage::deregistering:
            if (next_ == phones_.size() && in_flight_ == 0) enter(Stage::over);
            break;
        case Stage::over:
            break;
    }
}

bool Load::good() const {
    const Statistics& s = context_.statistics;
    std::uint64_t misbehaving = 0;
    for (const auto& p : phones_)
        misbehaving += p->plan().misbehaviour != Misbehaviour::none ? 1U : 0U;
    std::uint64_t as_expected = 0;
    for (const auto& m : s.misbehaved) as_expected += m.as_expected;
    return s.failed == 0 && settled_ >= phones_.size() && as_expected == misbehaving &&
           s.reregistrations_failed == 0;
}

Phone* Load::at(const IpAddress& address) {
    const auto& net = address.is_v6() ? options_.net6 : options_.net4;
    if (!net) return nullptr;
    const auto host = net->number(address);
    if (!host) return nullptr;
    const std::uint64_t first = net->single() ? 0 : options_.first_phone;
    const auto& list = address.is_v6() ? v6_ : v4_;
    if (*host < first || *host - first >= list.size()) return nullptr;
    return list[static_cast<std::size_t>(*host - first)];
}

void Load::on_udp(const Endpoint& from, const IpAddress& to, std::string_view payload) {
    Phone* p = at(to);
    if (p != nullptr && !p->over()) p->receive_udp(from, payload);
}

void Load::on_esp(const IpAddress& from, const IpAddress& to, std::span<const std::uint8_t> esp) {
    Phone* p = at(to);
    if (p != nullptr && !p->over()) p->receive_esp(from, esp);
}

void Load::on_in_udp(const IpAddress& from, const IpAddress& to,
                     std::span<const std::uint8_t> payload) {
    Phone* p = at(to);
    if (p != nullptr && !p->over()) p->receive_in_udp(from, payload);
}

}  // namespace gmgate::ue
