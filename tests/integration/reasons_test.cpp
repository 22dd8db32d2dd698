// Every reason of the catalogue, produced by the real gateway in virtual time: the metric label,
// the log line, the trace and what gmctl shows must say the same word, and a failed registration
// exactly one. A catalogue entry without a case here fails.

#include <fmt/format.h>

#include <map>

#include "base/log.h"
#include "control/cli/ladder.h"
#include "control/cli/views.h"
#include "control/ops/protocol.h"
#include "control/ops/registration_view.h"
#include "control/registration/reasons.h"
#include "tests/support/emergency_call.h"

namespace gmgate::test {
namespace {

using registration::Scope;

struct Case {
    // Brings it about. Returns what the ladder stands under, empty: nothing is traced.
    std::function<std::string(World&)> run;
    std::function<void(World::Options&)> set_up = {};
    // Before the messages are counted: what is not part of the failure.
    std::function<void(World&)> before = {};
    bool discarded = false;  // a REGISTER the phone sends again: no registration has ended
};

std::string replaced(std::string text, std::string_view from, std::string_view to) {
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    if (at != std::string::npos) text.replace(at, from.size(), to);
    return text;
}

std::string sm1(World& w, const RegisterOptions& o, const std::string& user = "alice",
                std::string_view address = "10.2.0.1") {
    Phone& p = w.phone(user, address);
    p.send_sm1(o);
    w.run();
    return p.impi;
}

std::string bobs_sm1(World& w) {
    return sm1(w, {}, "bob", "10.2.0.2");
}

// SM1 and SM6; the phone waits with the challenge.
Phone& challenged(World& w) {
    Phone& p = w.phone();
    EXPECT_TRUE(p.challenged());
    return p;
}

std::string sm7(World& w, const std::function<void(Phone&, RegisterOptions&)>& alter) {
    Phone& p = challenged(w);
    RegisterOptions o;
    alter(p, o);
    p.send_sm7(o);
    w.run();
    return p.impi;
}

Phone& registered(World& w, std::string user = "alice", std::string_view address = "10.2.0.1") {
    Phone& p = w.phone(std::move(user), address);
    EXPECT_TRUE(p.register_once());
    return p;
}
void register_alice(World& w) {
    registered(w);
}
Phone& alice(World& w) {
    return *w.phones.front();
}

// A renewal is at the core when `ends` ends the registration; then the 200 comes.
std::string late_200(World& w, const std::function<void(Phone&)>& ends) {
    Phone& p = alice(w);
    w.home.silent = true;
    p.send_protected_sm1();
    w.run();
    const Wire asked = w.home.inbox.back();
    EXPECT_EQ(asked.message.method(), "REGISTER");
    ends(p);
    EXPECT_EQ(w.gateway->find(p.impi)->state, "leaving");
    w.home.reply(asked, 200, "Contact: <" + p.contact() + ">;expires=3600\r\n");
    w.run();
    EXPECT_EQ(p.last_status(), 500);
    return p.impi;
}

// A NOTIFY to the gateway's own subscription that shortens the registration (F1).
void shorten(World& w, const Phone& p, unsigned seconds) {
    const auto sent = w.sent_to(Wire::To::home);
    const auto subscribe = std::ranges::find_if(
        sent, [](const Wire& wire) { return wire.message.method() == "SUBSCRIBE"; });
    ASSERT_NE(subscribe, sent.end());
    const Sip& s = subscribe->message;
    const std::string body =
        "<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"0\" "
        "state=\"full\"><registration aor=\"" +
        p.impu +
        "\" id=\"r\" state=\"active\"><contact id=\"c\" state=\"active\" "
        "event=\"shortened\" expires=\"" +
        std::to_string(seconds) + "\"><uri>" + p.contact() +
        "</uri></contact></registration></reginfo>";
    Wire wire;
    wire.to = Wire::To::gateway_core;
    wire.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0};
    wire.message.text =
        "NOTIFY sip:192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK" +
        w.random.token(8) + "\r\nMax-Forwards: 70\r\nFrom: <" + p.impu +
        ">;tag=home\r\nTo: " + s.header("From") + "\r\nCall-ID: " + s.header("Call-ID") +
        "\r\nCSeq: 1 NOTIFY\r\nContact: <sip:192.0.2.9:5060>\r\nEvent: reg\r\n"
        "Subscription-State: active;expires=3600\r\nContent-Type: application/reginfo+xml\r\n"
        "Content-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body;
    w.queue.push_back(std::move(wire));
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
}

const std::map<Reason, Case>& cases() {
    static const std::map<Reason, Case> all{
        {Reason::malformed, {[](World& w) {
             RegisterOptions o;
             o.extra = "Authorization: Digest username=\"mallory@home.example\"\r\n";
             sm1(w, o);
             EXPECT_EQ(alice(w).last_status(), 400);
             return alice(w).address.to_string();  // which of the two is it?
         }}},
        {Reason::unsupported_version, {[](World& w) {
             Phone& p = w.phone();
             p.send_clear(replaced(p.register_text({}, nullptr), "SIP/2.0\r\n", "SIP/7.0\r\n"));
             w.run();
             EXPECT_EQ(p.last_status(), 505);
             return p.address.to_string();
         }}},
        {Reason::unsupported_uri, {[](World& w) {
             Phone& p = w.phone();
             p.send_clear(replaced(p.register_text({}, nullptr), "sip:home.example SIP",
                                   "mailto:a@home.example SIP"));
             w.run();
             EXPECT_EQ(p.last_status(), 416);
             return p.impi;
         }}},
        {Reason::bad_extension, {[](World& w) {
             RegisterOptions o;
             o.extra = "Proxy-Require: time-travel\r\n";
             return sm1(w, o);
         }}},
        {Reason::too_many_hops, {[](World& w) {
             Phone& p = w.phone();
             p.send_clear(
                 replaced(p.register_text({}, nullptr), "Max-Forwards: 70", "Max-Forwards: 0"));
             w.run();
             EXPECT_EQ(p.last_status(), 483);
             return p.impi;
         }}},
        {Reason::unknown_transaction, {[](World& w) {
             Wire stray;
             stray.to = Wire::To::gateway_core;
             stray.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0};
             stray.message.text =
                 "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKnone\r\nFrom: "
                 "<sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 "
                 "REGISTER\r\nContent-Length: 0\r\n\r\n";
             w.queue.push_back(stray);
             w.run();
             return std::string();
         }}},
        {Reason::no_authorization, {[](World& w) {
             RegisterOptions o;
             o.authorization = "";
             sm1(w, o);
             return alice(w).address.to_string();
         }}},
        {Reason::sec_agree_missing, {[](World& w) {
             RegisterOptions o;
             o.security_client = false;
             return sm1(w, o);
         }}},
        {Reason::security_client_malformed, {[](World& w) {
             RegisterOptions o;
             o.client = "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=abc;spi-s=1001;port-c=7001;port-s=7002";
             return sm1(w, o);
         }}},
        {Reason::no_common_algorithm, {[](World& w) {
             RegisterOptions o;
             o.client = "ipsec-3gpp;alg=rot13;spi-c=1000;spi-s=1001;port-c=7001;port-s=7002";
             return sm1(w, o);
         }}},
        {Reason::nat_unsupported, {[](World& w) {
             RegisterOptions o;
             o.via_host = "192.168.1.2";
             return sm1(w, o);
         }}},
        {Reason::via_mismatch,
         {[](World& w) {
              RegisterOptions o;
              o.via_host = "192.168.1.2";
              alice(w).send_protected_sm1(o);
              w.run();
              return alice(w).impi;
          },
          {},
          register_alice}},
        {Reason::port_in_use,
         {[](World& w) {
              alice(w).send_sm1();  // with the client port of the set it has
              w.run();
              return alice(w).impi;
          },
          {},
          register_alice}},
        {Reason::rate_source,
         {[](World& w) { return sm1(w, {}); },
          [](World::Options& o) {
              o.policy.limits.register_burst_per_source = 0.5;
              o.policy.limits.register_rate_per_source = 0.01;
          },
          {},
          true}},
        {Reason::rate_total,
         {[](World& w) { return sm1(w, {}); },
          [](World::Options& o) {
              o.policy.limits.register_burst_total = 0.5;
              o.policy.limits.register_rate_total = 0.01;
          },
          {},
          true}},
        {Reason::rate_name,
         {[](World& w) { return sm1(w, {}); },
          [](World::Options& o) {
              o.policy.limits.register_burst_per_user = 0.5;
              o.policy.limits.register_rate_per_user = 0.01;
          }}},
        {Reason::rate_user,
         {[](World& w) {
              for (int i = 0; i < 3; ++i)
                  alice(w).send_on(alice(w).current(),
                                   alice(w).request("MESSAGE", "sip:bob@home.example"));
              w.run();
              return alice(w).impi;
          },
          [](World::Options& o) {
              o.policy.limits.message_burst_per_user = 2;
              o.policy.limits.message_rate_per_user = 0.01;
          },
          register_alice}},
        {Reason::gave_way,
         {[](World& w) {
              Phone& p = w.phone("bob", "10.2.0.2");
              p.send_sm1();
              w.run();
              EXPECT_EQ(p.last_status(), 401);
              return alice(w).impi;
          },
          [](World::Options& o) { o.policy.limits.pending = 1; },
          [](World& w) {
              challenged(w);
              w.advance(30s);
          }}},
        {Reason::pending_limit,
         {bobs_sm1, [](World::Options& o) { o.policy.limits.pending = 1; },
          [](World& w) { challenged(w); }}},
        {Reason::pending_source_limit,
         {[](World& w) {
              Phone& p = w.phone("bob", "10.2.0.1");
              p.port_uc = 7100;
              p.port_us = 7101;
              p.send_sm1();
              w.run();
              return p.impi;
          },
          [](World::Options& o) { o.policy.limits.pending_per_source = 1; },
          [](World& w) { challenged(w); }}},
        {Reason::pending_user_limit,
         {[](World& w) {
              alice(w).send_protected_sm1();
              w.run();
              return alice(w).impi;
          },
          [](World::Options& o) { o.policy.limits.pending_per_user = 1; },
          [](World& w) {
              register_alice(w);
              w.home.silent = true;
              alice(w).send_protected_sm1();
              w.run();
          }}},
        {Reason::registration_limit,
         {bobs_sm1, [](World::Options& o) { o.policy.limits.registrations = 1; }, register_alice}},
        {Reason::no_spi_or_port,
         {[](World& w) {
              Phone& p = w.phone("bob", "10.2.0.2");
              p.send_sm1();
              w.run();
              EXPECT_EQ(p.last_status(), 500);
              return p.impi;
          },
          [](World::Options& o) { o.database.limits.max_sets = 1; }, register_alice}},
        {Reason::install_failed, {[](World& w) {
             w.backend.fail_install(ErrorKind::io);
             return sm1(w, {});
         }}},
        {Reason::dialog_limit,
         {[](World& w) {
              Phone& p = registered(w);
              p.send_on(p.current(), p.request("INVITE", "sip:bob@home.example"));
              w.run();
              EXPECT_EQ(p.last_status(), 503);
              return p.impi;
          },
          [](World::Options& o) { o.policy.limits.dialogs = 0; }}},
        {Reason::emergency_limit,
         {[](World& w) {
              Phone& p = w.phone();
              const ClearCall first(w, p);
              EXPECT_TRUE(first.reached());
              const ClearCall second(w, p);
              EXPECT_EQ(p.last_status(), 503);
              return std::string();
          },
          [](World::Options& o) {
              o = emergencies_in_clear();
              o.policy.limits.emergency_calls_per_source = 1;
          }}},
        {Reason::transaction_limit,
         {[](World& w) {
              // The core's side is full: the request alice has sent there waits for its answer.
              return sm1(w, {}, "bob", "10.2.0.2");
          },
          [](World::Options& o) { o.policy.limits.transactions = 1; },
          [](World& w) {
              w.home.silent = true;
              Phone& p = w.phone();
              p.send_sm1();
              w.run();
          },
          true}},
        {Reason::challenge_without_keys, {[](World& w) {
             w.home.omit_keys = true;
             return sm1(w, {});
         }}},
        {Reason::challenged_again, {[](World& w) {
             return sm7(w, [&](Phone&, RegisterOptions&) { w.home.challenge_again = true; });
         }}},
        {Reason::core_unreachable, {[](World& w) {
             w.core_net.refuse = true;
             return sm1(w, {});
         }}},
        {Reason::core_timeout, {[](World& w) {
             w.home.silent = true;
             const std::string impi = sm1(w, {});
             w.advance(33s);
             return impi;
         }}},
        {Reason::core_error, {[](World& w) {
             w.home.fixed_status = 500;
             return sm1(w, {});
         }}},
        {Reason::core_rejected, {[](World& w) {
             w.home.fixed_status = 404;
             return sm1(w, {});
         }}},
        {Reason::integrity_failure,
         {[](World& w) { return sm7(w, [](Phone& p, RegisterOptions&) { p.wrong_ik = true; }); }}},
        {Reason::authentication_failed, {[](World& w) {
             return sm7(w, [](Phone& p, RegisterOptions& o) {
                 o.authorization = p.answer_to(p.pending->nonce, "0000");
             });
         }}},
        {Reason::network_authentication_failed, {[](World& w) {
             Phone& p = challenged(w);
             RegisterOptions o;
             o.authorization = p.answer_to(p.pending->nonce, "");
             p.send_clear(p.register_text(o, nullptr));
             w.run();
             EXPECT_EQ(p.last_status(), 403);
             return p.impi;
         }}},
        {Reason::synchronisation_failure, {[](World& w) {
             Phone& p = challenged(w);
             RegisterOptions o;
             o.authorization = p.answer_to(p.pending->nonce, "", ",auts=\"AAAAAAAAAAAAAAAAAAA=\"");
             p.send_clear(p.register_text(o, nullptr));
             w.run();
             EXPECT_EQ(p.last_status(), 401);
             return p.impi;
         }}},
        {Reason::authentication_timeout, {[](World& w) {
             const std::string impi = sm1(w, {});
             w.advance(250s);
             return impi;
         }}},
        {Reason::superseded, {[](World& w) {
             Phone& p = challenged(w);
             p.next_ports();
             p.send_sm1();
             w.run();
             return p.impi;
         }}},
        {Reason::verify_missing,
         {[](World& w) { return sm7(w, [](Phone&, RegisterOptions& o) { o.verify = ""; }); }}},
        {Reason::verify_mismatch, {[](World& w) {
             return sm7(w, [](Phone& p, RegisterOptions& o) {
                 o.verify = p.pending->server.substr(0, p.pending->server.find(','));
             });
         }}},
        {Reason::client_missing, {[](World& w) {
             return sm7(w, [](Phone&, RegisterOptions& o) { o.security_client = false; });
         }}},
        {Reason::client_mismatch, {[](World& w) {
             return sm7(w, [](Phone& p, RegisterOptions& o) {
                 o.client = replaced(p.security_client(), "hmac-sha-1-96", "hmac-md5-96");
             });
         }}},
        {Reason::identity_mismatch, {[](World& w) {
             return sm7(w, [](Phone&, RegisterOptions& o) { o.impu = "sip:mallory@home.example"; });
         }}},
        {Reason::wrong_sa,
         {[](World& w) {
              RegisterOptions o;
              o.impi = "mallory@home.example";
              alice(w).send_protected_sm1(o);
              w.run();
              return alice(w).impi;
          },
          {},
          register_alice}},
        {Reason::no_sa,
         {[](World& w) {
              // The set SM1 came on goes while the core thinks.
              w.home.silent = true;
              alice(w).send_protected_sm1();
              w.run();
              w.sets->remove_all(sa::Event::operator_removed);
              w.home.silent = false;
              w.advance(1s);
              return alice(w).impi;
          },
          {},
          [](World& w) {
              w.home.integrity_yes_is_enough = false;
              register_alice(w);
          }}},
        {Reason::unprotected_request,
         {[](World& w) {
              alice(w).send_clear(alice(w).request("MESSAGE", "sip:bob@home.example"));
              w.run();
              return std::string();
          },
          {},
          register_alice}},
        {Reason::stray_response, {[](World& w) {
             Phone& p = w.phone();
             p.send_clear(
                 "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.1.0.1:5060;branch=z9hG4bKx\r\nFrom: "
                 "<sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 "
                 "OPTIONS\r\nContent-Length: 0\r\n\r\n");
             w.run();
             return std::string();
         }}},
        {Reason::untrusted_source, {[](World& w) {
             std::string text = "OPTIONS sip:192.0.2.1 SIP/2.0\r\n\r\n";
             w.gateway->core().on_message(
                 {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.66:5060"), 0}, text);
             return std::string();
         }}},
        {Reason::route_mismatch,
         {[](World& w) {
              Phone& p = alice(w);
              p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example",
                                               "Route: <sip:elsewhere.example;lr>\r\n"));
              w.run();
              EXPECT_EQ(p.last_status(), 400);
              return p.impi;
          },
          [](World::Options& o) {
              o.policy.service_route_mismatch = registration::ServiceRouteMismatch::reject;
          },
          register_alice}},
        {Reason::emergency_call,
         {[](World& w) {
              Phone& p = alice(w);
              p.send_on(p.current(), p.request("INVITE", "urn:service:sos"));
              w.run();
              EXPECT_EQ(p.last_status(), 380);
              return p.impi;
          },
          {},
          register_alice}},
        {Reason::unknown_flow, {[](World& w) {
             w.home.request("MESSAGE", "<sip:nobody@pcscf.visited.example:5060;lr>",
                            "sip:alice@home.example");
             w.run();
             return std::string();
         }}},
        {Reason::not_registered,
         {[](World& w) {
              w.home.request("MESSAGE", w.home.paths[alice(w).impi], "sip:alice@home.example");
              w.run();
              return std::string();
          },
          {},
          [](World& w) {
              register_alice(w);
              EXPECT_TRUE(alice(w).deregister());
              w.advance(60s);
          }}},
        {Reason::ue_unreachable,
         {[](World& w) {
              w.gm_net.refuse = true;
              w.home.request("MESSAGE", w.home.paths[alice(w).impi], "sip:alice@home.example");
              w.run();
              return std::string();
          },
          {},
          register_alice}},
        {Reason::ue_timeout,
         {[](World& w) {
              w.home.request("MESSAGE", w.home.paths[alice(w).impi], "sip:alice@home.example");
              w.advance(33s);
              return alice(w).impi;
          },
          {},
          register_alice}},
        {Reason::loop_detected,
         {[](World& w) {
              Phone& p = alice(w);
              const std::string asked =
                  w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
              w.run();
              const Sip& m = p.last().message;
              const std::string ours =
                  m.text.substr(m.text.find("Via:"),
                                m.text.find("\r\n", m.text.find("Via:")) + 2 - m.text.find("Via:"));
              p.answer(p.last(), 200);
              Wire again;
              again.to = Wire::To::gateway_core;
              again.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0};
              again.message.text = replaced(asked, "Via:", ours + "Via:");
              w.queue.push_back(again);
              w.run();
              return p.impi;
          },
          {},
          register_alice}},
        {Reason::deregistered_by_ue,
         {[](World& w) {
              // The phone leaves while the core has its renewal, which then comes too late.
              return late_200(w, [&](Phone& p) {
                  RegisterOptions o;
                  o.expires = 0;
                  p.send_protected_sm1(o);
                  w.run();
                  w.home.reply(w.home.inbox.back(), 200);
                  w.run();
                  EXPECT_EQ(p.last_status(), 200);
              });
          },
          {},
          register_alice}},
        {Reason::deregistered_by_network,
         {[](World& w) {
              return late_200(w, [&](Phone& p) { EXPECT_TRUE(w.gateway->deregister(p.impi)); });
          },
          {},
          register_alice}},
        {Reason::expired,
         {[](World& w) { return late_200(w, [&](Phone&) { w.advance(20s); }); },
          [](World::Options& o) { o.policy.reg_event = sip::RegProfile::rfc3680; },
          [](World& w) {
              // The network has shortened it to ten seconds, to which 30 are added.
              register_alice(w);
              w.advance(10ms);
              shorten(w, alice(w), 10);
              w.advance(25s);
          }}},
        {Reason::address_changed,
         {[](World& w) {
              Phone& p = alice(w);
              p.address = ip("10.2.0.77");
              p.next_ports();
              p.send_sm1();
              w.run();
              p.take_challenge(p.last().message);
              p.send_sm7();
              w.run();
              EXPECT_EQ(p.last_status(), 200);
              w.advance(40s);
              return p.impi;
          },
          {},
          register_alice}},
        {Reason::sequence_near_end, {[](World& w) {
             Phone& p = challenged(w);
             w.backend.emit({sa::BackendEventKind::sequence_near_end,
                             w.backend.sets().begin()->first, p.pending->numbers.spi_ps});
             w.sets->poll_backend();
             w.advance(1s);
             return p.impi;
         }}},
        {Reason::shutdown, {[](World& w) {
             Phone& p = challenged(w);
             w.sets->remove_all(sa::Event::shutdown);
             return p.impi;
         }}},
    };
    return all;
}

