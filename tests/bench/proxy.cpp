// The control plane's cost of what registered phones send each other: a MESSAGE, and a call from
// INVITE to BYE, each from one phone over the home network to another, so twice through the
// gateway. Beside it, in the same run, what libosip2 needs to parse and print the same messages
// once each way.

#include <benchmark/benchmark.h>
#include <osipparser2/osip_parser.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/bench/phones.h"

namespace gmgate {
namespace {

using bench::stop;
using World = bench::Phones<ManualClock>;
constexpr std::uint32_t phones = 1000;

const std::string sdp =
    "v=0\r\no=- 3848 3848 IN IP4 11.0.0.1\r\ns=-\r\nc=IN IP4 11.0.0.1\r\nt=0 0\r\nm=audio 49152 "
    "RTP/AVP 104 110 102 96\r\nb=AS:41\r\na=rtpmap:104 AMR-WB/16000/1\r\na=fmtp:104 "
    "mode-change-capability=2;max-red=0\r\na=rtpmap:110 telephone-event/16000\r\na=rtpmap:102 "
    "AMR/8000/1\r\na=rtpmap:96 telephone-event/8000\r\na=ptime:20\r\na=maxptime:240\r\n"
    "a=sendrecv\r\n";

std::string value_of(const std::string& text, sip::HeaderId id) {
    sip::Message m;
    if (m.parse(std::string_view(text)) != sip::ParseStatus::ok) stop("not SIP", text);
    std::string all;
    for (const sip::Value& v : m.values(id)) all += (all.empty() ? "" : ", ") + std::string(v.text);
    return all;
}

std::string without_first(std::string text, std::string_view header) {
    const auto at = text.find(header);
    if (at == std::string::npos) stop("a header is missing", text);
    return text.erase(at, text.find("\r\n", at) + 2 - at);
}

// One request and its answer(s), from one phone to another.
struct Talk {
    Talk(World& w, std::uint32_t from, std::uint32_t to, std::uint64_t n)
        : world(w), a(from), b(to), number(n) {}

