// A REGISTER through the control plane's hands: index, the values a P-CSCF needs, its edit, against
// what libosip2 takes to parse and print the same message in the same run; and the single steps.
// Ratios are printed at the end.

#include <benchmark/benchmark.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

extern "C" {
#include <osipparser2/osip_parser.h>
}

#include "control/secagree/mechanism.h"
#include "control/sip/build.h"
#include "control/sip/edit.h"
#include "control/sip/framer.h"
#include "control/sip/values.h"

namespace {

using namespace gmgate;
using namespace gmgate::sip;

// SM7 as a phone sends it: about 1.4 KB, protected, with Security-Client and Security-Verify.
const std::string register_message =
    "REGISTER sip:ims.mnc099.mcc999.3gppnetwork.org SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.6:50001;rport;branch=z9hG4bKlzx5bBhnRhUj7B\r\n"
    "Max-Forwards: 70\r\n"
    "From: <sip:999990000000002@ims.mnc099.mcc999.3gppnetwork.org>;tag=87hXmnpTnRpLPA\r\n"
    "To: <sip:999990000000002@ims.mnc099.mcc999.3gppnetwork.org>\r\n"
    "Call-ID: sScu5FiYZZKXtj1DsyA@192.0.2.6\r\n"
    "CSeq: 2 REGISTER\r\n"
    "Contact: "
    "<sip:999990000000002@192.0.2.6:50001>;+sip.instance=\"<urn:gsma:imei:35000000-000002-0>\""
    ";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";+g.3gpp.smsip;audio\r\n"
    "Expires: 600000\r\n"
    "Supported: path, gruu, sec-agree\r\n"
    "Require: sec-agree\r\n"
    "Proxy-Require: sec-agree\r\n"
    "Authorization: Digest "
    "username=\"999990000000002@ims.mnc099.mcc999.3gppnetwork.org\",realm=\"ims.mnc099.mcc999."
    "3gppnetwork.org\""
    ",nonce=\"KBdnIyppR5T1v4wsr0DCIKvGvtjeMAAAAbJwt4v710I=\",uri=\"sip:ims.mnc099.mcc999."
    "3gppnetwork.org\",qop=auth,nc=00000001"
    ",cnonce=\"5d41402abc4b2a76\",response=\"6629fae49393a05397450978507c4ef1\",algorithm=AKAv1-"
    "MD5\r\n"
    "Security-Client: "
    "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c=1600000002;spi-s=1900000002;port-c=50000;port-"
    "s=50001"
    ",ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;spi-c=1600000002;spi-s=1900000002;port-c=50000;port-s="
    "50001\r\n"
    "Security-Verify: "
    "ipsec-3gpp;q=0.9;alg=hmac-sha-1-96;ealg=null;prot=esp;mod=trans;spi-c=67108865;spi-s=67108866;"
    "port-c=7100;port-s=7200\r\n"
    "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=999990001000000A\r\n"
    "User-Agent: VoLTE/WFC UA\r\n"
    "Content-Length: 0\r\n\r\n";

const Endpoint source = *Endpoint::parse("192.0.2.6:50001");

void read_values(const Message& m) {
    benchmark::DoNotOptimize(top_via(m));
    benchmark::DoNotOptimize(cseq(m));
    benchmark::DoNotOptimize(call_id(m));
    benchmark::DoNotOptimize(from(m));
    benchmark::DoNotOptimize(to(m));
    benchmark::DoNotOptimize(max_forwards(m));
    benchmark::DoNotOptimize(expires(m));
    for (const auto& v : m.values(HeaderId::contact))
        benchmark::DoNotOptimize(parse_contact(v.text));
    benchmark::DoNotOptimize(parse_digest_credentials(*m.value(HeaderId::authorization)));
}

void edit_into(const Message& m, std::string& out) {
    Edit edit(m);
    edit.stamp_top_via(source);
    edit.push_via({"SIP/2.0/UDP pcscf.example.net:5060;branch=z9hG4bK", "0123456789abcdef"});
    edit.set_max_forwards(69);
    edit.push_header(HeaderId::path, {"<sip:", "8a6f3c2b", "@pcscf.example.net:5060;lr>"});
    edit.append_header("Require", {"path"});
    edit.append_header("P-Visited-Network-ID", {"\"visited.example.net\""});
    edit.append_header("P-Charging-Vector", {"icid-value=", "0123456789abcdef"});
    edit.remove_all(HeaderId::security_client);
    edit.remove_all(HeaderId::security_verify);
    edit.remove_option_tag("sec-agree");
    edit.set_auth_param(HeaderId::authorization, "integrity-protected", "yes");
    if (!edit.apply(out)) std::abort();
}

void index_only(benchmark::State& state) {
    Message m;
    for (auto _ : state) {
        m.parse(register_message);
        benchmark::DoNotOptimize(m);
    }
}

void values_only(benchmark::State& state) {
    Message m;
    m.parse(register_message);
    for (auto _ : state) read_values(m);
}

void check_only(benchmark::State& state) {
    Message m;
    m.parse(register_message);
    for (auto _ : state) benchmark::DoNotOptimize(check_request(m));
}

void edit_only(benchmark::State& state) {
    Message m;
    m.parse(register_message);
    std::string out;
    for (auto _ : state) {
        edit_into(m, out);
        benchmark::DoNotOptimize(out.data());
    }
}

void secagree_only(benchmark::State& state) {
    Message m;
    m.parse(register_message);
    secagree::MechanismList list;
    for (auto _ : state) {
        list.parse(m, HeaderId::security_client);
        benchmark::DoNotOptimize(list);
    }
}

void register_ours(benchmark::State& state) {
    Message m;
    std::string out;
    for (auto _ : state) {
        m.parse(register_message);
        read_values(m);
        edit_into(m, out);
        benchmark::DoNotOptimize(out.data());
    }
}

void response_ours(benchmark::State& state) {
    Message m;
    m.parse(register_message);
    std::string out;
    for (auto _ : state) {
        if (!build_response(m, 403, {.to_tag = "0123456789", .source = source}, out)) std::abort();
        benchmark::DoNotOptimize(out.data());
    }
}

void stream_ours(benchmark::State& state) {
    StreamFramer framer;
    for (auto _ : state) {
        framer.feed(register_message);
        while (framer.next().kind == FrameKind::message) {
        }
    }
}

void register_osip(benchmark::State& state) {
    parser_init();
    for (auto _ : state) {
        osip_message_t* m = nullptr;
        osip_message_init(&m);
        if (osip_message_parse(m, register_message.data(), register_message.size()) != 0)
            std::abort();
        char* out = nullptr;
        std::size_t size = 0;
        osip_message_force_update(m);
        if (osip_message_to_str(m, &out, &size) != 0) std::abort();
        benchmark::DoNotOptimize(out);
        osip_free(out);
        osip_message_free(m);
    }
}

// libosip2's value parsers alone, from a bump arena behind its allocator hooks: what the same
// values cost that way.
struct Arena {
    static constexpr std::size_t size = 64 * 1024;
    alignas(16) char bytes[size];
    std::size_t used;
};
thread_local Arena arena;  // NOLINT: benchmark only

void* arena_allocate(std::size_t n) {
    n = (n + 31) & ~std::size_t{15};  // 16 octets in front hold the size, for realloc
    if (arena.used + n > Arena::size) std::abort();
    char* p = arena.bytes + arena.used;
    arena.used += n;
    std::memcpy(p, &n, sizeof(n));
    return p + 16;
}
void* arena_resize(void* old, std::size_t n) {
    void* p = arena_allocate(n);
    if (old != nullptr) {
        std::size_t was = 0;
        std::memcpy(&was, static_cast<char*>(old) - 16, sizeof(was));
        std::memcpy(p, old, was - 16 < n ? was - 16 : n);
    }
    return p;
}
void arena_release(void*) {}

void values_osip_arena(benchmark::State& state) {
    parser_init();
    osip_malloc_func_t* const malloc_before = osip_malloc_func;
    osip_realloc_func_t* const realloc_before = osip_realloc_func;
    osip_free_func_t* const free_before = osip_free_func;
    osip_set_allocators(&arena_allocate, &arena_resize, &arena_release);
    Message m;
    m.parse(register_message);
    // Its parsers want C strings: the copies count, as a caller would have to make them.
    const auto text = [&m](HeaderId id) {
        const auto v = *m.value(id);
        char* copy = static_cast<char*>(arena_allocate(v.size() + 1));
        std::memcpy(copy, v.data(), v.size());
        copy[v.size()] = '\0';
        return copy;
    };
    for (auto _ : state) {
        arena.used = 0;
        osip_via_t* via = nullptr;
        osip_via_init(&via);
        osip_from_t* from_header = nullptr;
        osip_from_init(&from_header);
        osip_to_t* to_header = nullptr;
        osip_to_init(&to_header);
        osip_contact_t* contact = nullptr;
        osip_contact_init(&contact);
        osip_cseq_t* sequence = nullptr;
        osip_cseq_init(&sequence);
        osip_authorization_t* authorization = nullptr;
        osip_authorization_init(&authorization);
        int rc = osip_via_parse(via, text(HeaderId::via));
        rc |= osip_from_parse(from_header, text(HeaderId::from));
        rc |= osip_to_parse(to_header, text(HeaderId::to));
        rc |= osip_contact_parse(contact, text(HeaderId::contact));
        rc |= osip_cseq_parse(sequence, text(HeaderId::cseq));
        rc |= osip_authorization_parse(authorization, text(HeaderId::authorization));
        if (rc != 0) std::abort();
        benchmark::DoNotOptimize(authorization);
    }
    osip_set_allocators(malloc_before, realloc_before, free_before);
}

BENCHMARK(index_only);
BENCHMARK(values_only);
BENCHMARK(values_osip_arena);
BENCHMARK(check_only);
BENCHMARK(edit_only);
BENCHMARK(secagree_only);
BENCHMARK(response_ours);
BENCHMARK(stream_ours);
BENCHMARK(register_ours);
BENCHMARK(register_osip);

// Keeps the CPU time of each benchmark for the ratios.
class Reporter : public benchmark::ConsoleReporter {
  public:
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const auto& r : runs) {
            if (r.run_type != Run::RT_Iteration) continue;
            auto& best = times_[r.benchmark_name()];
            const double t = r.GetAdjustedCPUTime();
            best = best == 0 || t < best ? t : best;
        }
        ConsoleReporter::ReportRuns(runs);
    }
    void ratio(const char* slow, const char* fast, const char* what) const {
        const auto a = times_.find(slow);
        const auto b = times_.find(fast);
        if (a == times_.end() || b == times_.end()) return;
        std::printf("%-62s %8.0f ns / %6.0f ns = %5.1f\n", what, a->second, b->second,
                    a->second / b->second);
    }

  private:
    std::map<std::string, double> times_;
};

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    Reporter reporter;
    benchmark::RunSpecifiedBenchmarks(&reporter);
    std::printf("\nREGISTER of %zu octets; best of the repetitions\n", register_message.size());
    reporter.ratio("register_osip", "register_ours",
                   "libosip2 parse + print / our index + values + edit");
    reporter.ratio("values_osip_arena", "values_only",
                   "libosip2 value parsers on an arena / our value parsers");
    return 0;
}
