#pragma once
// One phone: from SM1 to SM12, re-registration, requests both ways, de-registration, and every way
// to do it wrong.
//
// Phones share what does not differ between them (PhoneContext). A phone never blocks and owns no
// socket. One thread.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/random.h"
#include "base/timer_wheel.h"
#include "control/sip/framer.h"
#include "control/sip/message.h"
#include "control/sip/reginfo.h"
#include "control/sip/values.h"
#include "ue/agent_host.h"
#include "ue/call.h"
#include "ue/esp.h"
#include "ue/misbehaviour.h"
#include "ue/network.h"
#include "ue/requests.h"
#include "ue/sa_set.h"
#include "ue/script.h"
#include "ue/security_agreement.h"
#include "ue/statistics.h"
#include "ue/text_pool.h"
#include "ue/times.h"
#include "ue/usim.h"

namespace gmgate::ue {

class Phone;
class Agent;
class Application;

// Sees each step of each phone; for people. Absent under load.
class Observer {
  public:
    virtual ~Observer() = default;
    virtual void step(const Phone& phone, std::string_view line) = 0;
    virtual void message(const Phone& phone, bool sent, std::string_view where,
                         std::string_view text) = 0;
};

// Gets the keys of each set; only when the operator asked for a Wireshark key table (S1).
class KeyLog {
  public:
    virtual ~KeyLog() = default;
    virtual void write(const IpAddress& ue, const IpAddress& pcscf, const SaSet& set) = 0;
};

enum class PhoneEvent : std::uint8_t {
    registered,    // SM12 of the first registration (and, told to attack, after the attack)
    reregistered,  // a re-registration ended, well or not
    talked,        // its messages are sent and answered, or given up
    finished,      // nothing more will happen: deregistered, or told to misbehave and done
    failed,        // gave up
};

// What all phones have in common. References must outlive the phones.
struct PhoneContext {
    TimerWheel& timers;
    Random& random;
    Network& network;
    EspCrypto& crypto;
    Statistics& statistics;
    Observer* observer = nullptr;
    KeyLog* key_log = nullptr;
    HostEsp* host_esp = nullptr;  // the kernel's ESP instead of our own
    std::function<CardKeys(std::string_view imsi)> card{};
    std::function<void(Phone&, PhoneEvent)> on_event{};
    // From inside: see AgentHost. `from` and `text` are somebody else's words.
    std::function<void(Phone&, Call&, CallEvent)> on_call{};
    std::function<void(Phone&, std::string_view from, std::string_view text)> on_text{};
    std::function<void(Phone&, const RegistrationNews&)> on_news{};

    std::string realm{};
    Endpoint pcscf4{};
    Endpoint pcscf6{};
    std::uint16_t clear_port = 5060;
    std::uint32_t expires = 600000;
    std::size_t mtu = 1500;
    Duration reregister{0};  // 0: never
    unsigned messages = 0;   // OPTIONS/MESSAGE each chatty phone sends after registration
    Duration message_interval = std::chrono::seconds(1);
    // How often a phone begins anew when nobody answers its SM7 (TS 33.203 7.3.1.4).
    unsigned restarts = 2;
    bool nat = false;                               // offer ESP in UDP as well (TS 33.203 Annex M)
    Duration keepalive = std::chrono::seconds(20);  // of a NAT's mapping (RFC 3948 4)
    PhoneTimes times{};
    CallOptions calls{};
    bool subscribe = false;  // to its own registration state, after the first registration
    sip::RegProfile reg_profile = sip::RegProfile::rfc3680;  // the form it asks for (F2)