    [[nodiscard]] std::string request(std::string_view method, std::string_view body) {
        const std::string host = bench::phone_address(a).to_string();
        const bool inside = !remote_tag.empty();
        ++cseq;
        const std::string number_text = std::to_string(number);
        const std::string routes =
            inside && !route_set.empty()
                ? route_set
                : "<sip:10.1.0.1:" + std::to_string(world.phones.at(a).port_ps) +
                      ";lr>, <sip:orig@192.0.2.9:6060;lr>";
        const std::uint32_t in_cseq = method == "ACK" ? invite_cseq : cseq;
        if (method == "INVITE") invite_cseq = cseq;
        std::string t = std::string(method) + " " + (inside ? World::contact(b) : World::impu(b)) +
                        " SIP/2.0\r\nVia: SIP/2.0/"
                        "UDP " +
                        host + ":7777;branch=z9hG4bK" + number_text + "x" + std::to_string(cseq) +
                        "\r\nMax-Forwards: 70\r\nRoute: " + routes + "\r\nFrom: <" +
                        World::impu(a) + ">;tag=" + number_text + "\r\nTo: <" + World::impu(b) +
                        ">" + (inside ? ";tag=" + remote_tag : "") + "\r\nCall-ID: " + number_text +
                        "@" + host + "\r\nCSeq: " + std::to_string(in_cseq) + " " +
                        std::string(method) + "\r\nP-Preferred-Identity: <" + World::impu(a) +
                        ">\r\nP-Access-Network-Info: 3GPP-E-UTRAN-FDD; "
                        "utran-cell-id-3gpp=0010100010000001\r\nUser-Agent: bench\r\n";
        if (method == "INVITE" || method == "UPDATE") {
            t += "Contact: <" + World::contact(a) +
                 ">;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"\r\nSupported: "
                 "100rel, timer\r\nAllow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE, MESSAGE, "
                 "OPTIONS\r\n";
        }
        if (method == "PRACK") t += "RAck: 1 " + std::to_string(invite_cseq) + " INVITE\r\n";
        if (!body.empty())
            t += method == "MESSAGE" ? "Content-Type: text/plain\r\n"
                                     : "Content-Type: application/sdp\r\n";
        return t + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
               std::string(body);
    }
    // From the phone a over gateway and home to the phone b.
    void send(std::string_view method, std::string_view body = {}) {
        std::string text = request(method, body);
        keep(text);
        world.from_gm(world.on_sa(a), std::move(text));
        // The home passes it on by b's Path, with a Via and a Record-Route of its own.
        std::string over = world.core.last;
        if (!over.starts_with(method)) stop("the request did not reach the core", over);
        sip::Message m;
        if (m.parse(std::string_view(over)) != sip::ParseStatus::ok) stop("not SIP", over);
        while (over.find("\r\nRoute:") != std::string::npos) over = without_first(over, "Route:");
        const auto uri = over.find(' ') + 1;
        over.replace(uri, over.find(' ', uri) - uri, World::contact(b));
        over.insert(over.find("\r\n") + 2,
                    "Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKhome" + std::to_string(number) +
                        "x" + std::to_string(cseq) + "\r\nRoute: " + world.phones.at(b).path +
                        "\r\n" +
                        (method == "INVITE" ? "Record-Route: <sip:192.0.2.9:6060;lr>\r\n" : ""));
        keep(over);
        world.from_core(std::move(over));
        if (!world.gm.last.starts_with(method)) stop("the request did not reach b", world.gm.last);
        if (method != "ACK") asked[std::string(method)] = world.gm.last;
    }
    // b answers a's request of that method.
    void answer(const std::string& method, int status, std::string_view headers = {},
                std::string_view body = {}) {
        sip::Message m;
        const std::string& request = asked.at(method);
        std::string out;
        sip::ResponseOptions options;
        options.to_tag = "b";
        options.copy_record_route = true;
        options.body = body;
        if (!body.empty()) options.content_type = "application/sdp";
        if (m.parse(std::string_view(request)) != sip::ParseStatus::ok ||
            !sip::build_response(m, status, options, out))
            stop("cannot be answered", request);
        if (method == "INVITE")
            out.insert(out.find("Content-Length"), "Contact: <" + World::contact(b) + ">\r\n");
        out.insert(out.find("Content-Length"), headers);
        keep(out);
        world.from_gm(world.answers_on_sa(b), std::move(out));
        std::string back = without_first(world.core.last, "Via:");  // the home's own
        if (!back.starts_with("SIP/2.0 " + std::to_string(status))) stop("no answer", back);
        keep(back);
        world.from_core(std::move(back));
        if (!world.gm.last.starts_with("SIP/2.0 " + std::to_string(status)))
            stop("no answer to a", world.gm.last);
        if (method == "INVITE" && remote_tag.empty()) {
            remote_tag = "b";
            std::vector<std::string> routes;
            const std::string list = value_of(world.gm.last, sip::HeaderId::record_route);
            sip::ValueSplitter splitter(list);
            while (const auto v = splitter.next()) routes.emplace_back(*v);
            for (auto r = routes.rbegin(); r != routes.rend(); ++r)
                route_set += (route_set.empty() ? "" : ", ") + *r;
        }
    }
    void message() {
        send("MESSAGE", "See you at eight, at the usual place.");
        answer("MESSAGE", 200);
    }
    void begin_call() {
        send("INVITE", sdp);
        answer("INVITE", 180, "Require: 100rel\r\nRSeq: 1\r\n");
        send("PRACK");
        answer("PRACK", 200);
        answer("INVITE", 200, {}, sdp);
        send("ACK");
    }
    void end_call() {
        send("BYE");
        answer("BYE", 200);
    }
    void keep(const std::string& text) {
        if (messages != nullptr) messages->push_back(text);
    }