struct Counters {
    std::map<std::string, double> ended;
    std::map<std::string, double> dropped;
    explicit Counters(const World& w) {
        for (const auto& s : w.registry.collect()) {
            for (const auto& [label, value] : s.labels) {
                if (label != "reason") continue;
                if (s.name == "gmgate_registrations_total") ended[value] = s.value;
                if (s.name == "gmgate_registration_drops_total") dropped[value] = s.value;
            }
        }
    }
};

std::size_t count_of(std::string_view text, std::string_view what) {
    std::size_t n = 0;
    for (auto at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1)) ++n;
    return n;
}

class EachReason : public testing::TestWithParam<Reason> {
  protected:
    void TearDown() override { log::configure(log::Level::off, false); }
};

TEST_P(EachReason, IsTheSameWordEverywhere) {
    const Reason reason = GetParam();
    const auto& info = registration::info(reason);
    const std::string word(info.name);
    const auto found = cases().find(reason);
    ASSERT_NE(found, cases().end()) << "no case brings about " << word;
    const Case& c = found->second;

    World::Options options;
    if (c.set_up) c.set_up(options);
    World w(options);
    if (c.before) c.before(w);
    const Counters before(w);
    const std::uint64_t failures_before = w.gateway->failures().count();

    log::configure(log::Level::debug, false);
    testing::internal::CaptureStderr();
    const std::string traced = c.run(w);
    const std::string log = testing::internal::GetCapturedStderr();

    const Counters after(w);
    const ops::GatewayView view(*w.gateway, *w.sets, w.clock);
    std::string ladder;
    std::size_t failed_steps = 0;
    std::size_t with_reason = 0;
    if (!traced.empty()) {
        std::vector<cli::LadderStep> steps;
        for (const auto& step : view.steps(traced)) {
            failed_steps += step.text == "registration failed" ? 1U : 0U;
            with_reason += step.reason.starts_with(word + ":") ? 1U : 0U;
            steps.push_back(cli::ladder_step(ops::to_json(step)));
        }
        ladder = cli::render_ladder(traced, steps, {});
    }

    // The metric: this one and no other.
    for (const auto& [other, n] : after.ended) {
        const bool expected = info.scope == Scope::registration && !c.discarded && other == word;
        if (other != "ok") {
            EXPECT_EQ(n - before.ended.at(other), expected ? 1 : 0) << other << '\n' << ladder;
        }
    }
    const bool is_failure = info.scope == Scope::registration;
    // The list gmctl shows: newest first, each with its reason; and exactly one.
    EXPECT_EQ(w.gateway->failures().count() - failures_before, is_failure ? 1U : 0U);
    EXPECT_EQ(count_of(log, "registration: failed: "), is_failure ? 1U : 0U) << log;
    if (is_failure) {
        const auto latest = w.gateway->failures().latest(1);
        ASSERT_EQ(latest.size(), 1U);
        EXPECT_EQ(latest[0].reason, reason);
        EXPECT_EQ(count_of(log, "registration: failed: " + word + " [" + std::string(info.rule)),
                  1U)
            << log;
        EXPECT_NE(log.find(info.remedy), std::string::npos) << "what to do";
    }
    if (info.scope == Scope::message || c.discarded) {
        EXPECT_GE(after.dropped.at(word) - before.dropped.at(word), 1);
        EXPECT_NE(log.find("refused: " + word + " from "), std::string::npos) << log;
        bool shown = false;
        for (const auto& d : view.drops()) shown |= d.reason == word && d.layer == "sip";
        EXPECT_TRUE(shown) << "gmctl drops";
    }
    if (c.discarded) return;
    if (is_failure || info.scope == Scope::event) {
        EXPECT_GE(with_reason, 1U) << ladder;
        EXPECT_NE(ladder.find(word), std::string::npos) << ladder;
        // Renewals and failures before this one have ladders of their own.
        EXPECT_EQ(failed_steps, is_failure ? 1U : 0U) << ladder;
    }
    if (is_failure) {
        EXPECT_NE(ladder.find("Broke after"), std::string::npos) << ladder;
    }
}

