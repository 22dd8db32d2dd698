#pragma once
// The whole control plane in virtual time, small and fast enough to be run millions of times: the
// real Gateway and SaDatabase over a packet layer that knows keys, two phones of two users behind
// one IP address, their home, and an attacker between them who sees everything, says anything and
// has a subscription of his own, but no key of theirs.
//
// Nothing happens by itself: every step of the world is an Action. What must hold after each is
// checked at once; the first thing that does not stands in `fault`.
//
// Times are a hundred times shorter than the standard's (T1 is 5 ms), so that the timer wheel has
// fewer ticks to walk.

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/timer_wheel.h"
#include "control/registration/gateway.h"
#include "sa/database.h"
#include "tests/explore/packet_layer.h"

namespace gmgate::explore {

using namespace std::chrono_literals;

inline constexpr std::size_t users = 3;  // two phones and the attacker's own subscription
inline constexpr std::uint8_t mallory = 2;
inline constexpr std::array<std::string_view, users> impis{"alice@home.example", "bob@home.example",
                                                           "mallory@home.example"};

inline constexpr Duration t1 = 5ms;
inline constexpr Duration transaction_time = 64 * t1;  // timers B, F, J and the drain
inline constexpr Duration await_time = 2400ms;
inline constexpr Duration grace_time = 300ms;
inline constexpr Duration near_end_time = 100ms;
inline constexpr Duration granted_time = 10s;

enum class Op : std::uint8_t {
    // the phones; a: which
    sm1,      // REGISTER in clear
    renew,    // REGISTER on the newest SA
    message,  // MESSAGE on the newest SA
    leave,    // REGISTER with Expires 0 on the newest SA
    // the network; a: which packet under way, b: what it meets (Core or Reaction)
    deliver,
    lose,
    duplicate,
    // the home; a: which
    call,     // MESSAGE to a registered phone
    release,  // an answer it kept back
    lose_answer,
    // time
    wait_transaction,  // past 64·T1: transactions end, drains end
    wait_await,        // past reg-await-auth
    wait_life,         // past the granted time
    // the attacker; a: the phone he is after
    attack_sm1,          // its IMPI, his address
    attack_sm1_spoofed,  // its IMPI, its address, its numbers
    attack_squat,        // his IMPI, its address, its next port-c
    attack_copy_sm1,     // its own SM1 again
    attack_copy_esp,     // its latest ESP packet again
    attack_open_esp,     // the same without ESP to the protected port
    attack_clear_sm7,    // its latest SM7 in clear to the open port
    attack_report,       // "I refuse the challenge", from its address
    attack_resync,       // the same with auts
    attack_forge,        // ESP on its SPIs with other keys
    attack_response,     // a 200 to the open port
    attack_register,     // he registers himself
    attack_names,        // REGISTER of its IMPI on his SA
    attack_claims,       // MESSAGE in its name on his SA
    attack_answer,       // he answers the latest call to it, on his SA
    attack_verify,       // his SM7 with its numbers in Security-Verify
    // the packet layer; the next install fails
    refuse_install,
};
[[nodiscard]] std::string_view name(Op op);

enum class Core : std::uint8_t { answers, keeps_back, silent, fails };
enum class Reaction : std::uint8_t {
    proper,
    wrong_response,
    wrong_ik,
    wrong_verify,
    resync,
    reject,
    none,
};

struct Action {
    Op op{};
    std::uint8_t a = 0;
    std::uint8_t b = 0;
    bool operator==(const Action&) const = default;
};
[[nodiscard]] std::string to_string(const Action& action);
[[nodiscard]] std::string to_string(const std::vector<Action>& actions);
// All there are; World::act says which of them mean something at a moment.
[[nodiscard]] const std::vector<Action>& all_actions();

struct Packet {
    enum class Kind : std::uint8_t { sm1, renew, leave, sm7, report, message, answer, other };
    Kind kind = Kind::other;
    bool to_gateway = true;
    bool attacked = false;  // made by the attacker, or the answer to such
    bool copied = false;
    std::uint8_t user = 0;    // whose identity it names
    std::uint8_t sender = 0;  // who made it; users: the gateway
    std::uint32_t keys = 0;   // the challenge whose keys made the ESP packet; 0: in clear
    sa::Spi spi = 0;
    std::uint32_t sequence = 0;
    sip::Flow flow;  // as the gateway sees it
    std::string text;
};

// A REGISTER or MESSAGE the gateway sent to the home.
struct Request {
    enum class Kind : std::uint8_t { sm2, sm8, message };
    Kind kind = Kind::sm2;
    std::string branch;
    std::uint8_t user = 0;
    std::uint8_t sender = 0;  // who made the packet that made it
    bool attacked = false;
    bool open = true;  // the gateway still waits for the answer, as far as the world knows
    TimePoint sent{};
    // Of the packet: where from, and on which set.
    IpAddress source;
    std::uint32_t on = 0;       // challenge of the set it came on; 0: in clear
    std::uint32_t answers = 0;  // the challenge it answers
    bool leaving = false;
    std::string text;
};

// Told what reaches the gateway; an independent model listens here.
class Listener {
  public:
    virtual ~Listener() = default;
    // Accepted by the packet layer, or in clear on the open port. `on`: challenge of its set.
    virtual void on_packet(const Packet& packet, std::uint32_t on) { (void)packet, (void)on; }
    virtual void after_packet() {}
    virtual void on_request(const Request& request) { (void)request; }
    // `nonce`: of the challenge in a 401.
    virtual void on_answer(const Request& request, int status, std::uint32_t nonce) {
        (void)request, (void)status, (void)nonce;
    }
    virtual void on_install_fails() {}
    // A request of the home left for a phone.
    virtual void on_call(std::string_view branch) { (void)branch; }
};

// How the phones reach the gateway; the home is always met over IPv4 and UDP. With TCP each message
// is one packet: what is lost or comes twice is so by the network's or a phone's will.
struct Access {
    bool v6 = false;
    bool tcp = false;
};

class World final : sa::SetObserver {
  public:
    // `capacity`: sets the packet layer holds; an SPI just released rests for 50 ms.
    explicit World(std::size_t capacity = 24, Access access = {});
    ~World() override;

