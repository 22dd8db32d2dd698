// RFC 4475, message by message: what we say of each, and why where the RFC leaves a choice.

#include <gtest/gtest.h>

#include <map>

#include "control/sip/build.h"
#include "control/sip/edit.h"
#include "control/sip/values.h"
#include "tests/unit/sip/corpus.h"

namespace gmgate::sip {
namespace {

using test::CorpusFile;
using test::own_corpus;

struct Verdict {
    int code;         // 0: taken; else what check_request / check_response says
    const char* why;  // the RFC's section and the reason
};

const std::map<std::string, Verdict> verdicts{
    // 3.1.1 valid
    {"wsinv.dat", {0, "3.1.1.1 every blank and fold the grammar allows"}},
    {"intmeth.dat", {0, "3.1.1.2 wide range of characters, NUL in a quoted pair among them"}},
    {"esc01.dat", {0, "3.1.1.3 escapes in URIs"}},
    {"escnull.dat", {0, "3.1.1.4 escaped NULs in URIs"}},
    {"esc02.dat", {0, "3.1.1.5 percent signs that are no escapes"}},
    {"lwsdisp.dat", {0, "3.1.1.6 no blank between display name and <"}},
    {"longreq.dat", {0, "3.1.1.7 long values"}},
    {"dblreq.dat", {0, "3.1.1.8 a second request behind Content-Length: cut off"}},
    {"semiuri.dat", {0, "3.1.1.9 semicolon in the user part"}},
    {"transports.dat", {0, "3.1.1.10 all kinds of transports in Via"}},
    {"mpart01.dat", {0, "3.1.1.11 multipart body with binary octets"}},
    {"unreason.dat", {0, "3.1.1.12 reason in UTF-8"}},
    {"noreason.dat", {0, "3.1.1.13 empty reason"}},
    // 3.1.2 invalid
    {"badinv01.dat", {400, "3.1.2.1 stray separators in Via and Contact"}},
    {"clerr.dat", {400, "3.1.2.2 Content-Length larger than the datagram"}},
    {"ncl.dat", {400, "3.1.2.3 negative Content-Length"}},
    {"scalar02.dat", {400, "3.1.2.4 CSeq beyond 2^31, Max-Forwards beyond 255"}},
    {"scalarlg.dat", {400, "3.1.2.5 response with a CSeq beyond 2^31: dropped"}},
    {"quotbal.dat", {400, "3.1.2.6 unbalanced quote in To"}},
    {"ltgtruri.dat", {400, "3.1.2.7 Request-URI in angle brackets"}},
    {"lwsruri.dat", {400, "3.1.2.8 blanks inside the Request-URI"}},
    {"lwsstart.dat", {400, "3.1.2.9 several blanks in the start line"}},
    {"trws.dat", {400, "3.1.2.10 blanks at the end of the start line"}},
    {"escruri.dat", {400, "3.1.2.11 headers in the Request-URI"}},
    {"baddate.dat", {0, "3.1.2.12 Date not in GMT: a field we do not use is not ours to judge"}},
    {"regbadct.dat", {400, "3.1.2.13 Contact with ? and no brackets"}},
    {"badaspec.dat", {400, "3.1.2.14 blanks inside <>"}},
    {"baddn.dat", {400, "3.1.2.15 comma in an unquoted display name"}},
    {"badvers.dat", {505, "3.1.2.16 SIP/7.0"}},
    {"mismatch01.dat", {400, "3.1.2.17 CSeq method is not the request's"}},
    {"mismatch02.dat", {400, "3.1.2.18 the same with an unknown method: 400 allowed beside 501"}},
    {"bigcode.dat", {400, "3.1.2.19 status code beyond 699: dropped"}},
    // 3.2, 3.3, 3.4: sound messages with something wrong in them for somebody
    {"badbranch.dat",
     {0, "3.2.1 branch is the cookie alone: no RFC 3261 branch, matched the old way"}},
    {"insuf.dat", {400, "3.3.1 no Call-ID, From, To"}},
    {"unkscm.dat", {0, "3.3.2 unknown scheme: 416 when routed"}},
    {"novelsc.dat", {0, "3.3.3 known scheme, not ours: 416 when routed"}},
    {"unksm2.dat", {0, "3.3.4 unknown schemes in To, From, Contact: the registrar's to refuse"}},
    {"bext01.dat", {0, "3.3.5 unknown option tags: 420 by whoever is asked"}},
    {"invut.dat", {0, "3.3.6 unknown body type"}},
    {"regaut01.dat", {0, "3.3.7 unknown authentication scheme"}},
    {"multi01.dat", {400, "3.3.8 single headers twice"}},
    {"mcl01.dat", {400, "3.3.9 two Content-Lengths"}},
    {"bcast.dat", {0, "3.3.10 response with a broadcast address in Via"}},
    {"zeromf.dat", {0, "3.3.11 Max-Forwards 0: 483 when routed"}},
    {"cparam01.dat", {0, "3.3.12 REGISTER, unknown header parameter of a Contact"}},
    {"cparam02.dat", {0, "3.3.13 REGISTER, unknown URI parameter of a Contact"}},
    {"regescrt.dat", {0, "3.3.14 REGISTER, escaped header in a Contact URI"}},
    {"sdp01.dat", {0, "3.3.15 unacceptable Accept"}},
    {"inv2543.dat", {0, "3.4.1 RFC 2543: no branch, no tag, no Max-Forwards"}},
};

std::optional<Rejection> check(const Message& m) {
    return m.is_request() ? check_request(m) : check_response(m);
}

// What a P-CSCF does to every request, more or less (E1, E2).
Result<void> proxy_edit(const Message& m, std::string& out) {
    Edit edit(m);
    if (m.is_request()) {
        edit.stamp_top_via(*Endpoint::parse("198.51.100.1:40000"));
        edit.push_via({"SIP/2.0/UDP pcscf.example.com:5060;branch=z9hG4bKours"});
        edit.set_max_forwards(max_forwards(m).value_or(70));
        edit.push_header(HeaderId::path, {"<sip:term@pcscf.example.com;lr>"});
        edit.remove_all(HeaderId::security_client);
        edit.remove_all(HeaderId::security_verify);
        edit.remove_option_tag("sec-agree");
        edit.set_auth_param(HeaderId::authorization, "integrity-protected", "no");
        edit.ensure_content_length();
    } else {
        edit.remove_first_value(HeaderId::via);
        edit.remove_auth_params(HeaderId::www_authenticate, {"ck", "ik"});
    }
    return edit.apply(out);
}

TEST(Torture, EveryMessageIsInTheTableAndTheOtherWayRound) {
    const auto files = own_corpus("/torture", ".dat");
    EXPECT_EQ(files.size(), 49U);
    for (const auto& f : files) EXPECT_TRUE(verdicts.contains(f.name)) << f.name;
    EXPECT_EQ(verdicts.size(), files.size());
}

TEST(Torture, VerdictOfEachMessage) {
    for (const auto& f : own_corpus("/torture", ".dat")) {
        Message m;
        m.parse(f.bytes);
        const auto wanted = verdicts.at(f.name);
        const auto said = check(m);
        EXPECT_EQ(said ? said->code : 0, wanted.code)
            << f.name << ": " << wanted.why << "; we say: " << (said ? said->reason : "fine");
    }
}

TEST(Torture, RoutingVerdicts) {
    const std::map<std::string, int> routed{
        {"unkscm.dat", 416}, {"novelsc.dat", 416}, {"zeromf.dat", 483}};
    for (const auto& f : own_corpus("/torture", ".dat")) {
        Message m;
        if (m.parse(f.bytes) != ParseStatus::ok || !m.is_request() || check_request(m)) continue;
        const auto said = check_routable(m);
        const auto wanted = routed.find(f.name);
        EXPECT_EQ(said ? said->code : 0, wanted == routed.end() ? 0 : wanted->second) << f.name;
    }
}

TEST(Torture, ValidMessagesSurviveTheProxyEdit) {
    for (const auto& f : own_corpus("/torture", ".dat")) {
        Message m;
        m.parse(f.bytes);
        std::string out;
        const auto done = proxy_edit(m, out);
        if (check(m)) continue;  // whatever the edit said, it did not crash
        ASSERT_TRUE(done) << f.name << ": " << done.error().text;
        Message again;
        again.parse(out);
        if (m.is_request()) {
            EXPECT_FALSE(check(again)) << f.name;
            EXPECT_EQ(again.request_uri(), m.request_uri()) << f.name;
            EXPECT_EQ(top_via(again)->branch, "z9hG4bKours") << f.name;
            EXPECT_TRUE(again.has(HeaderId::max_forwards)) << f.name;
            EXPECT_TRUE(again.has(HeaderId::content_length)) << f.name;
        }
        EXPECT_EQ(again.body(), m.body()) << f.name;
        // What nobody touched is there octet for octet.
        for (const auto& h : m.headers()) {
            if (h.id == HeaderId::via || h.id == HeaderId::max_forwards) continue;
            EXPECT_NE(out.find(m.line(h)), std::string::npos) << f.name << ": " << m.line(h);
        }
    }
}

TEST(Torture, InvalidRequestsGetAnAnswerWhereTheyCan) {
    // All but these have the five headers a response copies.
    for (const auto& f : own_corpus("/torture", ".dat")) {
        Message m;
        m.parse(f.bytes);
        const auto said = check(m);
        if (!said || !m.is_request() || !m.answerable()) continue;
        std::string out;
        const auto built =
            build_response(m, said->code, {.reason = said->reason, .to_tag = "t4475"}, out);
        ASSERT_TRUE(built) << f.name << ": " << built.error().text;
        Message response;
        EXPECT_EQ(response.parse(out), ParseStatus::ok) << f.name;
        EXPECT_EQ(response.status_code(), said->code) << f.name;
    }
    Message insufficient;
    insufficient.parse(test::read_file(GMGATE_TEST_DATA "/torture/insuf.dat"));
    EXPECT_FALSE(insufficient.answerable());
}

TEST(Torture, ValuesTheRfcNames) {
    const auto load = [](const char* name, std::string& bytes, Message& m) {
        bytes = test::read_file(std::string(GMGATE_TEST_DATA "/torture/") + name);
        m.parse(bytes);
    };
    std::string bytes;
    Message m;

    load("wsinv.dat", bytes, m);
    EXPECT_EQ(m.count(HeaderId::via), 2U);
    const auto via = top_via(m);
    ASSERT_TRUE(via);
    EXPECT_EQ(via->transport, "UDP");
    EXPECT_EQ(via->host, "192.0.2.2");
    EXPECT_EQ(via->branch, "390skdjuw");
    EXPECT_EQ(max_forwards(m), 68);
    EXPECT_EQ(cseq(m)->number, 9U);
    EXPECT_EQ(cseq(m)->method, "INVITE");
    EXPECT_EQ(to(m)->tag(), "1918181833n");
    EXPECT_EQ(from(m)->tag(), "98asjd8");
    EXPECT_EQ(unescape(from(m)->display), "J Rosenberg \\\"");
    EXPECT_EQ(m.content_length(), 150U);
    std::size_t vias = 0;
    for (const auto& v : m.values(HeaderId::via)) {
        EXPECT_TRUE(parse_via(v.text)) << v.text;
        ++vias;
    }
    EXPECT_EQ(vias, 3U);
    const auto contact = parse_contact(*m.value(HeaderId::contact));
    ASSERT_TRUE(contact);
    EXPECT_EQ(contact->q, 330);

    load("intmeth.dat", bytes, m);
    EXPECT_EQ(m.method(), "!interesting-Method0123456789_*+`.%indeed'~");
    EXPECT_EQ(from(m)->tag(), "_token~1'+`*%!-.");
    EXPECT_EQ(parse_uri(m.request_uri())->host, "example.com");
    EXPECT_EQ(max_forwards(m), 255);

    load("dblreq.dat", bytes, m);
    EXPECT_TRUE(m.body().empty());
    EXPECT_LT(m.bytes().size(), bytes.size());

    load("esc01.dat", bytes, m);
    EXPECT_TRUE(same_identity(to(m)->uri, *parse_uri("sip:user@example.com")));
    EXPECT_EQ(parse_uri(m.request_uri())->user, "sips%3Auser%40example.com");

    load("esc02.dat", bytes, m);
    EXPECT_EQ(m.count(HeaderId::contact), 2U);  // C%6Fntact is another name
    EXPECT_EQ(m.method(), "RE%47IST%45R");

    load("semiuri.dat", bytes, m);
    EXPECT_EQ(parse_uri(m.request_uri())->user, "user;par=u%40example.net");
    std::size_t types = 0;
    for ([[maybe_unused]] const auto& v : m.values(HeaderId::accept)) ++types;
    EXPECT_EQ(types, 6U);

    load("longreq.dat", bytes, m);
    EXPECT_EQ(m.count(HeaderId::via), 34U);

    load("badbranch.dat", bytes, m);
    EXPECT_FALSE(top_via(m)->has_rfc3261_branch());

    load("scalar02.dat", bytes, m);
    EXPECT_EQ(expires(m), std::nullopt);
    EXPECT_EQ(contact_expires(m, *parse_contact(*m.value(HeaderId::contact)), 3600), 3600U);

    load("cparam01.dat", bytes, m);
    EXPECT_TRUE(parse_contact(*m.value(HeaderId::contact))->address.param("unknownparam"));
    load("cparam02.dat", bytes, m);
    EXPECT_FALSE(parse_contact(*m.value(HeaderId::contact))->address.param("unknownparam"));
    EXPECT_TRUE(parse_contact(*m.value(HeaderId::contact))->address.uri.param("unknownparam"));

    load("unreason.dat", bytes, m);
    EXPECT_EQ(m.status_code(), 200);
    EXPECT_TRUE(m.reason().starts_with("= 2**3"));
    load("noreason.dat", bytes, m);
    EXPECT_EQ(m.status_code(), 100);
    EXPECT_EQ(m.reason(), "");
}

}  // namespace
}  // namespace gmgate::sip
