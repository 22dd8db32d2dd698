// All input from the network is hostile (S2): torture messages, handset recordings, truncations and
// mutations, on every side of the gateway. Nothing crashes, nothing grows, and phones register as
// before.

#include <filesystem>
#include <fstream>

#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

void throw_at(World& w, const Phone& p, std::string bytes) {
    const std::vector<sip::Flow> flows{
        {sip::Transport::udp, ep("10.1.0.1:5060"), ep("10.9.0.1:5060"), 0},
        {sip::Transport::tcp, ep("10.1.0.1:5060"), ep("10.9.0.1:4000"), 77},
        {sip::Transport::udp, Endpoint{ep("10.1.0.1:0").address, 6100}, ep("10.9.0.1:5060"), 0},
    };
    for (const auto& flow : flows) {
        std::string copy = bytes;
        w.gateway->gm().on_message(flow, copy);
    }
    if (!p.sets.empty()) {
        const auto& n = p.sets.back().numbers;
        std::string copy = bytes;
        w.gateway->gm().on_message(
            {sip::Transport::udp, Endpoint{World::gm_address(p.address), n.port_ps},
             Endpoint{p.address, n.port_uc}, 0},
            copy);
    }
    w.gateway->core().on_message(
        {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0}, bytes);
    w.run();
}

World::Options generous() {
    World::Options options;
    options.policy.limits.register_rate_per_source = 1e9;
    options.policy.limits.register_burst_per_source = 1e9;
    options.policy.limits.register_rate_total = 1e9;
    options.policy.limits.register_burst_total = 1e9;
    return options;
}

void expect_sane(World& w, Phone& p) {
    w.home.silent = false;
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    Phone& fresh = w.phone("fresh", "10.2.3.4");
    EXPECT_TRUE(fresh.register_once());
    w.expect_no_leak(2);
}

TEST(Hostile, RecordedAndTortureMessages) {
    World w(generous());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.silent = true;
    std::size_t n = 0;
    // The project's own, and a larger collection where it lies beside the checkout.
    for (const std::filesystem::path folder : {GMGATE_TEST_DATA, GMGATE_CORPORA}) {
        if (!std::filesystem::exists(folder)) continue;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
            const auto name = entry.path().string();
            if (!entry.is_regular_file() ||
                (!name.ends_with(".dat") && !name.ends_with(".sip") && !name.ends_with(".txt"))) {
                continue;
            }
            std::ifstream in(entry.path(), std::ios::binary);
            const std::string bytes((std::istreambuf_iterator<char>(in)), {});
            if (bytes.empty() || bytes.size() > 65535) continue;
            throw_at(w, p, bytes);
            ++n;
        }
    }
    EXPECT_GT(n, 40U);
    w.advance(600s);
    expect_sane(w, p);
}

TEST(Hostile, TruncatedAndMutated) {
    World w(generous());
    SeededRandom dice(7);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.silent = true;
    std::vector<std::string> seeds{p.last_sm1, p.last_sm7};
    for (const Wire& wire : w.log) seeds.push_back(wire.message.text);
    seeds.push_back(p.request("INVITE", "sip:bob@home.example", "Contact: <sip:x@y>\r\n"));
    seeds.push_back(p.request("CANCEL", "sip:bob@home.example"));
    seeds.push_back(p.request("ACK", "sip:bob@home.example"));
    for (const std::string& seed : seeds) {
        for (std::size_t cut = 1; cut < seed.size(); cut += 1 + dice.below(40))
            throw_at(w, p, seed.substr(0, cut));
        for (int i = 0; i < 150; ++i) {
            std::string bad = seed;
            for (std::uint64_t k = 0; k <= dice.below(6); ++k) {
                switch (dice.below(4)) {
                    case 0:
                        bad[dice.below(bad.size())] = static_cast<char>(dice.below(256));
                        break;
                    case 1:
                        bad.insert(dice.below(bad.size()), 1, "\r\n\"<>;,=:@ \t"[dice.below(12)]);
                        break;
                    case 2:
                        bad.erase(dice.below(bad.size()), 1 + dice.below(20));
                        break;
                    default: {
                        const auto at = dice.below(bad.size());
                        bad.insert(dice.below(bad.size()), bad.substr(at, dice.below(60)));
                        break;
                    }
                }
                if (bad.empty()) bad = "x";
            }
            if (bad.size() <= 65535) throw_at(w, p, bad);
        }
        w.advance(700s);  // every transaction and procedure times out
        w.home.inbox.clear();
        w.home.replies.clear();
        w.log.clear();
    }
    if (w.gateway->registered() == 0) {
        // A mutated REGISTER on its own SA may have renewed or ended it; then it comes anew.
        p.sets.clear();
        w.home.silent = false;
        p.next_ports();
        ASSERT_TRUE(p.register_once());
    }
    w.home.silent = false;
    Phone& fresh = w.phone("fresh", "10.2.3.4");
    EXPECT_TRUE(fresh.register_once());
    w.advance(4000s);
    w.expect_no_leak(0);
}

TEST(Hostile, HeaderBombs) {
    World w(generous());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    RegisterOptions many;
    many.client = "";
    for (int i = 0; i < 500; ++i) {
        *many.client +=
            std::string(i == 0 ? "" : ",") +
            "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1000;spi-s=1001;port-c=7001;port-s=7002";
    }
    p.port_uc = 7100;
    p.send_sm1(many);
    w.run();
    EXPECT_EQ(p.last_status(), 400);
    RegisterOptions wide;
    for (int i = 0; i < 300; ++i) wide.extra += "X-" + std::to_string(i) + ": y\r\n";
    p.send_sm1(wide);
    w.run();
    EXPECT_EQ(p.last_status(), 400);
    RegisterOptions long_contact;
    long_contact.contact_params = ";x=\"" + std::string(60'000, 'y') + "\"";
    p.send_sm1(long_contact);
    w.run();
    EXPECT_EQ(w.gateway->pending(), 0U);
    p.port_uc = 7000;
    expect_sane(w, p);
}

TEST(Hostile, ForgedResponsesOfTheCore) {
    World w;
    Phone& p = w.phone();
    w.home.silent = true;
    p.send_sm1();
    w.run();
    const Wire sm2 = w.home.inbox.at(0);
    // The right branch and a wrong everything else: one answer ends it, the rest finds nothing.
    Wire wrong = sm2;
    wrong.message.text.replace(wrong.message.text.find("branch=z9hG4bK") + 14, 4, "ffff");
    w.home.reply(wrong, 200);
    w.run();
    EXPECT_EQ(w.drops(Reason::unknown_transaction), 1U);
    EXPECT_EQ(w.gateway->pending(), 1U);
    w.expect_no_leak(0);
}

}  // namespace
}  // namespace gmgate::test
