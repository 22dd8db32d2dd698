#include "control/sip/values.h"

#include <gtest/gtest.h>

#include "tests/unit/sip/corpus.h"

namespace gmgate::sip {
namespace {

TEST(NumberTest, DigitsOnlyWithinTheLimit) {
    EXPECT_EQ(parse_number("0"), 0U);
    EXPECT_EQ(parse_number("0000012345"), 12345U);
    EXPECT_EQ(parse_number("4294967295"), 4294967295U);
    EXPECT_EQ(parse_number("00000000000000000000000000004294967295"), 4294967295U);
    EXPECT_EQ(parse_number("4294967296"), std::nullopt);
    EXPECT_EQ(parse_number("256", 255), std::nullopt);
    for (const auto* bad :
         {"", " 1", "1 ", "-1", "+1", "0x1", "1a", "99999999999999999999999999999999"}) {
        EXPECT_EQ(parse_number(bad), std::nullopt) << bad;
    }
}

TEST(QTest, Thousandths) {
    EXPECT_EQ(parse_q("0.5"), 500);
    EXPECT_EQ(parse_q("1"), 1000);
    EXPECT_EQ(parse_q("1.000"), 1000);
    EXPECT_EQ(parse_q("0.001"), 1);
    EXPECT_EQ(parse_q(".25"), 250);
    EXPECT_EQ(parse_q("0."), 0);
    for (const auto* bad : {"", ".", "1.001", "2", "0.0001", "-1", "a", "0.5.5", "10"})
        EXPECT_EQ(parse_q(bad), std::nullopt) << bad;
}

TEST(ParamTest, NamesValuesQuotesAndBlanks) {
    ParamReader r("; a = b;c;d=\"x;\\\"y\" ;e=");
    auto p = r.next();
    ASSERT_TRUE(p);
    EXPECT_EQ(p->name, "a");
    EXPECT_EQ(p->value, "b");
    EXPECT_EQ(p->whole, "a = b");
    p = r.next();
    ASSERT_TRUE(p);
    EXPECT_EQ(p->name, "c");
    EXPECT_FALSE(p->has_value);
    p = r.next();
    ASSERT_TRUE(p);
    EXPECT_TRUE(p->quoted);
    EXPECT_EQ(p->value, "x;\\\"y");
    EXPECT_EQ(p->whole, "d=\"x;\\\"y\"");
    EXPECT_EQ(unescape(p->value), "x;\"y");
    p = r.next();
    ASSERT_TRUE(p);
    EXPECT_TRUE(p->has_value);
    EXPECT_EQ(p->value, "");
    EXPECT_FALSE(r.next());
    EXPECT_FALSE(r.bad());
    EXPECT_EQ(find_param(";Tag=1;tag=2", "tag")->value, "1");
    EXPECT_FALSE(find_param(";tagx=1", "tag"));
    for (const auto* bad :
         {"a", ";", ";;", ";a;", ";a=\"b", ";a=\"b\\\"", ";a=b c", ";a=\"b\"c", ";=b", ";a,b"}) {
        ParamReader reader(bad);
        while (reader.next()) {
        }
        EXPECT_TRUE(reader.bad()) << bad;
    }
}

TEST(UriTest, Parts) {
    auto u = parse_uri("sip:alice:secret@[2001:db8::1]:5070;lr;transport=tcp?X=y");
    ASSERT_TRUE(u);
    EXPECT_EQ(u->scheme, Scheme::sip);
    EXPECT_EQ(u->user, "alice");
    EXPECT_EQ(u->password, "secret");
    EXPECT_EQ(u->host, "[2001:db8::1]");
    EXPECT_EQ(u->port, 5070);
    EXPECT_TRUE(u->param("lr"));
    EXPECT_EQ(u->param("TRANSPORT")->value, "tcp");
    EXPECT_EQ(u->headers, "X=y");
    EXPECT_EQ(u->address_of_record(), "alice@[2001:db8::1]");
    u = parse_uri("SIPS:home.example");
    ASSERT_TRUE(u);
    EXPECT_EQ(u->scheme, Scheme::sips);
    EXPECT_EQ(u->user, "");
    EXPECT_EQ(u->port, 0);
    u = parse_uri("tel:+1-201-555-0123;phone-context=example.com");
    ASSERT_TRUE(u);
    EXPECT_EQ(u->scheme, Scheme::tel);
    EXPECT_EQ(u->user, "+1-201-555-0123");
    EXPECT_EQ(u->param("phone-context")->value, "example.com");
    u = parse_uri("urn:service:sos.police");
    ASSERT_TRUE(u);
    EXPECT_EQ(u->scheme, Scheme::urn);
    EXPECT_EQ(u->user, "service:sos.police");
    EXPECT_EQ(parse_uri("http://x")->scheme, Scheme::other);
    for (const auto* bad :
         {"",          "sip",       "sip:",           ":x",          "sip:@h",    "sip:a@",
          "sip:a@b@c", "sip:a b@c", "sip:h:0",        "sip:h:65536", "sip:h:x",   "sip:[::1",
          "sip:[]",    "sip:[xyz]", "sip:a%4@h",      "sip:a%zz@h",  "sip:a[b@h", "sip:h;;",
          "sip:h?",    "sip:h/x",   "tel:",           "tel:abz",     "sip:<a@h>", "sip:a\"@h",
          "1sip:h",    "s/p:h",     "sip:a\xC3\xA4@h"}) {
        EXPECT_FALSE(parse_uri(bad)) << bad;
    }
}

// The URI is looked at in blocks: an octet no URI may hold is found at each place of each length,
// and so is the '@'.
TEST(UriTest, EachOctetIsLookedAt) {
    for (std::size_t size = 1; size < 70; ++size) {
        const std::string good = "sip:" + std::string(size, 'a');
        ASSERT_TRUE(parse_uri(good)) << size;
        for (std::size_t at = 0; at < size; ++at) {
            for (const char bad : {' ', '<', '>', '"', '\x7F', '\x80', '\xFF', '\0', '\n'}) {
                std::string text = good;
                text[4 + at] = bad;
                EXPECT_FALSE(parse_uri(text)) << size << ' ' << at;
            }
            std::string text = good;
            text[4 + at] = '@';
            const auto uri = parse_uri(text);
            ASSERT_EQ(uri.has_value(), at != 0 && at + 1 != size) << size << ' ' << at;
            if (!uri) continue;
            EXPECT_EQ(uri->user.size(), at);
            EXPECT_EQ(uri->host.size(), size - at - 1);
            text[4 + (at + 1) % size] = '@';
            EXPECT_FALSE(parse_uri(text)) << size << ' ' << at;
        }
    }
    // Octets behind the text, in the same block, are none of it.
    const std::string_view within = "sip:a@b.example.org> <next@one\"\x80";
    ASSERT_TRUE(parse_uri(within.substr(0, 19)));
    EXPECT_EQ(parse_uri(within.substr(0, 19))->user, "a");
    EXPECT_FALSE(parse_uri("sip:a%4@example.org"));
    EXPECT_FALSE(parse_uri("sip:abcdefghijklmnopqrstuvwxyz%zz@example.org"));
    EXPECT_TRUE(parse_uri("sip:abcdefghijklmnopqrstuvwxyz%41@example.org"));
}

TEST(UriTest, Identity) {
    const auto same = [](const char* a, const char* b) {
        return same_identity(*parse_uri(a), *parse_uri(b));
    };
    EXPECT_TRUE(same("sip:alice@HOME.example", "sip:%61lice@home.EXAMPLE;user=phone"));
    EXPECT_FALSE(same("sip:Alice@home.example", "sip:alice@home.example"));
    EXPECT_FALSE(same("sip:alice@home.example", "sips:alice@home.example"));
    EXPECT_FALSE(same("sip:alice@home.example", "sip:alice@home.example:5060"));
    EXPECT_FALSE(same("sip:alice@home.example", "sip:alic@home.example"));
    EXPECT_FALSE(same("sip:alic@home.example", "sip:alice@home.example"));
    EXPECT_TRUE(same("tel:+1-201-555-0123", "tel:+12015550123;x=y"));
    EXPECT_FALSE(same("tel:+12015550123", "tel:+1201555012"));
    EXPECT_TRUE(same("urn:service:SOS", "urn:service:sos"));
}

TEST(NameAddrTest, Forms) {
    auto n = parse_name_addr("\"A \\\"B\\\"\" <sip:a@b;x=1>;tag=t;y");
    ASSERT_TRUE(n);
    EXPECT_EQ(unescape(n->display), "A \"B\"");
    EXPECT_EQ(n->tag(), "t");
    EXPECT_TRUE(n->uri.param("x"));
    EXPECT_TRUE(n->bracketed);
    n = parse_name_addr("sip:a@b;tag=t");
    ASSERT_TRUE(n);
    EXPECT_EQ(n->tag(), "t");
    EXPECT_EQ(n->uri.params, "");
    n = parse_name_addr("Two Words<sip:a@b>");
    ASSERT_TRUE(n);
    EXPECT_EQ(n->display, "Two Words");
    EXPECT_EQ(n->tag(), "");
    n = parse_name_addr("sip:a@b;+sip.instance=\"<urn:gsma:imei:1>\"");
    ASSERT_TRUE(n);
    EXPECT_EQ(n->param("+sip.instance")->value, "<urn:gsma:imei:1>");
    n = parse_name_addr("<sip:a@b> ; tag = 7");
    ASSERT_TRUE(n);
    EXPECT_EQ(n->tag(), "7");
    n = parse_name_addr("Zo\xC3\xAB <sip:z@b>");
    ASSERT_TRUE(n);
    for (const auto* bad :
         {"", "<>", "<sip:a@b", "\"x <sip:a@b>", "\"x\" sip:a@b", "< sip:a@b>", "a, b <sip:a@b>",
          "sip:a@b?x=y", "sip:a@b,c", "<sip:a@b>x", "<sip:a@b>;", "<sip:a@b>;;tag=1", "x"}) {
        EXPECT_FALSE(parse_name_addr(bad)) << bad;
    }
}

TEST(ViaTest, Parts) {
    auto v = parse_via(
        "SIP/2.0/UDP "
        "192.0.2.1:5070;branch=z9hG4bKx;rport;received=198.51.100.1;maddr=224.0.0.1;ttl=1");
    ASSERT_TRUE(v);
    EXPECT_TRUE(v->is_transport("udp"));
    EXPECT_EQ(v->host, "192.0.2.1");
    EXPECT_EQ(v->port, 5070);
    EXPECT_EQ(v->branch, "z9hG4bKx");
    EXPECT_TRUE(v->has_rfc3261_branch());
    EXPECT_TRUE(v->rport_present);
    EXPECT_EQ(v->rport, 0);
    EXPECT_EQ(v->received, "198.51.100.1");
    EXPECT_EQ(v->maddr, "224.0.0.1");
    v = parse_via("sip / 2.0 / TCP [2001:db8::1] : 5060 ; rport = 4711");
    ASSERT_TRUE(v);
    EXPECT_EQ(v->transport, "TCP");
    EXPECT_EQ(v->host, "[2001:db8::1]");
    EXPECT_EQ(v->port, 5060);
    EXPECT_EQ(v->rport, 4711);
    EXPECT_FALSE(v->has_rfc3261_branch());
    EXPECT_TRUE(parse_via("SIP/2.0/UDP h"));
    for (const auto* bad :
         {"", "SIP/2.0/UDP", "SIP/2.0/UDP ", "SIP/3.0/UDP h", "HTTP/2.0/UDP h", "SIP/2.0 UDP h",
          "SIP/2.0/UDP h:0", "SIP/2.0/UDP h:65536", "SIP/2.0/UDP h;;x", "SIP/2.0/UDP h,x",
          "SIP/2.0/UDP h x", "SIP/2.0/UDP [::1", "SIP/2.0/UDP 2001:db8::1", "SIP/2.0/UDP h;rport=x",
          "SIP/2.0/UDP h;branch=a;branch=b", "SIP/2.0/ h"}) {
        EXPECT_FALSE(parse_via(bad)) << bad;
    }
}

TEST(ViaTest, SentByOfWhatCannotBeReadWhole) {
    const auto of = [](const std::string& via) {
        const std::string text = "OPTIONS sip:b SIP/2.0\r\nVia: " + via + "\r\n\r\n";
        Message m;
        m.parse(text);
        const auto v = sent_by(m);
        return v ? std::string(v->transport) + " " + std::string(v->host) + " " +
                       std::to_string(v->port)
                 : "none";
    };
    EXPECT_EQ(of("SIP/2.0/UDP h:5070;branch=z9hG4bK"), "UDP h 5070");
    EXPECT_EQ(of("SIP/7.0/UDP c.example.com;branch=z9hG4bK"), "UDP c.example.com 0");
    EXPECT_EQ(of("SIP/2.0/UDP 192.0.2.15;;,;,,"), "UDP 192.0.2.15 0");
    EXPECT_EQ(of("SIP/2.0/TCP [2001:db8::1]:5061;rport=x"), "TCP [2001:db8::1] 5061");
    for (const auto* bad : {"", ";", "SIP", "SIP/2.0", "SIP/2.0/UDP", "SIP/2.0/UDP ;x", "/ / h",
                            "SIP/2.0/UDP h:99999;x"}) {
        EXPECT_EQ(of(bad), "none") << bad;
    }
}

TEST(CSeqTest, NumberBelowTwoToThe31AndToken) {
    EXPECT_EQ(parse_cseq("0009\r\n INVITE")->number, 9U);
    EXPECT_EQ(parse_cseq("2147483647 X")->number, 2147483647U);
    for (const auto* bad : {"", "1", "1 ", "INVITE 1", "2147483648 X", "1 IN VITE", "-1 X", "1X"})
        EXPECT_FALSE(parse_cseq(bad)) << bad;
}

TEST(ContactTest, ExpiresStarAndQ) {
    EXPECT_TRUE(parse_contact("*")->star);
    const auto c = parse_contact("<sip:a@b>;expires=60;q=0.7");
    ASSERT_TRUE(c);
    EXPECT_EQ(c->expires, 60U);
    EXPECT_EQ(c->q, 700);
    EXPECT_FALSE(parse_contact("<sip:a@b>;q=7"));
    EXPECT_FALSE(parse_contact("**"));
    Message m;
    const std::string bytes =
        "REGISTER sip:b SIP/2.0\r\nContact: <sip:a@b>\r\nContact: <sip:c@d>;expires=5\r\nExpires: "
        "77\r\n\r\n";
    ASSERT_EQ(m.parse(bytes), ParseStatus::ok);
    std::vector<std::uint32_t> got;
    for (const auto& v : m.values(HeaderId::contact))
        got.push_back(contact_expires(m, *parse_contact(v.text), 3600));
    EXPECT_EQ(got, (std::vector<std::uint32_t>{77, 5}));
}

TEST(DigestTest, Credentials) {
    const auto d = parse_digest_credentials(
        "digest username=\"u@h\", realm=\"h\",nonce=\"\",uri=\"sip:h\" ,response=\"\", "
        "algorithm=AKAv1-MD5, auts=\"a+b=\", "
        "qop=auth, nc=00000001, cnonce=\"c\", Integrity-Protected=\"yes\", other=\"x,y\"");
    ASSERT_TRUE(d);
    EXPECT_EQ(d->username, "u@h");
    EXPECT_EQ(d->nonce, "");
    EXPECT_EQ(d->response, "");
    EXPECT_EQ(d->auts, "a+b=");
    EXPECT_EQ(d->algorithm, "AKAv1-MD5");
    EXPECT_EQ(d->nc, "00000001");
    EXPECT_EQ(d->integrity_protected, "yes");
    EXPECT_EQ(d->opaque, std::nullopt);
    EXPECT_TRUE(parse_digest_credentials("Digest ,username=\"a\",,realm=\"b\","));
    for (const auto* bad : {"", "Basic username=\"a\"", "Digest username", "Digest username=\"a",
                            "Digest username=\"a\" realm=\"b\"", "Digest nonce=\"a\",nonce=\"b\"",
                            "Digest =x", "NoOneKnowsThisScheme opaque-data=here"}) {
        EXPECT_FALSE(parse_digest_credentials(bad)) << bad;
    }
}

TEST(DigestTest, Challenge) {
    const auto bytes = test::read_file(GMGATE_TEST_DATA "/handsets/challenge-401.sip");
    Message m;
    ASSERT_EQ(m.parse(bytes), ParseStatus::ok);
    ASSERT_FALSE(check_response(m));
    const auto d = parse_digest_challenge(*m.value(HeaderId::www_authenticate));
    ASSERT_TRUE(d);
    EXPECT_EQ(d->ck, "00112233445566778899aabbccddeeff");
    EXPECT_EQ(d->ik, "ffeeddccbbaa99887766554433221100");
    EXPECT_EQ(d->qop, "auth,auth-int");
    EXPECT_EQ(d->algorithm, "AKAv1-MD5");
    EXPECT_EQ(d->nonce, "KBdnIyppR5T1v4wsr0DCIKvGvtjeMAAAAbJwt4v710I=");
    const auto route = first_route(m, HeaderId::service_route);
    ASSERT_TRUE(route);
    EXPECT_EQ(route->uri.port, 6060);
    EXPECT_TRUE(route->uri.param("lr"));
}

TEST(HandsetTest, RegistersAreRead) {
    for (const auto& f : test::own_corpus("/handsets", ".sip")) {
        Message m;
        ASSERT_EQ(m.parse(f.bytes), ParseStatus::ok) << f.name;
        const auto said = m.is_request() ? check_request(m) : check_response(m);
        EXPECT_FALSE(said) << f.name << ": " << said->reason;
        if (!m.is_method("REGISTER")) continue;
        EXPECT_FALSE(check_routable(m)) << f.name;
        const auto d = parse_digest_credentials(*m.value(HeaderId::authorization));
        ASSERT_TRUE(d) << f.name;
        EXPECT_EQ(d->response, "") << f.name;
        EXPECT_TRUE(d->username->find('@') != std::string_view::npos) << f.name;
        EXPECT_TRUE(m.has_token(HeaderId::require, "sec-agree")) << f.name;
        EXPECT_TRUE(m.has_token(HeaderId::supported, "path")) << f.name;
        EXPECT_TRUE(top_via(m)->has_rfc3261_branch()) << f.name;
    }
}

TEST(HandsetTest, CorporaAreRead) {
    const auto files = test::corpus(GMGATE_CORPORA "/handsets", ".sip");
    if (files.empty())
        GTEST_SKIP() << "the collection of recorded messages (corpora) does not lie beside the "
                        "checkout; the project's own messages are tested in any case";
    for (const auto& f : files) {
        Message m;
        ASSERT_EQ(m.parse(f.bytes), ParseStatus::ok) << f.name << ": " << text(m.status());
        const auto said = m.is_request() ? check_request(m) : check_response(m);
        EXPECT_FALSE(said) << f.name << ": " << said->reason;
    }
}

// The tags and the top Via are remembered with the message: until it holds another one.
TEST(RememberedTest, TagsAndViaAreThoseOfTheMessageAtHand) {
    const auto text = [](std::string_view via, std::string_view from, std::string_view to) {
        return "OPTIONS sip:b@example.org SIP/2.0\r\nVia: " + std::string(via) +
               "\r\nFrom: " + std::string(from) + "\r\nTo: " + std::string(to) +
               "\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    };
    const std::string first =
        text("SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKa;received=192.0.2.7;rport=99;maddr=x",
             "<sip:a@example.org>;x=y;TAG=one", "sip:b@example.org;tag=two;tag=three");
    const std::string second = text("SIP/2.0/TCP host", "<sip:a@example.org>", "<sip:b@@>;tag=no");
    Message m;
    for (int repeated = 0; repeated < 2; ++repeated) {
        ASSERT_EQ(m.parse(std::string_view(first)), ParseStatus::ok);
        for (int asked = 0; asked < 2; ++asked) {
            EXPECT_EQ(from_tag(m), "one");
            EXPECT_EQ(to_tag(m), "two");
            EXPECT_EQ(to_tag(m), to(m)->tag());
            const auto via = top_via(m);
            ASSERT_TRUE(via);
            EXPECT_EQ(via->transport, "UDP");
            EXPECT_EQ(via->host, "192.0.2.1");
            EXPECT_EQ(via->port, 5070);
            EXPECT_EQ(via->params.substr(0, 8), ";branch=");
            EXPECT_EQ(via->branch, "z9hG4bKa");
            EXPECT_EQ(via->received, "192.0.2.7");
            EXPECT_EQ(via->maddr, "x");
            EXPECT_TRUE(via->rport_present);
            EXPECT_EQ(via->rport, 99);
        }
        const Message copy = m;
        EXPECT_EQ(from_tag(copy), "one");
        ASSERT_EQ(m.parse(std::string_view(second)), ParseStatus::ok);
        for (int asked = 0; asked < 2; ++asked) {
            EXPECT_EQ(from_tag(m), "");
            EXPECT_EQ(to_tag(m), "");
            EXPECT_FALSE(to(m));
            const auto via = top_via(m);
            ASSERT_TRUE(via);
            EXPECT_EQ(via->host, "host");
            EXPECT_EQ(via->port, 0);
            EXPECT_TRUE(via->params.empty());
            EXPECT_TRUE(via->branch.empty());
            EXPECT_FALSE(via->rport_present);
        }
        EXPECT_TRUE(check_request(m));  // its To
    }
    const std::string none = text("SIP/2.0/UDP", "<sip:a@example.org>", "<sip:b@example.org>");
    ASSERT_EQ(m.parse(std::string_view(none)), ParseStatus::ok);
    EXPECT_FALSE(top_via(m));
    EXPECT_FALSE(top_via(m));
}

TEST(OneLineTest, FoldsBecomeTheirBlank) {
    std::string out = "x";
    append_on_one_line(out, "a long value with\r\n two\r\n\tfolds, and \n\r more\r\n");
    EXPECT_EQ(out, "xa long value with two\tfolds, and  more");
    append_on_one_line(out, {});
    EXPECT_EQ(out.size(), 39U);
}

TEST(CheckRequestTest, StarAloneAndOnlyInRegister) {
    const auto check = [](const std::string& method, const std::string& contacts) {
        const std::string bytes = method +
                                  " sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: "
                                  "<sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n"
                                  "Call-ID: c\r\nCSeq: 1 " +
                                  method + "\r\n" + contacts + "\r\n";
        Message m;
        m.parse(bytes);
        const auto r = check_request(m);
        return r ? r->code : 0;
    };
    EXPECT_EQ(check("REGISTER", "Contact: *\r\n"), 0);
    EXPECT_EQ(check("REGISTER", "Contact: *, <sip:a@b>\r\n"), 400);
    EXPECT_EQ(check("OPTIONS", "Contact: *\r\n"), 400);
    EXPECT_EQ(check("OPTIONS", "Max-Forwards: 256\r\n"), 400);
    EXPECT_EQ(check("OPTIONS", "Expires: 1\r\nExpires: 2\r\n"), 400);
}

}  // namespace
}  // namespace gmgate::sip
