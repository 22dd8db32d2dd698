// libosip2's whole-message parse as the judge of ours: both must read the same start line, the same
// number of headers, the same Vias and CSeq, in every corpus message; where they do not, the reason
// stands in a table.

#include <gtest/gtest.h>

#include <cstdarg>
#include <map>
#include <memory>
#include <set>

extern "C" {
#include <osipparser2/osip_parser.h>
}

#include "base/bytes.h"
#include "control/sip/values.h"
#include "tests/unit/sip/corpus.h"

namespace gmgate::sip {
namespace {

using test::corpus;
using test::CorpusFile;
using test::own_corpus;

struct OsipFree {
    void operator()(osip_message_t* m) const { osip_message_free(m); }
};
using OsipMessage = std::unique_ptr<osip_message_t, OsipFree>;

void silence(const char*, int, osip_trace_level_t, const char*, va_list) {}

OsipMessage judge(const std::string& bytes) {
    // Its complaints about the torture messages are what we ask for, not output of this test.
    static const int ready = (osip_trace_initialize_func(TRACE_LEVEL0, &silence), parser_init());
    EXPECT_EQ(ready, 0);
    osip_message_t* m = nullptr;
    if (osip_message_init(&m) != 0) return nullptr;
    OsipMessage owner(m);
    if (osip_message_parse(m, bytes.data(), bytes.size()) != 0) return nullptr;
    return owner;
}

std::string str(const char* s) {
    return s == nullptr ? "" : s;
}

std::size_t size_of(const osip_list_t& list) {
    return static_cast<std::size_t>(osip_list_size(&list));
}

// How many values (comma lists) or lines (all others) of that header we see.
std::size_t ours(const Message& m, HeaderId id) {
    if (!is_comma_list(id)) return m.count(id);
    std::size_t n = 0;
    for ([[maybe_unused]] const auto& v : m.values(id)) ++n;
    return n;
}

// The same for the judge; it keeps common headers in lists of their own and the others under their
// names.
std::size_t theirs(const osip_message_t& o, HeaderId id) {
    switch (id) {
        case HeaderId::via:
            return size_of(o.vias);
        case HeaderId::route:
            return size_of(o.routes);
        case HeaderId::record_route:
            return size_of(o.record_routes);
        case HeaderId::contact:
            return size_of(o.contacts);
        case HeaderId::accept:
            return size_of(o.accepts);
        case HeaderId::accept_encoding:
            return size_of(o.accept_encodings);
        case HeaderId::accept_language:
            return size_of(o.accept_languages);
        case HeaderId::alert_info:
            return size_of(o.alert_infos);
        case HeaderId::allow:
            return size_of(o.allows);
        case HeaderId::authorization:
            return size_of(o.authorizations);
        case HeaderId::call_info:
            return size_of(o.call_infos);
        case HeaderId::content_encoding:
            return size_of(o.content_encodings);
        case HeaderId::error_info:
            return size_of(o.error_infos);
        case HeaderId::proxy_authenticate:
            return size_of(o.proxy_authenticates);
        case HeaderId::proxy_authorization:
            return size_of(o.proxy_authorizations);
        case HeaderId::www_authenticate:
            return size_of(o.www_authenticates);
        case HeaderId::authentication_info:
            return size_of(o.authentication_infos);
        case HeaderId::call_id:
            return o.call_id != nullptr ? 1 : 0;
        case HeaderId::cseq:
            return o.cseq != nullptr ? 1 : 0;
        case HeaderId::from:
            return o.from != nullptr ? 1 : 0;
        case HeaderId::to:
            return o.to != nullptr ? 1 : 0;
        case HeaderId::content_length:
            return o.content_length != nullptr ? 1 : 0;
        case HeaderId::content_type:
            return o.content_type != nullptr ? 1 : 0;
        case HeaderId::mime_version:
            return o.mime_version != nullptr ? 1 : 0;
        default:
            break;
    }
    std::size_t n = 0;
    for (int i = 0; i < osip_list_size(&o.headers); ++i) {
        const auto* h = static_cast<const osip_header_t*>(osip_list_get(&o.headers, i));
        if (header_id(str(h->hname)) == id) ++n;
    }
    return n;
}

// Differences of one message, one text each; empty: they agree.
std::vector<std::string> compare(const Message& m, const osip_message_t& o) {
    std::vector<std::string> d;
    const auto differ = [&d](const std::string& what, const std::string& we,
                             const std::string& they) {
        if (we != they) d.push_back(what + ": we " + we + ", judge " + they);
    };
    if (m.is_request()) {
        differ("method", std::string(m.method()), str(o.sip_method));
        char* uri = nullptr;
        if (o.req_uri != nullptr && osip_uri_to_str(o.req_uri, &uri) == 0) {
            differ("request uri", std::string(m.request_uri()), uri);
            osip_free(uri);
        }
    } else {
        differ("status", std::to_string(m.status_code()), std::to_string(o.status_code));
        differ("reason", std::string(m.reason()), str(o.reason_phrase));
    }
    for (std::size_t i = 1; i < header_id_count; ++i) {
        const auto id = static_cast<HeaderId>(i);
        differ("count " + std::string(header_name(id)), std::to_string(ours(m, id)),
               std::to_string(theirs(o, id)));
    }
    int n = 0;
    for (const auto& v : m.values(HeaderId::via)) {
        const auto* via = static_cast<const osip_via_t*>(osip_list_get(&o.vias, n++));
        const auto parsed = parse_via(v.text);
        if (via == nullptr || !parsed) {
            differ("via", parsed ? "read" : "refused", via != nullptr ? "read" : "refused");
            continue;
        }
        differ("via transport", std::string(parsed->transport), str(via->protocol));
        auto host = std::string(parsed->host);
        if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
        differ("via host", host, str(via->host));
        differ("via port", parsed->port == 0 ? "" : std::to_string(parsed->port), str(via->port));
        osip_generic_param_t* branch = nullptr;
        osip_via_param_get_byname(const_cast<osip_via_t*>(via), const_cast<char*>("branch"),
                                  &branch);
        differ("via branch", std::string(parsed->branch),
               branch == nullptr ? "" : str(branch->gvalue));
    }
    const auto sequence = cseq(m);
    if (sequence && o.cseq != nullptr) {
        differ("cseq number", std::to_string(sequence->number),
               std::to_string(std::strtoul(o.cseq->number, nullptr, 10)));
        differ("cseq method", std::string(sequence->method), str(o.cseq->method));
    } else if (m.has(HeaderId::cseq)) {
        differ("cseq", sequence ? "read" : "refused", o.cseq != nullptr ? "read" : "refused");
    }
    return d;
}

struct Known {
    const char*
        difference;  // begins a text of compare(), or "refused" / "taken" for the judge's verdict
    const char* reason;
};

// Where we index and the judge refuses, check_request() refuses too unless the reason says
// otherwise (torture_test.cpp).
const std::multimap<std::string, Known> known{
    {"badaspec.dat",
     {"refused", "the judge reads To while indexing; we refuse it in check_request()"}},
    {"baddn.dat", {"refused", "the same for From and To"}},
    {"badinv01.dat", {"refused", "the same for Via"}},
    {"multi01.dat",
     {"refused", "the judge ends at the second Call-ID; we refuse it in check_request()"}},
    {"quotbal.dat",
     {"refused", "the judge reads To while indexing; we refuse it in check_request()"}},
    {"badvers.dat", {"taken", "the judge leaves the version to its user; we answer 505"}},
    {"bigcode.dat", {"taken", "the judge lets the status code overflow"}},
    {"ncl.dat", {"taken", "the judge takes a negative Content-Length for none"}},
    {"intmeth.dat",
     {"refused",
      "the judge's C strings end at the NUL of a quoted pair; the message is valid, we take it"}},
    {"novelsc.dat",
     {"refused",
      "the judge knows only some URI schemes; the message is valid, we answer 416 when routing"}},
    {"inv2543.dat", {"count Content-Length", "the judge adds one of its own when there is none"}},
    {"scalar02.dat", {"cseq", "the judge keeps the number as text; beyond 2^31 we refuse it"}},
    {"scalarlg.dat", {"cseq", "the same in a response"}},
};

void run(const std::vector<CorpusFile>& files) {
    for (const auto& f : files) {
        Message m;
        const auto status = m.parse(f.bytes);
        std::vector<std::string> differences;
        const auto o = judge(f.bytes);
        if (o == nullptr) {
            if (status == ParseStatus::ok) differences.emplace_back("refused by the judge");
        } else if (status != ParseStatus::ok) {
            differences.push_back("taken by the judge, we: " + std::string(text(status)));
        } else {
            differences = compare(m, *o);
        }
        const auto [begin, end] = known.equal_range(f.name);
        std::set<const Known*> used;
        for (const auto& d : differences) {
            const auto hit = std::find_if(
                begin, end, [&](const auto& k) { return d.starts_with(k.second.difference); });
            if (hit == end) {
                ADD_FAILURE() << f.name << ": " << d;
            } else {
                used.insert(&hit->second);
            }
        }
        for (auto k = begin; k != end; ++k) {
            EXPECT_TRUE(used.contains(&k->second))
                << f.name << ": no longer differs: " << k->second.difference;
        }
    }
}

TEST(Judge, TortureMessages) {
    run(own_corpus("/torture", ".dat"));
}
TEST(Judge, HandsetMessages) {
    run(own_corpus("/handsets", ".sip"));
}

TEST(Judge, HandsetMessagesOfTheCorpora) {
    const auto files = corpus(GMGATE_CORPORA "/handsets", ".sip");
    if (files.empty())
        GTEST_SKIP() << "the collection of recorded messages (corpora) does not lie beside the "
                        "checkout; the project's own messages are tested in any case";
    run(files);
}

}  // namespace
}  // namespace gmgate::sip