std::vector<Reason> whole_catalogue() {
    std::vector<Reason> all;
    for (std::size_t i = 1; i < registration::reason_count; ++i)
        all.push_back(static_cast<Reason>(i));
    return all;
}

INSTANTIATE_TEST_SUITE_P(Catalogue, EachReason, testing::ValuesIn(whole_catalogue()),
                         [](const auto& param) {
                             return std::string(registration::name(param.param));
                         });

// The ordinary ends are no failures: the ladder tells of them, and nothing else does.
TEST(OrdinaryEnds, AreToldByTheLadderAlone) {
    for (const Reason reason :
         {Reason::deregistered_by_ue, Reason::deregistered_by_network, Reason::expired}) {
        World w;
        registered(w);
        if (reason == Reason::deregistered_by_ue) {
            ASSERT_TRUE(alice(w).deregister());
        } else if (reason == Reason::expired) {
            w.advance(3700s);
        } else {
            ASSERT_TRUE(w.gateway->deregister(alice(w).impi));
        }
        std::size_t told = 0;
        for (const auto& r : w.gateway->trace().of_user(alice(w).impi)) {
            if (r.step != registration::Step::registration_ended) continue;
            EXPECT_EQ(r.reason, reason);
            ++told;
        }
        EXPECT_EQ(told, 1U) << registration::name(reason);
        EXPECT_EQ(w.gateway->failures().count(), 0U) << registration::name(reason);
    }
}