    TextPool texts{};
    // Sets taken out of use while their code may still be running; cleared by the driver between
    // events.
    std::vector<std::unique_ptr<SaSet>> retired_sets{};
    std::vector<std::unique_ptr<TcpLink>> retired_links{};
    std::vector<std::unique_ptr<ClearStream>> retired_streams{};
    void collect() {
        retired_sets.clear();
        retired_links.clear();
        retired_streams.clear();
    }
};

struct PhonePlan {
    std::uint32_t number = 0;  // position in the fleet
    std::uint64_t imsi = 0;
    std::uint8_t imsi_digits = 15;
    IpAddress address;
    bool tcp = false;
    bool chatty = false;
    Style style = Style::plain;
    std::vector<sa::Suite> const* suites = nullptr;  // offered and supported; outlives the phone
    Misbehaviour misbehaviour = Misbehaviour::none;
};

class Phone final : private ClearStreamHandler, private AgentHost {
  public:
    Phone(PhoneContext& context, const PhonePlan& plan);
    ~Phone() override;
    Phone(const Phone&) = delete;
    Phone& operator=(const Phone&) = delete;

    void start();
    void reregister();
    void deregister();
    // For one registered phone: sends OPTIONS or MESSAGE now, if nothing else is under way.
    void send_request(std::string_view method);
    // Its calls and messages; made when first asked for.
    [[nodiscard]] Agent& agent();
    // Gets what would be the agent's; must outlive the phone. What asks for a registration stays
    // the phone's. nullptr: nobody.
    void set_application(Application* application) { application_ = application; }
    [[nodiscard]] AgentHost& host() { return *this; }
    // Stops timers, closes streams without a word.
    void stop();

    // Under a script: one step at a time, and nothing of its own accord. Sets are named by their
    // serial; those out of use stay at hand for probes. The observer must outlive the phone.
    void follow_script(ScriptObserver& observer) { script_ = &observer; }
    void scripted_register(const ScriptedRegister& what);
    bool answer_challenge();  // after a hold: SM7. False: nothing is held
    void scripted_deregister();
    // OPTIONS or MESSAGE on the set `serial` (0: the current one) to `to` (empty: its own realm).
    // Parked: the answer comes while other steps run. False: no such set, or something is under
    // way.
    bool scripted_request(std::uint32_t serial, std::string_view method, std::string_view to,
                          bool parked);
    // Authentic packets on any set this phone ever had, with an OPTIONS inside. False: no such set.
    // Forged: with a wrong ICV.
    bool probe(std::uint32_t serial, unsigned packets, bool forged);
    // Octets as they are, on the current set: a datagram, or into the TCP stream. Answers are
    // told as stray ones. False: no set.
    bool send_raw(std::string_view octets);
    void move(const IpAddress& address) { plan_.address = address; }
    void set_deaf(bool deaf) { deaf_ = deaf; }  // what is sent to it is lost on the way
    void hold_answers(bool hold) { hold_answers_ = hold; }
    bool answer_held();  // false: there is none
    // Newest last; `state`: current, old, pending or gone.
    void each_set(const std::function<void(const SaSet&, std::string_view state)>& visit) const;

    // From the network; addresses are already matched.
    void receive_udp(const Endpoint& from, std::string_view payload);
    void receive_esp(const IpAddress& from, std::span<const std::uint8_t> packet) {
        receive_esp(from, packet, false);
    }
    // From port 4500: ESP, if it is any.
    void receive_in_udp(const IpAddress& from, std::span<const std::uint8_t> payload);

    [[nodiscard]] const PhonePlan& plan() const { return plan_; }
    [[nodiscard]] bool registered() const { return registered_; }
    [[nodiscard]] bool over() const { return phase_ == Phase::over; }
    [[nodiscard]] bool busy() const { return transaction_ != nullptr; }
    [[nodiscard]] Identity identity() const;
    [[nodiscard]] const SaSet* current_set() const { return current_.get(); }
    // Why it failed, or what the misbehaving phone saw.
    [[nodiscard]] const std::string& outcome() const { return outcome_; }

