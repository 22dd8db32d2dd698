#pragma once
// A P-CSCF and the network behind it, in memory and in virtual time: what phones are tested
// against. It keeps the rules, and can be told to break them one by one.

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "control/sip/framer.h"
#include "control/sip/message.h"
#include "ue/load.h"
#include "ue/packet.h"
#include "ue/phone.h"

namespace gmgate::ue::test {

inline constexpr std::string_view realm = "ims.example";

class ScriptedPcscf final : public Network {
  public:
    explicit ScriptedPcscf(TimerWheel& wheel) : wheel_(wheel) {}
    ~ScriptedPcscf() override;

    // What to do wrong, or otherwise.
    struct Script {
        bool silent = false;          // answers nothing
        bool nat = false;             // finds a NAT: UDP-enc-tun, and ESP in UDP alone
        bool leak_keys = false;       // ck and ik in SM6
        bool accept_replays = false;  // no window
        bool answer_clear = false;    // SM12 in clear
        bool answer_forged = false;   // ICV not checked
        bool accept_clear_on_protected = false;
        bool accept_without_aka = false;  // 200 to SM1
        bool rport_to_client_port =
            false;  // answers from port_ps to port_uc, as to a Via with rport
        bool change_port_ps = false;
        bool keep_port_pc = false;
        bool challenge_deregistration = true;
        unsigned drop_every = 0;      // loses every n-th packet each way
        std::string security_server;  // instead of what it would write
        std::string algorithm = "AKAv1-MD5";
        std::string qop = "auth,auth-int";
        int refuse_sm7 = 0;     // this status instead of 200
        unsigned lose_sm7 = 0;  // that many SM7, with what repeats them, are not answered
    };
    Script script;

    struct Set {
        Set();
        ~Set();
        SaNumbers n;
        sa::Suite suite;
        SecretPtr<sa::EspKeys> keys;
        std::uint32_t sent_uc = 0, sent_us = 0;
        ReplayWindow in_ps, in_pc;
        std::string offered;  // Security-Client of SM1, as it came
        std::string verify;   // what SM7 must send back, by meaning
        std::string xres_nonce;
        Secret<8> res;
        bool established = false;
        struct Link;
        std::unique_ptr<Link> server;  // on port_ps
        std::unique_ptr<Link> client;  // from our port_pc
    };
    struct User {
        std::vector<std::unique_ptr<Set>> sets;
        Sqn sqn = 64;
        bool registered = false;
        unsigned registrations = 0;
        Port port_ps = 0;
        std::string impu;
        IpAddress address;
    };

    // Network
    void send_udp(const Endpoint& from, const Endpoint& to, std::string_view payload) override;
    void send_esp(const IpAddress& from, const IpAddress& to,
                  std::span<const std::uint8_t> esp) override;
    void send_in_udp(const IpAddress& from, const IpAddress& to,
                     std::span<const std::uint8_t> payload) override;
    std::unique_ptr<ClearStream> connect_tcp(const IpAddress& from, const Endpoint& to,
                                             ClearStreamHandler& handler) override;

    // Delivers what is due; the phones are reached through `phones`.
    void deliver();
    [[nodiscard]] bool idle() const { return queue_.empty(); }
    NetworkReceiver* phones = nullptr;

    // A request to a registered phone, on its newest set.
    void send_request(const IpAddress& ue, const std::string& message, bool tcp);

    std::map<IpAddress, User> users;
    std::vector<std::string> requests;   // every request that passed the packet layer, in order
    std::vector<Spi> request_spis;       // and what each came on: our spi_ps; 0: in clear
    std::vector<std::string> responses;  // responses of phones
    std::uint64_t keepalives = 0;
    std::uint64_t forged = 0, replayed = 0, unknown = 0, clear_dropped = 0;
    Endpoint v4 = *Endpoint::parse("10.21.0.1:5060");
    Endpoint v6 = *Endpoint::parse("[fd00:21::1]:5060");

  private:
    struct Stream;
    void later(std::function<void()> what);
    void receive_esp(const IpAddress& from, const IpAddress& to, std::span<const std::uint8_t> esp,
                     bool in_udp);
    void on_sip(const std::string& text, const Endpoint& from, const Endpoint& to, Set* set,
                const std::function<void(std::string)>& reply);
    std::string challenge(const sip::Message& m, User& user, Set* carrier);
    std::string handle_register(const sip::Message& m, User& user, Set* set, Set*& answer_on);
    void send_protected(User& user, Set& set, bool to_client_port, std::uint8_t protocol,
                        std::span<const std::uint8_t> inner);
    void send_sip(User& user, Set& set, bool tcp, const std::string& text);
    void receive_tcp(User& user, Set& set, bool at_ps, const TcpSegment& segment);
    [[nodiscard]] const Endpoint& self(const IpAddress& peer) const {
        return peer.is_v6() ? v6 : v4;
    }
    [[nodiscard]] bool lost() {
        return script.drop_every != 0 && ++count_ % script.drop_every == 0;
    }

    TimerWheel& wheel_;
    EspCrypto crypto_;
    SeededRandom random_{99};
    struct Due {
        TimePoint at;
        std::function<void()> what;
    };
    std::vector<Due> queue_;
    std::map<std::string, std::pair<std::string, Set*>> answered_;  // by branch
    std::set<std::string> lost_;
    Spi next_spi_ = 0x1000;
    Port next_pc_ = 6200;
    unsigned count_ = 0;
};

// A fleet, a P-CSCF and a clock.
class Lab {
  public:
    Lab();
    ~Lab();
    // Phones as `options` says; the networks and suites are filled in if absent.
    void start(LoadOptions options);
    void run(Duration time);
    // Until the load is over, `limit` at most; false: it is not.
    bool finish(Duration limit = std::chrono::seconds(300));
    Load& load() { return *load_; }

    ManualClock clock;
    TimerWheel wheel{clock};
    SeededRandom random{5};
    EspCrypto crypto;
    Statistics statistics;
    ScriptedPcscf pcscf{wheel};
    PhoneContext context;
    bool over = false;

  private:
    std::unique_ptr<Load> load_;
};

}  // namespace gmgate::ue::test
