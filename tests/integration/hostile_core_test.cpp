// The core's side is hostile too (S2): malformed, incomplete, oversized, late, repeated and forged
// answers, and requests out of nowhere, in virtual time. For each: what the phone gets, what is
// left, that registered phones are served as before, and that no key is left in a buffer, a trace
// or a log line (S1; the world looks into each buffer the gateway gives back).
// tests/smoke/hostile_core_test does the same over sockets.

#include "base/log.h"
#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

// One phone that is registered and must never notice, another whose REGISTERs the test answers.
struct Core {
    World w;
    Phone& good;
    Phone& p;
    Books before;

    explicit Core(World::Options o = {})
        : w(std::move(o)), good(w.phone("good", "10.2.0.9")), p(w.phone()) {
        // Long enough for all that follows.
        w.home.grant = 10'000'000;
        RegisterOptions r;
        r.expires = w.home.grant;
        EXPECT_TRUE(good.challenged(false, r) && good.answered(r));
        before = w.settled();
    }

    Wire sm2() {
        w.home.silent = true;
        w.home.inbox.clear();
        p.send_sm1();
        w.run();
        EXPECT_EQ(w.home.inbox.size(), 1U);
        return w.home.inbox.back();
    }
    // SM8, after an ordinary challenge.
    Wire sm8() {
        w.home.silent = false;
        EXPECT_TRUE(p.challenged());
        w.home.silent = true;
        w.home.inbox.clear();
        p.send_sm7();
        w.run();
        EXPECT_EQ(w.home.inbox.size(), 1U);
        return w.home.inbox.back();
    }
    static std::string text(const Wire& asked, int status, const std::string& headers,
                            const std::string& body = {}) {
        sip::Message m;
        EXPECT_EQ(m.parse(std::string_view(asked.message.text)), sip::ParseStatus::ok);
        std::string out;
        sip::ResponseOptions o;
        o.to_tag = "home";
        EXPECT_TRUE(sip::build_response(m, status, o, out));
        const auto length = out.find("Content-Length: 0");
        out.replace(length, 17, "Content-Length: " + std::to_string(body.size()));
        out.insert(length, headers);
        return out + body;
    }
    void say(std::string octets) {
        Wire wire;
        wire.to = Wire::To::gateway_core;
        wire.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0};
        wire.message.text = std::move(octets);
        w.queue.push_back(std::move(wire));
        w.run();
    }
    // The phone's answer, or -1.
    int heard() {
        const int status = p.last_status();
        p.inbox.clear();
        return status;
    }
    void over() {
        w.home.silent = false;
        p.pending.reset();
        w.advance(300s);  // timer F, reg-await-auth
        p.inbox.clear();
    }
    // Nothing of it is left, the good phone is served, and the other can register.
    void expect_unharmed(const std::string& what) {
        over();
        EXPECT_EQ(w.settled(), before) << what;
        w.expect_served(good);
        w.settled();
    }
};

const std::string ck = "00112233445566778899aabbccddeeff";
const std::string ik = "ffeeddccbbaa99887766554433221100";
const std::string nonce = "bm9uY2Utb2YtdGhlLWhvc3RpbGUtY29yZS0wMTIzNDU2Nzg5";

std::string digest(const std::string& params) {
    return "WWW-Authenticate: Digest realm=\"home.example\"" + params + "\r\n";
}
std::string keys_of(const std::string& c, const std::string& i) {
    return ",ck=\"" + c + "\",ik=\"" + i + "\"";
}
const std::string named = ",nonce=\"" + nonce + "\",algorithm=AKAv1-MD5";