  private:
    friend class OwnTcpLink;
    friend class HostTcpLink;
    friend class HostLink;
    enum class Phase : std::uint8_t { idle, sm1, held, sm7, registered, watching, over };
    enum class Purpose : std::uint8_t { initial, reregister, deregister };
    // How a message came.
    struct Arrival {
        SaSet* set = nullptr;  // nullptr: clear
        TcpLink* link = nullptr;
        bool tcp = false;
        Endpoint from;
        Endpoint to;
    };
    // Our request that waits for its final answer.
    struct Transaction {
        std::string bytes;
        std::string branch;
        std::string method;
        std::uint32_t cseq = 0;
        SaSet* set = nullptr;  // nullptr: clear
        bool tcp = false;
        Duration interval{0};
        TimePoint sent{};
        const char* step = "";  // SM1, SM7, …
    };
    // A challenge that was taken and not answered yet.
    struct Taken {
        AkaSuccess aka;
        Credentials credentials;
    };
    struct HeldRequest {
        std::string answer;
        SaSet* set = nullptr;
        TcpLink* link = nullptr;
        bool from_client_port = true;
    };
    // What only a phone under a script needs.
    struct Scripted {
        ScriptedRegister now;
        StepResult result;
        std::unique_ptr<Taken> taken;
        std::vector<std::unique_ptr<SaSet>> gone;
        std::unique_ptr<Transaction> parked;
        std::optional<HeldRequest> held;
    };

    // registration
    void begin(Purpose purpose);
    void send_sm1(const Credentials* credentials, const char* step);
    void on_register_answer(const sip::Message& message, const Arrival& arrival);
    void on_challenge(const sip::Message& message);
    void send_sm7(const AkaSuccess& aka, Credentials credentials);
    void on_success(const sip::Message& message);
    void on_refused(const sip::Message& message, const Arrival& arrival);
    Result<void> install(const Mechanism& mechanism, const AkaSuccess& aka);
    void choose_numbers();
    void start_again();
    void watch();
    void keep_refused(const Mechanism& chosen, const AkaChallenge& aka);
    void send_request_on(SaSet& set, std::string_view method, std::string_view to);
    [[nodiscard]] std::uint32_t expires() const;
    [[nodiscard]] SaSet* set_of(std::uint32_t serial, bool gone_too);
    Scripted& scripted();
    bool end_step(std::string outcome, std::string text);
    void check_challenge(const sip::Message& message);

    // requests and answers
    void send_transaction(RequestFrame frame,
                          const std::function<std::string(const RequestFrame&)>& build, SaSet* set,
                          bool tcp, const char* step);
    void transmit(const Transaction& t);
    void send_protected(SaSet& set, bool from_client_port, std::uint8_t protocol,
                        std::span<const std::uint8_t> inner);
    void send_esp(const SaSet& set, std::span<const std::uint8_t> esp);
    void send_udp_protected(SaSet& set, bool from_client_port, std::string_view payload);
    TcpLink& client_link(SaSet& set);
    void on_message(std::string_view bytes, const Arrival& arrival);
    void on_response(const sip::Message& message, const Arrival& arrival);
    void on_request(const sip::Message& message, const Arrival& arrival);
    void on_request_answer(const sip::Message& message);
    void next_errand();
    void drain(sip::StreamFramer& framer, const Arrival& arrival);
    void receive_tcp(SaSet& set, bool at_client_port, const TcpSegment& segment);
    void host_datagram(SaSet& set, bool at_client_port, const Endpoint& from,
                       std::string_view payload);
    void host_accepted(SaSet& set, std::unique_ptr<HostStream> stream);
    void link_data(TcpLink& link, SaSet& set, std::string_view data);
    void link_closed(TcpLink& link, SaSet& set, bool reset);

    // for its agent
    [[nodiscard]] std::optional<Flow> flow() const override;
    bool send_request(std::uint32_t set, bool tcp, std::string_view bytes) override;
    bool send_response(const ReplyPath& path, std::string_view bytes) override;
    void narrate(std::string_view line) const override { say(line); }
    void call_event(Call& call, CallEvent event) override;
    void message_came(std::string_view from, std::string_view text) override;
    void registration_news(const RegistrationNews& news) override;
    void leave_as_told();
    bool agent_response(const sip::Message& message, const Arrival& arrival);
    bool agent_request(const sip::Message& message, const Arrival& arrival);
    void narrate_sent(const SaSet& set, bool tcp, std::string_view bytes) const;
    [[nodiscard]] SaSet* usable_set(std::uint32_t serial);

