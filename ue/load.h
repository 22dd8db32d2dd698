#pragma once
// A fleet of phones: who is who, when each starts, and when the run is over. One phone is a fleet
// of one.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/timer_wheel.h"
#include "ue/address_plan.h"
#include "ue/phone.h"
#include "ue/socket_network.h"
#include "ue/traffic.h"

namespace gmgate::ue {

// "wrong-ik" (one phone), "wrong-ik:3" (three), "replay:1%" (a share).
struct MisbehaviourShare {
    Misbehaviour kind = Misbehaviour::none;
    std::uint32_t phones = 1;  // used if share is 0
    double share = 0;
};
[[nodiscard]] Result<MisbehaviourShare> parse_misbehaviour_share(std::string_view text);

struct LoadOptions {
    std::uint32_t phones = 1;
    std::uint32_t first_phone = 1;  // 1-based: IMSI and addresses count from here
    std::uint64_t first_imsi = 1010000000001;
    std::uint8_t imsi_digits = 15;
    double rate = 0;  // registrations started per second; 0: as fast as max_in_flight lets
    std::uint32_t max_in_flight = 1000;  // phones between SM1 and SM12
    double ipv6_share = 0;
    double tcp_share = 0;
    double message_share = 1;
    std::optional<AddressPlan> net4;
    std::optional<AddressPlan> net6;
    std::vector<sa::Suite> suites;
    bool one_suite_each = false;  // phone i offers suite i mod n only, so that every suite is used
    std::vector<Style> styles{Style::plain};
    std::vector<MisbehaviourShare> misbehave;
    bool reregister_once = false;  // every phone, when all are registered
    Duration hold{0};              // stay registered that long; negative: until asked to end
    bool stay = false;             // end without de-registration
    TrafficOptions traffic;        // calls and messages between pairs
};

// Drives the phones; told of packets by the network. One thread.
class Load final : public NetworkReceiver {
  public:
    enum class Stage : std::uint8_t {
        registering,
        talking,
        traffic,
        reregistering,
        holding,
        deregistering,
        over
    };

    // `context.on_event` is set here. invalid: the addresses do not suffice, shares are out of
    // range.
    static Result<std::unique_ptr<Load>> make(PhoneContext& context, const LoadOptions& options);
    ~Load() override;

    void start(std::function<void()> on_over);
    // First call: ends the traffic, then the hold (or the registering) and goes on to the end in
    // order. Second call: over, now.
    void interrupt();
    // After each round of events: frees what phones put aside.
    void collect() { context_.collect(); }

    void on_udp(const Endpoint& from, const IpAddress& to, std::string_view payload) override;
    void on_esp(const IpAddress& from, const IpAddress& to,
                std::span<const std::uint8_t> esp) override;
    void on_in_udp(const IpAddress& from, const IpAddress& to,
                   std::span<const std::uint8_t> payload) override;

    [[nodiscard]] Stage stage() const { return stage_; }
    [[nodiscard]] const Statistics& statistics() const { return context_.statistics; }
    [[nodiscard]] const LoadOptions& options() const { return options_; }
    [[nodiscard]] Phone& phone(std::size_t i) { return *phones_[i]; }
    [[nodiscard]] std::size_t size() const { return phones_.size(); }
    [[nodiscard]] std::uint32_t settled() const { return settled_; }
    [[nodiscard]] const Traffic& traffic() const { return *traffic_; }
    [[nodiscard]] bool interrupted() const { return interrupts_ > 0; }
    // Every phone that should be registered was, every misbehaving one saw what it should, and all
    // had their turn.
    [[nodiscard]] bool good() const;
    // From the first SM1 to the last registration of a phone that behaves.
    [[nodiscard]] Duration registering_time() const { return registered_at_ - started_at_; }

  private:
    Load(PhoneContext& context, const LoadOptions& options);
    Result<void> plan();
    void on_tick();
    void on_phone(Phone& phone, PhoneEvent event);
    void advance_stage();
    void enter(Stage stage);
    Phone* at(const IpAddress& address);

    static constexpr Duration tick = std::chrono::milliseconds(5);

    PhoneContext& context_;
    LoadOptions options_;
    std::vector<std::vector<sa::Suite>> suite_lists_;
    std::vector<std::unique_ptr<Phone>> phones_;
    std::vector<Phone*> v4_;  // by host number, from first_phone
    std::vector<Phone*> v6_;
    std::unique_ptr<Traffic> traffic_;
    bool traffic_over_ = false;
    std::function<void()> on_over_;
    Timer timer_;
    Stage stage_ = Stage::registering;
    TimePoint stage_began_{};
    TimePoint started_at_{};
    TimePoint registered_at_{};
    std::size_t next_ = 0;       // phone to start, re-register or de-register next
    std::uint32_t settled_ = 0;  // registered, failed or done misbehaving
    std::uint32_t in_flight_ = 0;
    std::uint32_t talkers_ = 0;  // phones that have messages to send
    std::uint32_t talked_ = 0;
    std::uint32_t renewed_ = 0;  // re-registrations ended, in their stage
    std::uint32_t to_renew_ = 0;
    std::uint32_t ended_ = 0;  // phones that are over
    unsigned interrupts_ = 0;
};

[[nodiscard]] std::string_view name(Load::Stage stage);

}  // namespace gmgate::ue
