// What the home network costs the machine that also runs the gateway under test: CPU time of the
// registrar per registration (SM1 with its vector, SM7 with its Digest), generated subscribers, no
// sockets.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <string>

#include "base/bytes.h"
#include "control/sip/message.h"
#include "control/sip/values.h"
#include "home/aka.h"
#include "home/local_hss.h"
#include "home/registrar.h"
#include "home/subscribers.h"

namespace gmgate::home {
namespace {

constexpr auto realm = "ims.mnc001.mcc001.3gppnetwork.org";
const Bytes seed = *from_hex("00112233445566778899aabbccddeeff");

std::string request(const SubscriberRule& rule, std::uint64_t index, unsigned cseq,
                    std::string_view authorization) {
    const auto imsi = rule.imsi(index);
    return fmt::format(
        "REGISTER sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP 10.30.0.1:5060;branch=z9hG4bK{1}p{2}\r\n"
        "Via: SIP/2.0/UDP 10.10.0.1:5061;branch=z9hG4bK{1}u{2}\r\nMax-Forwards: 69\r\n"
        "From: <sip:{1}@{0}>;tag=abcdef\r\nTo: <sip:{1}@{0}>\r\nCall-ID: {1}@10.10.0.1\r\nCSeq: "
        "{2} REGISTER\r\n"
        "Contact: "
        "<sip:{1}@10.10.0.1:5061>;+sip.instance=\"<urn:gsma:imei:35000000-000000-0>\";expires="
        "600000\r\n"
        "Path: <sip:0123456789abcdef@10.30.0.1:5060;lr>\r\nRequire: path\r\nSupported: path, "
        "gruu\r\n"
        "P-Visited-Network-ID: \"visited.example\"\r\n"
        "P-Charging-Vector: icid-value=\"0123456789abcdef\";icid-generated-at=10.30.0.1\r\n"
        "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010000001\r\n"
        "Allow: INVITE, ACK, CANCEL, BYE, UPDATE, PRACK, MESSAGE, REFER, NOTIFY, INFO, OPTIONS\r\n"
        "Authorization: Digest "
        "username=\"{1}@{0}\",realm=\"{0}\",uri=\"sip:{0}\",{3}\r\nContent-Length: 0\r\n\r\n",
        realm, imsi, cseq, authorization);
}

// A run registers all subscribers once; the phone's own work is outside the clock.
void registration(benchmark::State& state) {
    const auto users = static_cast<std::uint64_t>(state.range(0));
    const auto rule = *SubscriberRule::parse(fmt::format("{}", users), seed, realm);
    Milenage usim;
    DigestCalculator digest;
    for (auto _ : state) {
        state.PauseTiming();
        ManualClock clock;
        TimerWheel wheel(clock);
        SystemRandom random;
        LocalHss hss(random);
        if (!hss.add(*SubscriberRule::parse(fmt::format("{}", users), seed, realm)))
            return state.SkipWithError("subscribers");
        RegistrarConfig config;
        config.service_route = {"sip:orig@10.30.0.2:5060;lr"};
        Registrar registrar(config, hss, wheel, random);
        std::string reply;
        const auto keep = [&](int, std::string_view text) { reply = text; };
        state.ResumeTiming();
        for (std::uint64_t i = 0; i < users; ++i) {
            state.PauseTiming();
            const auto sm1 =
                request(rule, i, 1, "nonce=\"\",response=\"\",integrity-protected=\"no\"");
            state.ResumeTiming();
            registrar.receive(sm1, keep);
            state.PauseTiming();
            sip::Message message;
            message.parse(std::string_view(reply));
            const auto challenge = sip::parse_digest_challenge(
                message.value(sip::HeaderId::www_authenticate).value_or(""));
            if (!challenge) return state.SkipWithError("no challenge");
            const auto octets = *from_base64(*challenge->nonce);
            Rand rand{};
            std::copy_n(octets.begin(), 16, rand.begin());
            usim.set_key(rule.k(i), rule.opc(i));
            const auto impi = rule.impi(i);
            const std::string uri = std::string("sip:") + realm;
            const DigestAnswer a{impi, realm,  *challenge->nonce, uri,
                                 {},   "auth", "00000001",        "0a4f113b"};
            const auto digits =
                *digest.response(digest.ha1(impi, realm, usim.f2345(rand).res), a, "REGISTER", "");
            const auto sm7 = request(
                rule, i, 2,
                fmt::format("nonce=\"{}\",response=\"{}\",qop=auth,nc=00000001,cnonce=\"0a4f113b\","
                            "algorithm=AKAv1-MD5,integrity-protected=\"yes\"",
                            *challenge->nonce, std::string_view(digits.data(), digits.size())));
            state.ResumeTiming();
            registrar.receive(sm7, keep);
        }
        if (registrar.registered() != users) return state.SkipWithError("not all registered");
        state.PauseTiming();
        reply.clear();
        state.ResumeTiming();
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * users));
    state.counters["per_registration"] =
        benchmark::Counter(static_cast<double>(state.iterations() * users),
                           benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(registration)->Arg(1000)->Arg(100'000)->Unit(benchmark::kMillisecond);

// One vector of a generated subscriber: two HMACs, the key schedule, five AES blocks.
void vector(benchmark::State& state) {
    SystemRandom random;
    LocalHss hss(random);
    const auto rule = *SubscriberRule::parse("1", seed, realm);
    if (!hss.add(*SubscriberRule::parse("1", seed, realm)))
        return state.SkipWithError("subscribers");
    const auto impi = rule.impi(0);
    const auto impu = rule.impus(0).front();
    for (auto _ : state) {
        hss.av_request({impi, impu, "sip:scscf.example", 1, nullptr},
                       [](CxResult, std::vector<AuthVector> v) { benchmark::DoNotOptimize(v); });
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}
BENCHMARK(vector);

}  // namespace
}  // namespace gmgate::home

BENCHMARK_MAIN();