    // False: it means nothing now, and nothing has happened.
    bool act(const Action& action);
    // Two worlds with equal signatures go on alike, up to the names of the two phones, numbers
    // drawn, and times below 100 ms.
    [[nodiscard]] std::array<std::uint64_t, 2> signature() const;
    // From here: everything under way is lost; time ends what is not complete; whoever is
    // registered is reached and can be called; everybody can register; then time ends everything.
    void finish();

    std::string fault;
    Listener* listener = nullptr;

    // What a model compares itself with: by user and challenge.
    struct Seen {
        std::uint8_t user = 0;
        std::uint32_t nonce = 0;
        sa::State state{};
        TimePoint deadline{};
        auto operator<=>(const Seen&) const = default;
    };
    [[nodiscard]] std::vector<Seen> sets() const;
    [[nodiscard]] TimePoint now() const { return clock_.now(); }
    [[nodiscard]] std::size_t registered() const { return gateway_->registered(); }
    [[nodiscard]] const sa::SaDatabase& database() const { return *sets_; }

  private:
    struct Numbers {
        sa::Port port_uc = 0;
        sa::Port port_us = 0;
        sa::Spi spi_uc = 0;
        sa::Spi spi_us = 0;
    };
    struct Agreement {  // as the phone knows it
        sa::SaNumbers numbers;
        std::uint32_t nonce = 0;
        std::string verify;
        std::string offer;
        std::uint32_t sequence = 0;
    };
    struct Phone {
        IpAddress address;
        std::uint16_t open_port = 0;
        Numbers next;
        std::string sm1_branch;  // the SM1 it waits for
        bool sm1_protected = false;
        std::optional<Agreement> pending;
        std::string sm7_branch;
        std::string message_branch;
        std::string leave_branch;
        std::vector<Agreement> sets;  // of completed registrations, newest last
        std::optional<Packet> last_sm1;
        std::optional<Packet> last_esp;
        std::optional<Packet> last_sm7;
        std::uint32_t heard_nonce = 0;  // the attacker read it in a 401
        std::string heard_call;         // and this on its SA: integrity hides nothing
    };
    struct Home {
        std::array<std::uint32_t, users> nonce{};  // C10: the latest counts
        std::array<std::string, users> path;
        std::uint32_t challenges = 0;
    };
    struct Kept {
        std::size_t request;
        std::string text;
        int status;
        std::uint32_t nonce;
    };
    struct Cause {
        enum class Kind : std::uint8_t { none, packet, answer, time } kind{};
        std::uint8_t sender = 0;
        bool attacked = false;
        std::uint8_t user = 0;
        Packet::Kind packet = Packet::Kind::other;
    };
    // What the world itself knows of a set, to judge what becomes of it.
    struct Ghost {
        std::uint8_t user = 0;
        std::uint32_t nonce = 0;
        sa::State state{};
        // SM1 came on an SA, or SM7 is at the core: until then its user has shown the keys.
        TimePoint shown_until{};
    };