TEST(HostileCore, ChallengesThatCannotBeUsed) {
    struct Case {
        const char* what;
        std::string headers;
        int phone;  // what it gets at once; -1: nothing, and 504 at timer F
    };
    const std::vector<Case> cases{
        {"no WWW-Authenticate", "", 500},
        {"no keys", digest(named), 500},
        {"no ik", digest(named + ",ck=\"" + ck + "\""), 500},
        {"no ck", digest(named + ",ik=\"" + ik + "\""), 500},
        {"empty keys", digest(named + keys_of("", "")), 500},
        {"ck too short", digest(named + keys_of(ck.substr(2), ik)), 500},
        {"ck too long", digest(named + keys_of(ck + "00", ik)), 500},
        {"ck of an odd length", digest(named + keys_of(ck.substr(1), ik)), 500},
        {"ik too short", digest(named + keys_of(ck, ik.substr(2))), 500},
        {"ik too long", digest(named + keys_of(ck, ik + ik)), 500},
        {"ck not hex", digest(named + keys_of("x" + ck.substr(1), ik)), 500},
        {"ik not hex", digest(named + keys_of(ck, std::string(32, 'g'))), 500},
        {"ck twice", digest(named + keys_of(ck, ik) + ",ck=\"" + ik + "\""), 500},
        {"ik twice", digest(named + keys_of(ck, ik) + ",ik=\"" + ik + "\""), 500},
        {"no nonce", digest(",algorithm=AKAv1-MD5" + keys_of(ck, ik)), 500},
        {"empty nonce", digest(",nonce=\"\"" + keys_of(ck, ik)), 500},
        {"nonce twice", digest(named + ",nonce=\"x\"" + keys_of(ck, ik)), 500},
        {"another scheme", "WWW-Authenticate: Basic realm=\"x\"" + keys_of(ck, ik) + "\r\n", 500},
        {"a quote that does not end",
         "WWW-Authenticate: Digest realm=\"x" + keys_of(ck, ik) + "\r\n", 500},
        {"no comma between parameters",
         "WWW-Authenticate: Digest realm=\"x\" ck=\"" + ck + "\" ik=\"" + ik + "\"\r\n", 500},
        {"keys without quotes and blanks around", digest(named + ", ck = x, ik = y"), 500},
        {"Proxy-Authenticate instead",
         "Proxy-Authenticate: Digest realm=\"x\"" + named + keys_of(ck, ik) + "\r\n", 500},
        {"a header with NUL", digest(named + keys_of(ck, ik)) + std::string("X: a\0b\r\n", 8), -1},
        {"a lone LF", digest(named + keys_of(ck, ik)) + "X: a\nY: b\r\n", -1},
        {"a header without a name", digest(named + keys_of(ck, ik)) + ": x\r\n", -1},
        {"a second CSeq", digest(named + keys_of(ck, ik)) + "CSeq: 2 REGISTER\r\n", -1},
        {"a negative Content-Length", digest(named + keys_of(ck, ik)) + "Content-Length: -1\r\n",
         -1},
    };
    Core c;
    for (const Case& x : cases) {
        const Wire asked = c.sm2();
        c.say(Core::text(asked, 401, x.headers));
        EXPECT_EQ(c.heard(), x.phone) << x.what;
        if (x.phone == -1) {
            c.w.advance(33s);
            EXPECT_EQ(c.heard(), 504) << x.what;
        }
        EXPECT_EQ(c.w.backend.installed(), c.before.installed) << x.what;
        EXPECT_EQ(c.w.gateway->pending(), 0U) << x.what;
        c.expect_unharmed(x.what);
        EXPECT_EQ(c.w.gateway->failures().latest(1).at(0).reason,
                  x.phone == 500 ? Reason::challenge_without_keys : Reason::core_timeout)
            << x.what;
    }
    EXPECT_TRUE(c.p.register_once());
}