    World& world;
    std::uint32_t a;
    std::uint32_t b;
    std::uint64_t number;
    std::uint32_t cseq = 0;
    std::uint32_t invite_cseq = 0;
    std::string remote_tag;
    std::string route_set;
    std::map<std::string, std::string> asked;
    std::vector<std::string>* messages = nullptr;  // what comes into the gateway
};

void enroll(World& world) {
    for (std::uint32_t n = 0; n < phones; ++n) {
        world.enroll(n);
        world.timers.advance(64);
    }
    // Their transactions end.
    world.clock.advance(std::chrono::seconds(40));
    while (world.timers.advance()) {
    }
}

// Everything that came into the gateway for one talk, by libosip2: parsed and printed.
double osip_seconds(const std::vector<std::string>& messages, std::size_t rounds) {
    const auto start = bench::cpu();
    for (std::size_t i = 0; i < rounds; ++i) {
        for (const std::string& text : messages) {
            osip_message_t* m = nullptr;
            if (osip_message_init(&m) != 0) stop("libosip2", "init");
            if (osip_message_parse(m, text.data(), text.size()) != 0) stop("libosip2", text);
            char* out = nullptr;
            std::size_t length = 0;
            osip_message_force_update(m);
            if (osip_message_to_str(m, &out, &length) != 0) stop("libosip2", text);
            osip_free(out);
            osip_message_free(m);
        }
    }
    return std::chrono::duration<double>(bench::cpu() - start).count() /
           static_cast<double>(rounds);
}

template <class Act>
void proxied(benchmark::State& state, const Act& act, const char* per_second) {
    World world;
    enroll(world);
    std::vector<std::string> messages;
    {
        Talk sample(world, 0, 1, 1);
        sample.messages = &messages;
        act(sample);
    }
    const std::size_t traced = world.gateway->trace().recorded();
    std::uint64_t n = 1;
    double total = 0;
    for (auto _ : state) {
        ++n;
        world.spent = {};
        Talk talk(world, static_cast<std::uint32_t>(n * 7 % phones),
                  static_cast<std::uint32_t>((n * 7 + 1) % phones), n);
        act(talk);
        // The timers of its transactions are the gateway's work, too.
        world.clock.advance(std::chrono::milliseconds(20));
        const auto start = bench::cpu();
        while (world.timers.advance()) {
        }
        world.spent += bench::cpu() - start;
        const double seconds = std::chrono::duration<double>(world.spent).count();
        state.SetIterationTime(seconds);
        total += seconds;
    }
    const auto rounds = static_cast<double>(n - 1);
    const double reference = osip_seconds(messages, 2000);
    state.counters[per_second] = rounds / total;
    state.counters["messages_in"] = static_cast<double>(messages.size());
    state.counters["us_libosip2"] = reference * 1e6;
    state.counters["ratio_to_libosip2"] = total / rounds / reference;
    state.counters["traced"] =
        static_cast<double>(world.gateway->trace().recorded() - traced) / rounds;
}

void message_proxied(benchmark::State& state) {
    proxied(state, [](Talk& t) { t.message(); }, "messages_per_cpu_second");
}
BENCHMARK(message_proxied)
    ->UseManualTime()
    ->Iterations(bench::rounds(20'000))
    ->Unit(benchmark::kMicrosecond);

void call_proxied(benchmark::State& state) {
    proxied(
        state,
        [](Talk& t) {
            t.begin_call();
            t.end_call();
        },
        "calls_per_cpu_second");
}
BENCHMARK(call_proxied)
    ->UseManualTime()
    ->Iterations(bench::rounds(5'000))
    ->Unit(benchmark::kMicrosecond);

// What calls that are under way hold: a dialog on the caller's side and one on the callee's. First
// with their transactions, then alone.
void memory_per_call(benchmark::State& state) {
    for (auto _ : state) {
        World world;
        enroll(world);
        const std::size_t before = bench::held();
        constexpr std::uint64_t calls = 15'000;  // within 32 dialogs a user
        for (std::uint64_t n = 1; n <= calls; ++n) {
            Talk talk(world, static_cast<std::uint32_t>(n % phones),
                      static_cast<std::uint32_t>((n + 1) % phones), n);
            talk.begin_call();
        }
        const std::size_t full = bench::held();
        const std::size_t transactions = world.gateway->transactions();
        const std::size_t dialogs = world.gateway->dialogs();
        state.counters["dialogs"] = static_cast<double>(dialogs);
        state.counters["octets_per_dialog"] =
            static_cast<double>(world.gateway->dialog_octets()) / static_cast<double>(dialogs);
        state.counters["transactions"] = static_cast<double>(transactions);
        state.counters["octets_per_transaction"] =
            static_cast<double>(full - before - world.gateway->dialog_octets()) /
            static_cast<double>(transactions);
        world.clock.advance(std::chrono::seconds(40));
        while (world.timers.advance()) {
        }
        state.counters["transactions_after_40s"] =
            static_cast<double>(world.gateway->transactions());
        state.counters["dialogs_after_40s"] = static_cast<double>(world.gateway->dialogs());
    }
}
BENCHMARK(memory_per_call)->Iterations(1)->Unit(benchmark::kSecond);

// The subscription to a user's registration state (E5): by comparison with gateways that have none.
void memory_of_reg_event(benchmark::State& state) {
    constexpr std::uint32_t many = 50'000;
    const auto per_user = [](bool subscribed) {
        bench::Phones<ManualClock> world([&](registration::Policy& p) {
            if (subscribed) p.reg_event = sip::RegProfile::rfc3680;
        });
        const std::size_t before = bench::held();
        for (std::uint32_t n = 0; n < many; ++n) {
            world.enroll(n);
            world.clock.advance(std::chrono::milliseconds(1));
            while (world.timers.advance()) {
            }
            if (!subscribed) continue;
            if (!world.core.last.starts_with("SUBSCRIBE")) stop("SUBSCRIBE", world.core.last);
            world.from_core(bench::home_answer(
                world.core.last, 200,
                "Contact: <sip:192.0.2.9:6060>\r\nRecord-Route: <sip:192.0.2.9:6060;lr>\r\n"
                "Expires: 600000\r\n"));
        }
        world.clock.advance(std::chrono::seconds(40));
        while (world.timers.advance()) {
        }
        return static_cast<double>(bench::held() - before) / many;
    };
    for (auto _ : state) {
        const double without = per_user(false);
        state.counters["octets_per_user_without"] = without;
        state.counters["octets_per_user_with"] = per_user(true);
    }
}
BENCHMARK(memory_of_reg_event)->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace gmgate

int main(int argc, char** argv) {
    parser_init();
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