// SM7 waits for the core when the phone deregisters on its old SAs: its own doing, not the
// network's.
TEST(OrdinaryEnds, AnSm7ThatWaitsEndsByWhoEndedTheRegistration) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = registered(w);
    const Phone::Security old = p.current();
    ASSERT_TRUE(p.challenged(true));
    w.home.silent = true;
    p.send_sm7();
    w.run();
    RegisterOptions o;
    o.expires = 0;
    p.send_on(old, p.register_text(o, &old));
    w.run();
    w.home.reply(w.home.inbox.back(), 200);
    w.run();
    ASSERT_EQ(w.gateway->failures().count(), 1U);
    EXPECT_EQ(w.gateway->failures().latest(1)[0].reason, Reason::deregistered_by_ue);
    w.home.silent = false;
    w.nothing_left();
}

// A core that fails one registration and answers the next is told of, not with two lines each.
TEST(CoreHealth, ACoreThatComesAndGoesDoesNotFillTheLog) {
    World w;
    log::configure(log::Level::info, false);
    testing::internal::CaptureStderr();
    for (int i = 0; i < 20; ++i) {
        Phone& p = w.phone();
        w.core_net.refuse = i % 2 == 0;
        p.send_sm1();
        w.run();
    }
    const std::string log = testing::internal::GetCapturedStderr();
    log::configure(log::Level::off, false);
    EXPECT_EQ(count_of(log, "does not answer REGISTER"), 1U) << log;
    EXPECT_EQ(count_of(log, "answers again"), 1U) << log;
    EXPECT_GE(w.gateway->core_health().failures, 4U);
}

}  // namespace
}  // namespace gmgate::test