// What the gateway has no opinion about is the phone's to judge; its keys still never reach it.
TEST(HostileCore, ChallengesThePhoneMustJudge) {
    const std::vector<std::pair<const char*, std::string>> cases{
        {"a nonce too short", digest(",nonce=\"YQ==\",algorithm=AKAv1-MD5" + keys_of(ck, ik))},
        {"a nonce that is no base64", digest(",nonce=\"***\"" + keys_of(ck, ik))},
        {"a nonce of 8 kB", digest(",nonce=\"" + std::string(8000, 'A') + "\"" + keys_of(ck, ik))},
        {"algorithm MD5", digest(",nonce=\"" + nonce + "\",algorithm=MD5" + keys_of(ck, ik))},
        {"keys in capitals", digest(named + ",CK=\"" + ck + "\",Ik=\"" + ik + "\"")},
        {"keys without quotes", digest(named + ", ck = " + ck + " , ik = " + ik)},
        {"one without keys first", digest(",nonce=\"x\"") + digest(named + keys_of(ck, ik))},
        {"two with keys", digest(named + keys_of(ck, ik)) + digest(named + keys_of(ik, ck))},
        {"keys in Proxy-Authenticate too", digest(named + keys_of(ck, ik)) +
                                               "Proxy-Authenticate: Digest realm=\"x\"" + named +
                                               keys_of(ik, ck) + "\r\n"},
        {"one that cannot be read behind it",
         digest(named + keys_of(ck, ik)) + "WWW-Authenticate: Digest x=\"" + ik + ck + "\r\n"},
        {"a body of 40 kB", digest(named + keys_of(ck, ik)) + "X: y\r\n"},
    };
    Core c;
    for (const auto& [what, headers] : cases) {
        const Wire asked = c.sm2();
        const bool large = std::string_view(what).starts_with("a body");
        c.say(Core::text(asked, 401, headers, large ? std::string(40'000, 'b') : ""));
        ASSERT_EQ(c.p.last_status(), 401) << what;
        const Sip& sm6 = c.p.last().message;
        for (const std::string& key : {ck, ik}) EXPECT_FALSE(sm6.contains(key)) << what;
        EXPECT_FALSE(sm6.header("WWW-Authenticate").empty()) << what;
        EXPECT_TRUE(sm6.has("Security-Server")) << what;
        EXPECT_EQ(c.w.backend.installed(), c.before.installed + 1) << what;
        c.expect_unharmed(what);  // C5: it never answers
    }
}

TEST(HostileCore, AnswersThatAreNoAnswers) {
    Core c;
    const Wire asked = c.sm2();
    const std::string good = Core::text(asked, 401, digest(named + keys_of(ck, ik)));
    const auto replaced = [&](const std::string& what, const std::string& by) {
        std::string text = good;
        const auto at = text.find(what);
        EXPECT_NE(at, std::string::npos) << what;
        return text.replace(at, what.size(), by);
    };
    const auto cseq = "CSeq: " + asked.message.header("CSeq");
    const auto via = asked.message.text.substr(asked.message.text.find("branch=z9hG4bK"), 20);
    std::vector<std::string> bad{
        replaced(cseq, "CSeq: 1 MESSAGE"),
        replaced(cseq, "CSeq: 99999999999 REGISTER"),
        replaced(cseq + "\r\n", ""),
        replaced(via, "branch=z9hG4bKgffff0"),
        replaced("branch=z9hG4bK", "branch=z9hG4bJ"),
        replaced("SIP/2.0 401", "SIP/2.0 4011"),
        replaced("SIP/2.0 401", "SIP/7.0 401"),
        replaced("SIP/2.0 401", "SIP/2.0 999"),
        replaced("From: ", "Form: "),
        replaced("Call-ID: ", "Call-IDD: "),
        std::string(300, '\0'),
        "\r\n\r\n",
        "SIP/2.0 401",
    };
    std::string crowd = good;
    std::string many;
    for (int i = 0; i < 10'000; ++i) many += "X:\r\n";
    crowd.insert(crowd.find("Content-Length"), many);
    bad.push_back(crowd);  // ten thousand headers
    std::string large = good;
    large.insert(large.find("Content-Length"), "X: " + std::string(64'000, 'y') + "\r\n");
    bad.push_back(large);
    for (std::size_t cut = 8; cut + 4 < good.size(); cut += 9) bad.push_back(good.substr(0, cut));
    for (const std::string& text : bad) {
        c.say(text);
        EXPECT_EQ(c.heard(), -1) << text.substr(0, 300);
        EXPECT_EQ(c.w.gateway->pending(), 1U);
        EXPECT_EQ(c.w.backend.installed(), c.before.installed);
    }
    // None of them ended it: the true answer is taken.
    c.say(good);
    EXPECT_EQ(c.heard(), 401);
    c.expect_unharmed("answers that are none");
}

TEST(HostileCore, LateAndRepeatedAnswers) {
    Core c;
    // Twice, and other final answers behind it: one SM6.
    Wire asked = c.sm2();
    const std::string challenge = Core::text(asked, 401, digest(named + keys_of(ck, ik)));
    c.say(challenge);
    EXPECT_EQ(c.heard(), 401);
    const Books challenged = c.w.books();
    for (int i = 0; i < 100; ++i) {
        c.say(challenge);
        c.say(Core::text(asked, 200, ""));
        c.say(Core::text(asked, 403, ""));
        c.say(Core::text(asked, 100, ""));
    }
    EXPECT_EQ(c.heard(), -1);
    EXPECT_EQ(c.w.books(), challenged);
    c.expect_unharmed("repeated");

    // After timer F: the phone has had its 504.
    asked = c.sm2();
    c.w.advance(33s);
    EXPECT_EQ(c.heard(), 504);
    for (const int status : {100, 200, 401, 403, 503}) {
        c.say(Core::text(asked, status, digest(named + keys_of(ck, ik))));
        EXPECT_EQ(c.heard(), -1) << status;
    }
    EXPECT_EQ(c.w.backend.installed(), c.before.installed);
    c.expect_unharmed("late");

    // The same to SM8: 504, the SAs wait for C5; a late 200 registers nobody.
    asked = c.sm8();
    c.w.advance(33s);
    EXPECT_EQ(c.heard(), 504);
    c.say(Core::text(asked, 200, "Contact: <" + c.p.contact() + ">;expires=3600\r\n"));
    EXPECT_EQ(c.heard(), -1);
    EXPECT_EQ(c.w.gateway->registered(), 1U);
    c.expect_unharmed("late 200");

    // Answers before any request.
    c.w.home.silent = true;
    for (int i = 0; i < 1000; ++i) {
        c.say("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKg" +
              c.w.random.token(13) +
              "\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: " + std::to_string(i) +
              "\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n");
    }
    EXPECT_GE(c.w.drops(Reason::unknown_transaction), 1000U);
    c.expect_unharmed("before the request");
    EXPECT_TRUE(c.p.register_once());
}

TEST(HostileCore, ProvisionalAnswersForEver) {
    Core c;
    const Wire asked = c.sm2();
    for (int i = 0; i < 40; ++i) {
        c.say(Core::text(asked, i % 2 == 0 ? 100 : 183, digest(named + keys_of(ck, ik))));
        c.w.advance(1s);
    }
    EXPECT_EQ(c.heard(), 504) << "timer F is not moved by them";
    EXPECT_EQ(c.w.gateway->pending(), 0U);
    c.expect_unharmed("provisional");
}

// Each class of refusal to SM1 and SM8: the phone hears it, nothing stays.
TEST(HostileCore, RefusalsOfEveryKind) {
    Core c;
    for (const int status : {300, 301, 302, 380, 400, 402, 403, 404, 407, 420, 423,
                             480, 494, 500, 503, 504, 600, 603, 604, 606, 699}) {
        Wire asked = c.sm2();
        c.say(Core::text(asked, status,
                         "Contact: <sip:evil@198.51.100.1>\r\nRetry-After: 99999999999\r\n"
                         "Security-Server: ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1;spi-s=2\r\n" +
                             digest(named + keys_of(ck, ik))));
        EXPECT_EQ(c.p.last_status(), status);
        for (const std::string& key : {ck, ik}) EXPECT_FALSE(c.p.last().message.contains(key));
        EXPECT_FALSE(c.p.last().message.has("Security-Server")) << status;
        EXPECT_EQ(c.w.gateway->pending(), 0U) << status;
        c.expect_unharmed("refusal " + std::to_string(status));
        asked = c.sm8();
        c.say(Core::text(asked, status, ""));
        EXPECT_EQ(c.heard(), status);
        EXPECT_EQ(c.w.gateway->registered(), 1U);
        c.expect_unharmed("refusal of SM8 " + std::to_string(status));
    }
    // A 200 to an SM1 that nobody challenged, and a 401 to SM8 (C10).
    Wire asked = c.sm2();
    c.say(Core::text(asked, 200, "Contact: <" + c.p.contact() + ">;expires=3600\r\n"));
    EXPECT_EQ(c.heard(), 500);
    c.expect_unharmed("unchallenged");
    asked = c.sm8();
    c.say(Core::text(asked, 401, digest(named + keys_of(ck, ik))));
    EXPECT_EQ(c.heard(), 504);
    c.expect_unharmed("challenged again");
}

TEST(HostileCore, StrangeThingsInThe200) {
    struct Case {
        std::string what, headers;
        bool registers = true;  // or: told no, or granted nothing
    };
    Core c;
    const std::string contact = "Contact: <" + c.p.contact() + ">;expires=3600\r\n";
    std::string identities = "P-Associated-URI: <sip:alice@home.example>";
    for (int i = 0; i < 1400; ++i) identities += ",<sip:u" + std::to_string(i) + "@home.example>";
    std::string routes = "Service-Route: <sip:orig@192.0.2.9:6060;lr>";
    for (int i = 0; i < 1000; ++i) routes += ",<sip:r" + std::to_string(i) + "@192.0.2.9;lr>";
    std::string lines;
    for (int i = 0; i < 100; ++i)
        lines += "P-Associated-URI: <sip:l" + std::to_string(i) + "@h>\r\n";
    const std::vector<Case> cases{
        {"nothing", ""},
        {"a Service-Route that is none", contact + "Service-Route: ;;,,<>\r\n"},
        {"a Service-Route to a name",
         contact + "Service-Route: <sip:scscf.nowhere.example;lr>\r\n"},
        {"a Service-Route to port 0", contact + "Service-Route: <sip:192.0.2.9:0;lr>\r\n"},
        {"1000 Service-Routes", contact + routes + "\r\n"},
        {"no Path", contact},
        {"another Path", contact + "Path: <sip:evil@198.51.100.1;lr>\r\n"},
        {"1400 identities", contact + identities + "\r\n"},
        {"100 lines of identities", contact + lines},
        {"identities that are none", contact + "P-Associated-URI: x,<>,\"\",<sip:>,;\r\n"},
        {"an identity of 8 kB",
         contact + "P-Associated-URI: <sip:" + std::string(8000, 'a') + "@h>\r\n"},
        {"another's identity", contact + "P-Associated-URI: <sip:good@home.example>\r\n"},
        {"expires huge", "Contact: <" + c.p.contact() + ">;expires=4294967295\r\n"},
        {"expires beyond numbers",
         "Contact: <" + c.p.contact() + ">;expires=99999999999999999999\r\n"},
        {"expires negative", "Contact: <" + c.p.contact() + ">;expires=-1\r\n"},
        {"Expires negative", "Expires: -1\r\n"},
        {"expires 0", "Contact: <" + c.p.contact() + ">;expires=0\r\n", false},
        {"Contact *", "Contact: *\r\n"},
        {"300 contacts",
         [&] {
             std::string s = "Contact: ";
             for (int i = 0; i < 300; ++i) s += "<sip:c" + std::to_string(i) + "@h>;expires=1,";
             return s + "<" + c.p.contact() + ">;expires=3600\r\n";
         }()},
        {"keys in a 200", contact + digest(named + keys_of(ck, ik))},
    };
    for (const Case& x : cases) {
        const Wire asked = c.sm8();
        c.say(Core::text(asked, 200, x.headers));
        int status = c.p.last_status();
        if (status == 401) {
            // Nothing came: a header line beyond the limit is no SIP, and the answer no answer.
            c.w.advance(33s);
            status = c.p.last_status();
            EXPECT_EQ(status, 504) << x.what;
            EXPECT_GT(x.headers.size(), 8000U) << x.what;
        } else {
            EXPECT_TRUE(status == 200 || status == 500) << x.what << ": " << status;
        }
        for (const std::string& key : {ck, ik}) EXPECT_FALSE(c.p.last().message.contains(key));
        c.w.home.silent = false;
        if (status == 200 && x.registers) {
            EXPECT_EQ(c.w.gateway->registered(), 2U) << x.what;
            // It is served, and can renew and leave.
            c.p.accept();
            c.p.send_on(c.p.current(), c.p.request("MESSAGE", "sip:bob@home.example"));
            c.w.run();
            EXPECT_EQ(c.p.last_status(), 200) << x.what;
            EXPECT_LE(c.w.sets->find_by_impi(c.p.impi)->impu_count(),
                      c.w.options.database.limits.max_impus_per_user)
                << x.what;
            EXPECT_TRUE(c.w.gateway->deregister(c.p.impi)) << x.what;
            c.p.sets.clear();
        }
        c.p.next_ports();
        c.expect_unharmed(x.what);
    }
}

TEST(HostileCore, RequestsOutOfNowhere) {
    Core c;
    World& w = c.w;
    const std::string path = w.home.paths.at(c.good.impi);
    const std::string token =
        path.substr(path.find("sip:") + 4, path.find('@') - path.find("sip:") - 4);
    const auto forged = [&](std::string changed) {
        std::string p = path;
        return p.replace(p.find(token), token.size(), changed);
    };
    std::string flipped = token;
    flipped[token.size() / 2] = flipped[token.size() / 2] == 'a' ? 'b' : 'a';
    w.home.inbox.clear();
    // Forged tokens find nobody.
    for (const std::string& t : {flipped, token.substr(1), token + "00", std::string("x"),
                                 std::string(5000, 'f'), std::string("1"), std::string()}) {
        for (const auto* method : {"MESSAGE", "INVITE", "NOTIFY", "BYE", "OPTIONS", "REFER"}) {
            c.good.inbox.clear();
            w.home.request(method, forged(t), "sip:good@10.2.0.9:7777");
            w.run();
            EXPECT_TRUE(c.good.inbox.empty()) << t << " " << method;
        }
    }
    EXPECT_GE(w.drops(Reason::unknown_flow), 30U);
    w.advance(400s);
    // No route at all, somebody else's, a hundred of them, ones that cannot be read.
    std::string hundred = path;
    for (int i = 0; i < 100; ++i) hundred += ", <sip:198.51.100.1;lr>";
    for (const std::string& route : {std::string("<sip:198.51.100.1;lr>"), std::string("<>"),
                                     std::string(";,;"), std::string("\"" + path)}) {
        c.good.inbox.clear();
        w.home.request("MESSAGE", route, "sip:good@10.2.0.9:7777");
        w.run();
        EXPECT_TRUE(c.good.inbox.empty()) << route;
    }
    w.home.request("MESSAGE", hundred, "sip:good@10.2.0.9:7777");
    w.run();
    w.advance(400s);
    // BYE, UPDATE, PRACK, ACK, CANCEL, NOTIFY outside any dialog: the phone's to refuse, or 481.
    for (const auto* method : {"BYE", "UPDATE", "PRACK", "ACK", "CANCEL", "NOTIFY", "INFO"}) {
        w.home.inbox.clear();
        w.home.request(method, path, "sip:good@10.2.0.9:7777",
                       "To: <sip:good@home.example>;tag=none\r\n");
        w.run();
        if (!c.good.inbox.empty() && c.good.last().message.is_request() &&
            c.good.last().message.method() != "ACK")
            c.good.answer(c.good.last(), 481);
        w.run();
        if (std::string_view(method) != "ACK") {
            ASSERT_FALSE(w.home.inbox.empty()) << method;
            EXPECT_GE(w.home.inbox.back().message.status(), 400) << method;
        }
        c.good.inbox.clear();
        w.advance(40s);
    }
    // Registrations and odd methods from the core.
    for (const auto* method : {"REGISTER", "PUBLISH", "SUBSCRIBE", "X"}) {
        w.home.request(method, "<sip:nobody@192.0.2.1;lr>", "sip:192.0.2.1");
        w.run();
    }
    EXPECT_EQ(w.gateway->registered(), 1U);
    c.expect_unharmed("requests");
}

// A core that floods the P-CSCF with NOTIFYs, and with requests nobody answers: bounded, and gone.
TEST(HostileCore, FloodsOfRequests) {
    World::Options o;
    o.policy.limits.transactions = 300;
    Core c(o);
    World& w = c.w;
    const std::string path = w.home.paths.at(c.good.impi);
    const std::string bomb(30'000, '<');
    for (int i = 0; i < 2000; ++i) {
        w.home.request("NOTIFY", "<sip:192.0.2.1;lr>", "sip:192.0.2.1",
                       "Event: reg\r\nSubscription-State: active;expires=99999999999\r\n"
                       "Content-Type: application/reginfo+xml\r\n",
                       i % 10 == 0 ? bomb : std::string("<reginfo/>"));
    }
    w.run();
    EXPECT_LE(w.gateway->transactions(), 2U * 300U);
    EXPECT_GT(w.drops(Reason::transaction_limit), 1000U);
    w.advance(40s);
    for (int i = 0; i < 2000; ++i) w.home.request("MESSAGE", path, "sip:good@10.2.0.9:7777");
    w.run();
    EXPECT_LE(w.gateway->transactions(), 2U * 300U);
    c.good.inbox.clear();
    c.expect_unharmed("floods");
    EXPECT_TRUE(c.p.register_once());
}

// S1: no key of all that is in what a person can read.
TEST(HostileCore, NoKeyIsLogged) {
    log::configure(log::Level::debug, false);
    testing::internal::CaptureStderr();
    std::string text;
    {
        Core c;
        for (const std::string& headers :
             {digest(named + keys_of(ck, ik)), digest(named + keys_of(ck.substr(1), ik)),
              digest(named + keys_of(ck, ik)) + "X: a\nb\r\n", "X-" + digest(keys_of(ck, ik)),
              digest(named + keys_of(ck, ik) + ",ck=\"" + ck + "\"")}) {
            const Wire asked = c.sm2();
            c.say(Core::text(asked, 401, headers));
            c.over();
        }
        for (const auto& r : c.w.gateway->trace().of_user(c.p.impi)) text += r.summary() + "\n";
    }
    text += testing::internal::GetCapturedStderr();
    log::configure(log::Level::off, false);
    EXPECT_NE(text.find("challenge_without_keys"), std::string::npos);
    for (const std::string& key : {ck, ik, ck.substr(1)})
        EXPECT_EQ(text.find(key), std::string::npos);
}

}  // namespace
}  // namespace gmgate::test