    // misbehaviour after registration
    void attack();
    void send_attack_packets();
    void after_attack();

    // ends
    void become_registered();
    void fail(std::string why);
    void conclude(bool as_expected, std::string seen);
    void finish();
    void discard(std::unique_ptr<SaSet>& set);
    void end_transaction();
    void close_clear_stream();

    void receive_esp(const IpAddress& from, std::span<const std::uint8_t> packet, bool in_udp);
    // Tells a NAT that its mapping is in use, as long as there is an SA that needs it.
    void keep_nat_open();

    // timers
    void on_retransmit();
    void on_deadline();
    void on_periodic();

    // stream_* of the clear connection
    void stream_data(std::string_view data) override;
    void stream_closed(std::string_view why) override;

    [[nodiscard]] const Endpoint& pcscf() const {
        return plan_.address.is_v6() ? context_.pcscf6 : context_.pcscf4;
    }
    [[nodiscard]] bool misbehaves(Misbehaviour m) const { return plan_.misbehaviour == m; }
    [[nodiscard]] std::string call_id() const;
    [[nodiscard]] std::string verify_lines(bool altered) const;
    [[nodiscard]] std::uint16_t mss() const;
    [[nodiscard]] static std::string status_text(const sip::Message& message);
    [[nodiscard]] static bool asks_for_register(const sip::Message& message);
    [[nodiscard]] std::string route_text(const Arrival& arrival, bool sent) const;
    void say(std::string_view line) const;
    void violation(std::string_view what);

    PhoneContext& context_;
    PhonePlan plan_;
    Phase phase_ = Phase::idle;
    Purpose purpose_ = Purpose::initial;
    bool registered_ = false;
    std::uint8_t challenges_ = 0;  // in this procedure
    std::uint8_t messages_left_ = 0;
    std::uint8_t restarts_ = 0;  // of this procedure
    bool attacked_ = false;
    bool talking_ = false;
    bool reauthenticate_ = false;  // the network asked for it (F3)
    bool told_gone_ = false;       // the network ended the registration
    bool may_return_ = false;      // ... and wants a new one
    bool obeying_ = false;         // ... and this procedure began after that
    bool leaving_ = false;         // deregisters once the request under way has ended
    bool deaf_ = false;
    bool hold_answers_ = false;
    bool spoil_ = false;
    std::uint32_t sets_made_ = 0;
    std::uint32_t cseq_ = 0;
    std::uint64_t call_token_ = 0;
    Sqn sqn_ = 0;
    std::uint32_t granted_ = 0;  // seconds

    std::unique_ptr<SaSet> current_;  // of the last completed authentication
    std::unique_ptr<SaSet> pending_;  // of the one under way
    std::unique_ptr<SaSet> old_;      // before current_: late messages still arrive on it
    SaSet* carrier_ = nullptr;        // what SM1 of this procedure went on; nullptr: clear
    SaNumbers proposed_;              // our SPIs and ports in this procedure's Security-Client

    TextPool::Text service_route_;
    TextPool::Text verify_;          // of current_, numbers taken out
    TextPool::Text pending_verify_;  // of pending_

    std::unique_ptr<Transaction> transaction_;
    std::unique_ptr<ClearStream> stream_;
    std::unique_ptr<sip::StreamFramer> stream_framer_;
    Timer retransmit_;
    Timer deadline_;
    Timer periodic_;
    TimePoint sm1_sent_{};
    std::uint32_t answers_seen_ = 0;   // while watching for silence
    std::unique_ptr<Bytes> recorded_;  // replay: an ESP packet that was good
    std::unique_ptr<Taken> earlier_;   // stale-answer: the challenge that was voided
    ScriptObserver* script_ = nullptr;
    std::unique_ptr<Scripted> scripted_;
    std::unique_ptr<Agent> agent_;
    Application* application_ = nullptr;
    std::unique_ptr<Timer> keepalive_;  // only behind a NAT
    std::string outcome_;
};

}  // namespace gmgate::ue