    struct Net;

    // sa::SetObserver
    void on_set_state(const sa::SaSet& set, sa::State from) override;
    void on_set_removed(const sa::SaSet& set, const sa::User& user, sa::Event reason) override;

    void wrong(std::string what);
    [[nodiscard]] std::string branch();
    void next_numbers(Phone& phone, std::uint8_t user);
    [[nodiscard]] static std::string offer(const Numbers& n);
    struct Register {
        std::uint8_t impi = 0;
        IpAddress via;
        std::uint16_t via_port = 0;
        unsigned expires = 3600;
        std::string_view nonce, response, extra;
        std::string_view client, verify;
        std::string branch;
    };
    [[nodiscard]] std::string register_text(const Register& r);
    [[nodiscard]] static std::string ok_text(std::string_view request);
    [[nodiscard]] std::string message_text(std::uint8_t from, const Phone& phone,
                                           const std::string& branch_text,
                                           std::string_view claimed = {});
    [[nodiscard]] Packet clear(std::uint8_t user, std::uint8_t sender, Packet::Kind kind,
                               Endpoint source, std::string text) const;
    // On the SA from port_uc to port_ps, or the one from port_us to port_pc.
    enum class Sa : std::uint8_t { to_port_ps, to_port_pc };
    [[nodiscard]] Packet esp(std::uint8_t user, std::uint8_t sender, Packet::Kind kind,
                             Agreement& on, const IpAddress& source, std::string text,
                             Sa sa = Sa::to_port_ps) const;
    [[nodiscard]] std::string_view via() const { return access_.tcp ? "TCP " : "UDP "; }
    void send(Packet packet);
    void arrive(Packet packet, Core core);
    void hear(const Packet& packet, Reaction reaction);
    void home_register(std::size_t index, Core core);
    void answer(std::size_t request, int status, std::string_view headers, Core core,
                std::uint32_t nonce);
    void deliver_answer(const Kept& kept);
    void pass(Duration by);
    void deliver_all();
    bool attack(const Action& action);
    bool phone_acts(const Action& action);
    void from_gateway(bool gm, const sip::Flow& flow, std::string text);
    void check();
    // Nothing is under way any more, and nothing waits.
    void check_idle(std::string_view when);
    [[nodiscard]] std::uint32_t nonce_of(const sa::SaSet& set) const;
    [[nodiscard]] std::string relation(std::uint8_t user, std::uint32_t nonce) const;
    [[nodiscard]] std::string describe(const std::array<std::uint8_t, users>& order) const;
    [[nodiscard]] const sa::SaSet* newest_live(std::uint8_t user) const;
    bool mallory_registers();

    Access access_;
    IpAddress ours_;
    Endpoint open_port_;
    ManualClock clock_;
    TimerWheel timers_;
    SeededRandom random_{7};
    PacketLayer layer_;
    std::unique_ptr<sa::SaDatabase> sets_;
    std::unique_ptr<Net> gm_;
    std::unique_ptr<Net> core_;
    std::unique_ptr<registration::Gateway> gateway_;
    std::array<Phone, users> phones_;
    Home home_;
    Cause cause_;
    std::deque<Packet> air_;
    std::deque<std::string> to_home_;
    std::vector<Request> requests_;
    std::vector<Kept> kept_;
    std::vector<std::string> called_;  // branches of home's requests the phones have seen
    std::map<sa::SetId, Ghost> ghosts_;
    std::vector<std::uint32_t> retired_;  // challenges whose sets are gone
    std::uint32_t branches_ = 0;
    std::uint32_t cseq_ = 0;
    std::uint32_t calls_ = 0;
    std::size_t answered_messages_ = 0;
    std::size_t answered_calls_ = 0;
    bool checking_ = true;
};

}  // namespace gmgate::explore
