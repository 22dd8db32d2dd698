// gmhome's proxy: forks and their best answer, CANCEL, timers, loops, routes, and the triggers of
// deregistration and re-authentication.

#include "home/proxy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "home/commands.h"
#include "home/routing.h"
#include "tests/unit/home/server_support.h"

namespace gmgate::home {
namespace {

using sip::HeaderId;
using test::Phone;
using test::Reply;
using test::ServerTest;
using testing::HasSubstr;
using testing::StartsWith;
using namespace std::chrono_literals;

constexpr auto path_a = "<sip:token-a@192.0.2.1:5070;lr>";
constexpr auto path_b = "<sip:token-b@192.0.2.1:5072;lr>";

// Two phones share sip:both@ims.example; a third calls it.
struct Forks : ServerTest {
    Forks() {
        enroll(a, path_a);
        for (std::uint64_t i = 0; i < 2; ++i) {
            Phone& p = i == 0 ? left : right;
            Subscriber s;
            const auto rule = SubscriberRule::parse("100:001010000000001", test::seed, test::realm);
            s.impi = i == 0 ? "left@ims.example" : "right@ims.example";
            s.impus = {"sip:" + s.impi, "sip:both@ims.example"};
            s.shared = {"sip:both@ims.example"};
            s.k = rule->k(50 + i);
            s.opc = rule->opc(50 + i);
            p.impi = s.impi;
            p.impu = s.impus[0];
            EXPECT_TRUE(hss.add(std::move(s)));
            enroll(p, i == 0 ? "<sip:left@192.0.2.1:5081;lr>" : "<sip:right@192.0.2.1:5082;lr>");
        }
    }
    std::string invite(std::string_view uri, std::string_view extra = {}) {
        return request("INVITE", uri,
                       fmt::format("Route: <sip:orig@192.0.2.9:5060;lr>\r\nP-Asserted-Identity: "
                                   "<{}>\r\nContact: <{}>\r\nRecord-Route: {}\r\n{}",
                                   a.impu, a.contact_uri, path_a, extra));
    }
    // What has been sent, by method or status, then by port.
    std::map<std::string, std::vector<std::unique_ptr<Reply>>> all_sent() {
        std::map<std::string, std::vector<std::unique_ptr<Reply>>> out;
        for (const auto& s : transport.sent) {
            auto m = std::make_unique<Reply>(s.bytes);
            const std::string name = m->message.is_request() ? std::string(m->message.method())
                                                             : std::to_string(m->status());
            out[name].push_back(std::move(m));
        }
        transport.sent.clear();
        return out;
    }
    // Both forks of a call to sip:both.
    void ring() {
        deliver(invite("sip:both@ims.example"));
        auto sent = all_sent();
        ASSERT_EQ(sent["100"].size(), 1U);
        ASSERT_EQ(sent["INVITE"].size(), 2U);
        first = std::move(sent["INVITE"][0]);
        second = std::move(sent["INVITE"][1]);
        if (first->header(HeaderId::route) != "<sip:left@192.0.2.1:5081;lr>")
            std::swap(first, second);
    }
    static std::string answer(const Reply& forwarded, int status, std::string_view tag,
                              std::string_view extra = {}) {
        std::string out;
        sip::ResponseOptions options;
        options.to_tag = tag;
        options.copy_record_route = true;
        EXPECT_TRUE(sip::build_response(forwarded.message, status, options, out));
        out.insert(out.find("Content-Length"), extra);
        return out;
    }
    Phone left{50}, right{51};
    std::unique_ptr<Reply> first, second;
};

TEST_F(Forks, TheFirstThatAnswersTakesTheCallAndTheOthersAreCancelled) {
    ring();
    EXPECT_EQ(first->message.request_uri(), left.contact_uri);
    EXPECT_EQ(second->message.request_uri(), right.contact_uri);
    EXPECT_THAT(first->header(HeaderId::record_route),
                testing::MatchesRegex("<sip:dialog-[0-9a-f]+@192.0.2.9:5060;lr>"));
    EXPECT_NE(first->header(HeaderId::via), second->header(HeaderId::via));
    EXPECT_EQ(server->counters().forked, 1U);
    deliver(answer(*first, 180, "l"));
    deliver(answer(*second, 180, "r"));
    EXPECT_EQ(all_sent()["180"].size(), 2U);
    deliver(answer(*first, 200, "l"));
    auto sent = all_sent();
    ASSERT_EQ(sent["200"].size(), 1U);
    ASSERT_EQ(sent["CANCEL"].size(), 1U);
    const auto& cancel = *sent["CANCEL"][0];
    EXPECT_EQ(cancel.message.request_uri(), right.contact_uri);
    EXPECT_EQ(cancel.message.count(HeaderId::via), 1U);
    EXPECT_TRUE(second->header(HeaderId::via).starts_with(cancel.header(HeaderId::via)));
    EXPECT_THAT(cancel.bytes, HasSubstr("Reason: SIP;cause=200"));
    EXPECT_EQ(cancel.header(HeaderId::route), second->header(HeaderId::route));
    // Repeated until the INVITE is answered.
    advance(600ms);
    EXPECT_EQ(all_sent()["CANCEL"].size(), 1U);
    deliver(answer(*second, 487, "r"));
    sent = all_sent();
    EXPECT_EQ(sent["ACK"].size(), 1U);
    EXPECT_TRUE(sent["487"].empty()) << "the caller has its answer";
    advance(5s);
    EXPECT_TRUE(all_sent()["CANCEL"].empty());
    // The 2xx is repeated by who made it until the ACK comes.
    deliver(answer(*first, 200, "l"));
    EXPECT_EQ(all_sent()["200"].size(), 1U);
    EXPECT_EQ(server->sessions().size(), 1U);
    advance(40s);
    EXPECT_EQ(server->proxy().size(), 0U);
    EXPECT_EQ(server->proxy().index_entries(), 0U);
    EXPECT_EQ(server->transactions(), 0U);
    EXPECT_EQ(server->sessions().size(), 1U) << "the call goes on";
}

TEST_F(Forks, TheBestOfBadAnswers) {
    struct Case {
        int left, right, best;
    };
    // RFC 3261 16.7 step 6.
    for (const auto& c : {Case{486, 404, 486}, Case{500, 486, 486}, Case{302, 486, 302},
                          Case{486, 415, 415}, Case{486, 603, 603}, Case{503, 503, 500}}) {
        ring();
        deliver(answer(*first, 180, "l"));
        deliver(answer(*second, 180, "r"));
        (void)all_sent();
        deliver(answer(*first, c.left, "l"));
        auto sent = all_sent();
        EXPECT_EQ(sent.size(), 1U) << "an ACK only";
        deliver(answer(*second, c.right, "r"));
        sent = all_sent();
        ASSERT_EQ(sent.count(std::to_string(c.best)), 1U) << c.left << ' ' << c.right;
        EXPECT_EQ(sent.size(), 2U) << "with the ACK";
        EXPECT_EQ(server->sessions().size(), 0U) << "no early dialog stays";
        EXPECT_EQ(server->proxy().size(), 0U);
        advance(33s);
        transport.sent.clear();
    }
}

TEST_F(Forks, ARefusalForAllCancelsTheRest) {
    ring();
    deliver(answer(*second, 180, "r"));
    (void)all_sent();
    deliver(answer(*first, 603, "l"));
    auto sent = all_sent();
    EXPECT_EQ(sent["CANCEL"].size(), 1U);
    EXPECT_TRUE(sent["603"].empty());
    deliver(answer(*second, 487, "r"));
    EXPECT_EQ(all_sent()["603"].size(), 1U);
}

// ---- one after the other, by q (RFC 3261 16.6) ----

struct ByPreference : Forks {
    ByPreference() {
        enroll(left, "<sip:left@192.0.2.1:5081;lr>", ";q=0.5");
        enroll(right, "<sip:right@192.0.2.1:5082;lr>", ";q=0.7");
    }
    std::unique_ptr<Reply> only_invite(std::string_view route) {
        auto sent = all_sent();
        EXPECT_EQ(sent["INVITE"].size(), 1U);
        if (sent["INVITE"].empty()) return std::make_unique<Reply>("");
        EXPECT_THAT(sent["INVITE"][0]->header(HeaderId::route), HasSubstr(route));
        return std::move(sent["INVITE"][0]);
    }
};

TEST_F(ByPreference, TheNextOneRingsWhenTheBetterOneRefuses) {
    deliver(invite("sip:both@ims.example"));
    const auto better = only_invite("right");
    deliver(answer(*better, 486, "r"));
    const auto other = only_invite("left");
    deliver(answer(*other, 200, "l", "Contact: <" + left.contact_uri + ">\r\n"));
    auto sent = all_sent();
    EXPECT_EQ(sent["200"].size(), 1U);
    EXPECT_TRUE(sent["486"].empty());
    advance(40s);
    EXPECT_EQ(server->proxy().size() + server->proxy().index_entries(), 0U);
}

TEST_F(ByPreference, WhoTakesItOrRefusesForAllEndsTheSearch) {
    for (const int status : {200, 603}) {
        deliver(invite("sip:both@ims.example"));
        const auto better = only_invite("right");
        deliver(answer(*better, status, "r", "Contact: <" + right.contact_uri + ">\r\n"));
        auto sent = all_sent();
        EXPECT_EQ(sent[std::to_string(status)].size(), 1U);
        advance(40s);
        EXPECT_TRUE(all_sent()["INVITE"].empty());
        EXPECT_EQ(server->proxy().size(), 0U);
    }
}

TEST_F(ByPreference, WhoRingsTooLongIsGivenUpForTheNext) {
    deliver(invite("sip:both@ims.example"));
    const auto better = only_invite("right");
    deliver(answer(*better, 180, "r"));
    (void)all_sent();
    advance(19s);
    EXPECT_TRUE(transport.sent.empty());
    advance(1500ms);
    auto sent = all_sent();
    EXPECT_GE(sent["CANCEL"].size(), 1U);
    ASSERT_GE(sent["INVITE"].size(), 1U);
    deliver(answer(*better, 487, "r"));
    deliver(answer(*sent["INVITE"][0], 486, "l"));
    sent = all_sent();
    EXPECT_EQ(sent["408"].size(), 1U) << "nobody answered at the better one";
    EXPECT_EQ(server->proxy().size(), 0U);
}

TEST_F(ByPreference, TheCallerMayGiveUpOrWantThemAllAtOnce) {
    deliver(invite("sip:both@ims.example", "Request-Disposition: proxy, parallel\r\n"));
    EXPECT_EQ(all_sent()["INVITE"].size(), 2U);
    deliver(invite("sip:both@ims.example"));
    const auto better = only_invite("right");
    // Its registration ends: so does the search, for it is the caller's.
    registrar->deregister(a.impu);
    deliver(answer(*better, 180, "r"));
    deliver(answer(*better, 487, "r"));
    auto sent = all_sent();
    EXPECT_TRUE(sent["INVITE"].empty());
    EXPECT_EQ(sent["487"].size(), 1U);
}

TEST_F(ByPreference, WhoIsGoneWhileItWaitsIsNotCalled) {
    deliver(invite("sip:both@ims.example"));
    const auto better = only_invite("right");
    deliver(answer(*better, 180, "r"));
    ASSERT_TRUE(registrar->deregister(left.impu));
    transport.sent.clear();
    advance(25s);
    EXPECT_TRUE(all_sent()["CANCEL"].empty()) << "nobody else waits";
    deliver(answer(*better, 486, "r"));
    auto sent = all_sent();
    EXPECT_TRUE(sent["INVITE"].empty());
    EXPECT_EQ(sent["486"].size(), 1U);
    EXPECT_EQ(server->proxy().size() + server->proxy().index_entries(), 0U);
}

TEST_F(ByPreference, WhoMovesWhileItWaitsIsCalledWhereItIsNow) {
    deliver(invite("sip:both@ims.example"));
    const auto better = only_invite("right");
    left.contact_uri = "sip:moved@10.0.0.99:5061";
    enroll(left, "<sip:moved@192.0.2.1:5083;lr>", ";q=0.5");
    deliver(answer(*better, 486, "r"));
    EXPECT_EQ(only_invite("moved")->message.request_uri(), left.contact_uri);
}

TEST_F(ByPreference, WhoGivesUpHears487WhoeverDidNotAnswerBefore) {
    for (const bool late : {false, true}) {
        auto text = invite("sip:both@ims.example");
        deliver(text);
        const auto better = only_invite("right");
        deliver(answer(*better, 180, "r"));
        (void)all_sent();
        advance(20500ms);
        auto sent = all_sent();
        ASSERT_GE(sent["CANCEL"].size(), 1U);
        ASSERT_GE(sent["INVITE"].size(), 1U);
        const auto other = std::move(sent["INVITE"][0]);
        if (!late) deliver(answer(*better, 487, "r"));
        deliver(answer(*other, 180, "l"));
        text.replace(0, 6, "CANCEL");
        text.replace(text.find("1 INVITE"), 8, "1 CANCEL");
        deliver(text);
        if (late) deliver(answer(*better, 487, "r"));
        (void)all_sent();
        deliver(answer(*other, 487, "l"));
        sent = all_sent();
        EXPECT_EQ(sent["487"].size(), 1U);
        EXPECT_TRUE(sent["408"].empty());
        EXPECT_EQ(server->proxy().size(), 0U);
        advance(40s);
        transport.sent.clear();
    }
}

TEST_F(Forks, ChallengesOfAllPhonesAreOneAnswer) {
    ring();
    deliver(answer(*first, 407, "l", "Proxy-Authenticate: Digest realm=\"one\",nonce=\"1\"\r\n"));
    deliver(answer(*second, 401, "r",
                   "WWW-Authenticate: Digest realm=\"two\",nonce=\"2\"\r\n"
                   "WWW-Authenticate: Digest realm=\"three\",nonce=\"3\"\r\n"));
    auto sent = all_sent();
    ASSERT_EQ(sent["407"].size(), 1U);
    const auto& merged = sent["407"][0]->message;
    EXPECT_EQ(merged.count(HeaderId::proxy_authenticate), 1U);
    EXPECT_EQ(merged.count(HeaderId::www_authenticate), 2U);
    EXPECT_THAT(sent["407"][0]->bytes, HasSubstr("realm=\"three\",nonce=\"3\""));
}

TEST_F(Forks, TheCancelWaitsForAProvisionalAnswer) {
    ring();
    auto cancel = invite("sip:both@ims.example");
    --branch;  // of the INVITE
    cancel = invite("sip:both@ims.example");
    cancel.replace(0, 6, "CANCEL");
    cancel.replace(cancel.find("1 INVITE"), 8, "1 CANCEL");
    const auto at = cancel.find(fmt::format("z9hG4bKr{}", branch));
    cancel.replace(at, fmt::format("z9hG4bKr{}", branch).size(),
                   fmt::format("z9hG4bKr{}", branch - 1));
    (void)all_sent();
    deliver(cancel);
    auto sent = all_sent();
    EXPECT_EQ(sent["200"].size(), 1U);
    EXPECT_TRUE(sent["CANCEL"].empty());
    deliver(answer(*first, 100, {}));
    EXPECT_EQ(all_sent()["CANCEL"].size(), 1U);
    deliver(answer(*second, 180, "r"));
    EXPECT_EQ(all_sent()["CANCEL"].size(), 1U);
    deliver(answer(*first, 487, "l"));
    // One never answers its CANCEL: 64·T1, and it counts as cancelled (RFC 3261 9.1).
    advance(31s);
    EXPECT_TRUE(all_sent()["487"].empty());
    advance(3s);
    EXPECT_GE(all_sent()["487"].size(), 1U);
    advance(40s);
    EXPECT_EQ(server->proxy().size(), 0U);
}

TEST_F(Forks, TimerCEndsWhatRingsForEver) {
    ring();
    deliver(answer(*first, 486, "l"));
    deliver(answer(*second, 180, "r"));
    (void)all_sent();
    advance(170s);
    deliver(answer(*second, 180, "r"));  // starts it anew
    advance(170s);
    EXPECT_TRUE(all_sent()["CANCEL"].empty());
    advance(12s);
    ASSERT_GE(transport.sent.size(), 1U);
    EXPECT_GE(all_sent()["CANCEL"].size(), 1U);
    deliver(answer(*second, 487, "r"));
    auto sent = all_sent();
    EXPECT_TRUE(sent["487"].empty());
    EXPECT_EQ(sent["486"].size() + sent["408"].size(), 1U);
}

TEST_F(Forks, OnePhoneThatCannotBeReachedIsNotTheEnd) {
    left.contact_uri = "sip:left@10.0.0.51:5061";
    enroll(left, "<sip:left@pcscf.example;lr>");  // no address
    deliver(invite("sip:both@ims.example"));
    auto sent = all_sent();
    ASSERT_EQ(sent["INVITE"].size(), 1U);
    deliver(answer(*sent["INVITE"][0], 200, "r"));
    EXPECT_EQ(all_sent()["200"].size(), 1U);
}

TEST_F(Forks, AMessageGoesToAllAndTheFirst200Counts) {
    deliver(from_phone(a, "sip:both@ims.example"));
    auto sent = all_sent();
    ASSERT_EQ(sent["MESSAGE"].size(), 2U);
    EXPECT_FALSE(sent["MESSAGE"][0]->message.has(HeaderId::record_route));
    deliver(answer(*sent["MESSAGE"][0], 404, "x"));
    EXPECT_TRUE(transport.sent.empty());
    deliver(answer(*sent["MESSAGE"][1], 200, "y"));
    EXPECT_EQ(all_sent()["200"].size(), 1U);
    EXPECT_EQ(server->proxy().size(), 0U);
}

TEST_F(Forks, ALoopIs482) {
    ring();
    // It comes back as it went in, with our Via in it.
    auto looped = invite("sip:both@ims.example");
    const std::string call = fmt::format("Call-ID: c{}", branch);
    looped.replace(looped.find(call), call.size(), fmt::format("Call-ID: c{}", branch - 1));
    looped.insert(looped.find("Max-Forwards"),
                  "Via: " + std::string(*first->message.first_value(HeaderId::via)) + "\r\n");
    (void)all_sent();
    deliver(looped);
    EXPECT_EQ(sent()->status(), 482);
}

TEST_F(Forks, AFullTableIs503) {
    ServerConfig s;
    s.listen = {test::endpoint("192.0.2.9:5060")};
    s.max_exchanges = 1;
    server.reset();
    server = std::make_unique<Server>(s, *registrar, wheel, random);
    server->attach(transport);
    deliver(invite(left.impu));
    (void)all_sent();
    deliver(invite(left.impu));
    const auto full = sent();
    EXPECT_EQ(full->status(), 503);
    EXPECT_THAT(full->bytes, HasSubstr("Retry-After"));
}

TEST(Routing, OwnRoutesAndStrictRouters) {
    const Domain domain("ims.example", "sip:scscf.ims.example",
                        {test::endpoint("192.0.2.9:5060"), test::endpoint("[2001:db8::9]:5060")});
    SeededRandom random{3};
    const DialogTokens tokens(random);
    const auto message = [](const std::string& first, const std::string& route, bool callee) {
        return Reply(first + " SIP/2.0\r\nFrom: <sip:x@y>;tag=" + (callee ? "e" : "r") +
                     "\r\nTo: <sip:x@y>;tag=" + (callee ? "r" : "e") + "\r\nCall-ID: c\r\n" +
                     (route.empty() ? "" : "Route: " + route + "\r\n") +
                     "Content-Length: 0\r\n\r\n");
    };
    const std::string d = "sip:" + tokens.make(message("INVITE sip:x@y", {}, false).message);
    bool callee = false;
    const auto read = [&](const std::string& uri, const std::string& route) {
        return read_routing(message("BYE " + uri, route, callee).message, domain, tokens);
    };
    auto r = read("sip:a@10.0.0.1", "<" + d + "@192.0.2.9:5060;lr>, <sip:t@192.0.2.1;lr>");
    EXPECT_TRUE(r.recorded && r.ours_first);
    EXPECT_EQ(r.next_request_uri(), "sip:a@10.0.0.1");
    EXPECT_EQ(r.next_routes(), "<sip:t@192.0.2.1;lr>");
    callee = true;
    r = read("sip:a@10.0.0.1", "<" + d + "@192.0.2.9:5060;lr>, <sip:t@192.0.2.1;lr>");
    EXPECT_TRUE(r.recorded && r.ours_first);
    // Of no dialog, of another one, cut short: the way led over us, and we did not record it.
    for (const std::string& user : {std::string("sip:dialog"), d.substr(0, d.size() - 1), d + "0",
                                    d.substr(0, d.size() - 1) + (d.back() == '0' ? "1" : "0")}) {
        r = read("sip:a@10.0.0.1", "<" + user + "@192.0.2.9:5060;lr>, <sip:t@192.0.2.1;lr>");
        EXPECT_TRUE(r.ours_first && !r.recorded) << user;
        r = read(user + "@192.0.2.9:5060;lr", "<sip:t@192.0.2.1;lr>, <sip:a@10.0.0.1>");
        EXPECT_TRUE(!r.ours_first && !r.recorded) << user;
    }
    callee = false;
    r = read("sip:a@10.0.0.1", "<sip:orig@scscf.ims.example;lr>");
    EXPECT_TRUE(r.ours_first && !r.recorded);
    EXPECT_EQ(r.next_routes(), "");
    // Two entries of ours: the call crosses from one family to the other.
    r = read("sip:a@10.0.0.1",
             "<" + d + "@192.0.2.9:5060;lr>, <" + d + "@[2001:db8::9]:5060;lr>, <sip:t@x;lr>");
    EXPECT_EQ(r.next_routes(), "<sip:t@x;lr>");
    // A strict router before us, and one behind us.
    r = read(d + "@192.0.2.9:5060;lr", "<sip:t@192.0.2.1;lr>, <sip:a@10.0.0.1>");
    EXPECT_EQ(r.next_request_uri(), "sip:a@10.0.0.1");
    EXPECT_EQ(r.next_routes(), "<sip:t@192.0.2.1;lr>");
    r = read("sip:a@10.0.0.1", "<" + d + "@192.0.2.9;lr>, <sip:old@192.0.2.1>, <sip:u@x;lr>");
    EXPECT_EQ(r.next_request_uri(), "sip:old@192.0.2.1");
    EXPECT_EQ(r.next_routes(), "<sip:u@x;lr>, <sip:a@10.0.0.1>");
}

// A request within the dialog that `invite`, as it was forwarded, made: from the caller.
std::string within(const Reply& invite, std::string request, std::string_view to_tag) {
    const auto at = request.find("Call-ID: ");
    request.replace(at, request.find("\r\n", at) - at,
                    "Call-ID: " + invite.header(HeaderId::call_id));
    request.insert(request.find("\r\nCall-ID"), fmt::format(";tag={}", to_tag));
    return request;
}

TEST_F(ServerTest, ADialogWithoutRoutesGoesToTheContact) {
    enroll(b, path_b);
    deliver(request("INVITE", b.impu, "Contact: <sip:c@198.51.100.1>\r\n"));
    const Reply invite(transport.sent.back().bytes);
    transport.sent.clear();
    const std::string ours = invite.header(HeaderId::record_route);
    deliver(within(invite,
                   request("BYE", "sip:b@10.0.0.2:5061",
                           "Route: " + ours + ", <sip:token-b@192.0.2.1:5072;lr>\r\n"),
                   "b"));
    const auto forwarded = sent();
    EXPECT_EQ(forwarded->message.request_uri(), "sip:b@10.0.0.2:5061");
    EXPECT_EQ(forwarded->header(HeaderId::route), "<sip:token-b@192.0.2.1:5072;lr>");
    EXPECT_FALSE(forwarded->message.has(HeaderId::p_called_party_id));
    EXPECT_EQ(flow.remote, test::endpoint("192.0.2.1:5072"));
    // The Record-Route of one dialog is worth nothing in another one.
    for (const auto* method : {"BYE", "ACK"}) {
        auto other = request(method, "sip:x@198.51.100.7:9999", "Route: " + ours + "\r\n");
        other.insert(other.find("\r\nCall-ID"), ";tag=b");
        const bool ack = std::string_view(method) == "ACK";
        const auto garbage = server->counters().garbage;
        deliver(other);
        if (!ack) {
            EXPECT_EQ(sent()->status(), 481);
        }
        EXPECT_EQ(server->counters().garbage, garbage + (ack ? 1 : 0));
        EXPECT_TRUE(transport.sent.empty());
    }
}

// RFC 3261 16.3: only what is forwarded is counted.
TEST_F(ServerTest, WhatEndsHereNeedsNoHopMore) {
    enroll(a, path_a);
    enroll(b, path_b);
    deliver(request("OPTIONS", "sip:ims.example", {}, {}, 0));
    EXPECT_EQ(sent()->status(), 200);
    deliver(request("OPTIONS", b.impu, {}, {}, 0));
    EXPECT_EQ(sent()->status(), 483);
    EXPECT_EQ(server->counters().routed, 0U);
}

TEST_F(ServerTest, AToTagAloneMakesNobodysDialog) {
    enroll(b, path_b);
    for (const auto* method : {"BYE", "INFO", "INVITE", "ACK"}) {
        for (const auto* route :
             {"", "Route: <sip:x@198.51.100.7:9;lr>\r\n",
              "Route: <sip:dialog@192.0.2.9:5060;lr>\r\n",
              "Route: <sip:dialog@192.0.2.9:5060;lr>, <sip:x@198.51.100.7:9;lr>\r\n",
              "Route: <sip:dialog-00000000000000000000000000000000@192.0.2.9:5060;lr>\r\n",
              "Route: <sip:orig@192.0.2.9:5060;lr>, <sip:x@198.51.100.7:9;lr>\r\n"}) {
            auto text = request(method, "sip:x@198.51.100.7:9999", route);
            const auto to = text.find("\r\nCall-ID");
            text.insert(to, ";tag=b");
            const auto garbage = server->counters().garbage;
            deliver(text);
            if (std::string_view(method) == "ACK") {
                EXPECT_TRUE(transport.sent.empty());
                EXPECT_EQ(server->counters().garbage, garbage + 1);
            } else {
                EXPECT_EQ(sent()->status(), 481) << text;
            }
        }
    }
    EXPECT_EQ(server->counters().routed + server->counters().acks, 0U);
}

// ---- who it is that shares an identity ----

TEST_F(Forks, ACallerIsKnownByItsContactWhereManyShareTheIdentity) {
    for (const Phone* p : {&left, &right}) {
        deliver(request("INVITE", a.impu,
                        fmt::format("Route: <sip:orig@192.0.2.9:5060;lr>\r\nP-Asserted-Identity: "
                                    "<sip:both@ims.example>\r\nContact: <{}>\r\n",
                                    p->contact_uri)));
        auto out = all_sent();
        ASSERT_EQ(out["INVITE"].size(), 1U);
        const auto before = server->sessions().of(p->impi);
        deliver(answer(*out["INVITE"][0], 200, "t", "Contact: <" + a.contact_uri + ">\r\n"));
        EXPECT_EQ(server->sessions().of(p->impi), before + 1) << p->impi;
        transport.sent.clear();
    }
}

TEST_F(Forks, EachOfThoseWhoShareAnIdentityHearsOfItsOwnRegistration) {
    for (const Phone* p : {&left, &right}) {
        const auto subscribe = [&](std::string_view entry) {
            deliver(request("SUBSCRIBE", "sip:both@ims.example",
                            fmt::format("{}Event: reg\r\nExpires: 600\r\nP-Asserted-Identity: "
                                        "<sip:both@ims.example>\r\nContact: <{}>\r\n",
                                        entry, p->contact_uri)));
            return all_sent();
        };
        const bool is_left = p == &left;
        const std::string entries[] = {
            "Record-Route: <sip:left@192.0.2.1:5081;lr>, <sip:10.0.0.9:5062;lr>\r\n",
            "Record-Route: <sip:right@192.0.2.1:5082;lr>, <sip:10.0.0.9:5062;lr>\r\n"};
        // Whose Contact it is anybody can write.
        EXPECT_EQ(subscribe(entries[is_left ? 1 : 0])["403"].size(), 1U);
        EXPECT_EQ(subscribe("")["403"].size(), 1U);
        auto out = subscribe(entries[is_left ? 0 : 1]);
        ASSERT_EQ(out["200"].size(), 1U);
        ASSERT_EQ(out["NOTIFY"].size(), 1U);
        EXPECT_THAT(out["NOTIFY"][0]->bytes, HasSubstr("<uri>" + p->contact_uri));
    }
}

TEST_F(Forks, AnotherWhoRegistersASharedIdentityObeysForNobodyElse) {
    ASSERT_TRUE(server->reauthenticate({"sip:both@ims.example"}));  // the one who came last
    EXPECT_EQ(sent()->header(HeaderId::route), "<sip:right@192.0.2.1:5082;lr>");
    ASSERT_TRUE(registrar->deregister(left.impu));
    transport.sent.clear();
    enroll(left, "<sip:left@192.0.2.1:5081;lr>");
    ASSERT_EQ(registrar->find("sip:both@ims.example")->impi, left.impi);
    advance(61s);
    EXPECT_EQ(server->reauthentication().counters().done, 0U);
    EXPECT_EQ(server->reauthentication().counters().deregistered, 1U);
    EXPECT_NE(registrar->find_user(left.impi), nullptr);
    EXPECT_EQ(registrar->find_user(right.impi), nullptr);
}

// ---- registration state: of whom, and its end ----

struct Subscribed : Forks {
    Subscribed() { enroll(b, path_b); }
    // Of phone a; To is what it likes to write. In the dialog of `notify`, if there is one.
    std::string subscribe(std::string_view uri, std::string_view to, const Reply* notify) {
        auto text = request("SUBSCRIBE", uri,
                            fmt::format("Event: reg\r\nExpires: 600\r\nP-Asserted-Identity: "
                                        "<{}>\r\nContact: <{}>\r\n",
                                        a.impu, a.contact_uri));
        const auto set = [&](std::string_view name, const std::string& value) {
            const auto at = text.find("\r\n" + std::string(name) + ": ") + 2;
            text.replace(at, text.find("\r\n", at) - at, std::string(name) + ": " + value);
        };
        set("To", fmt::format("<{}>", to));
        if (notify != nullptr) {
            set("To", notify->header(HeaderId::from));
            set("Call-ID", notify->header(HeaderId::call_id));
            set("CSeq", "9 SUBSCRIBE");
        }
        return text;
    }
    std::unique_ptr<Reply> notify() {
        auto out = all_sent();
        EXPECT_EQ(out["NOTIFY"].size(), 1U);
        return out["NOTIFY"].empty() ? std::make_unique<Reply>("SIP/2.0 999 None\r\n\r\n")
                                     : std::move(out["NOTIFY"][0]);
    }
    void expect_own(const Reply& n) {
        EXPECT_THAT(n.bytes, HasSubstr(a.contact_uri));
        EXPECT_THAT(n.bytes, testing::Not(HasSubstr(b.contact_uri)));
    }
};

TEST_F(Subscribed, NothingTheSubscriberWritesShowsAnothersState) {
    deliver(subscribe(a.impu, b.impu, nullptr));
    const auto opening = notify();
    expect_own(*opening);
    deliver(answer(*opening, 200, "n"));
    deliver(subscribe(b.impu, b.impu, opening.get()));
    const auto refreshed = notify();
    expect_own(*refreshed);
    deliver(answer(*refreshed, 200, "n"));
    transport.sent.clear();
    advance(600s + 200ms);
    const auto last = notify();
    EXPECT_THAT(last->bytes, HasSubstr("terminated;reason=timeout"));
    expect_own(*last);
}

TEST_F(Subscribed, AnEndThatWaitsIsNotForgottenForWhatComesAfterIt) {
    deliver(subscribe(a.impu, a.impu, nullptr));
    const auto opening = notify();
    ASSERT_TRUE(registrar->deregister(a.impu));
    transport.sent.clear();
    enroll(a, path_a);
    EXPECT_TRUE(transport.sent.empty()) << "the first is not answered";
    deliver(answer(*opening, 200, "n"));
    const auto last = notify();
    EXPECT_THAT(last->bytes, HasSubstr("Subscription-State: terminated;reason=noresource"));
    EXPECT_THAT(last->bytes, HasSubstr("event=\"rejected\""))
        << "its own document, not a later one";
    EXPECT_THAT(last->bytes, testing::Not(HasSubstr("state=\"active\"")));
    deliver(answer(*last, 200, "n"));
    EXPECT_EQ(server->reg_event().subscriptions(), 0U);
}

// RFC 3261 12.2.1.1: a first hop without ;lr finds itself in the Request-URI, the target last.
TEST_F(Subscribed, AStrictRouterOnTheWayGetsItsNotify) {
    auto text = subscribe(a.impu, a.impu, nullptr);
    text.insert(text.find("Event: "),
                "Record-Route: <sip:old@192.0.2.1:5070>, <sip:new@192.0.2.2;lr>\r\n");
    deliver(text);
    const auto opening = notify();
    EXPECT_EQ(opening->message.request_uri(), "sip:old@192.0.2.1:5070");
    EXPECT_EQ(joined(opening->message, HeaderId::route),
              "<sip:new@192.0.2.2;lr>, <" + a.contact_uri + ">");
}

TEST_F(Forks, AStrictRouterOnTheWayGetsItsBye) {
    auto text = invite(left.impu);
    const std::string loose = std::string("Record-Route: ") + path_a;
    text.replace(text.find(loose), loose.size(), "Record-Route: <sip:old@192.0.2.1:5070>");
    deliver(text);
    auto out = all_sent();
    ASSERT_EQ(out["INVITE"].size(), 1U);
    deliver(answer(*out["INVITE"][0], 200, "l", "Contact: <" + left.contact_uri + ">\r\n"));
    transport.sent.clear();
    ASSERT_TRUE(registrar->deregister(a.impu));
    out = all_sent();
    ASSERT_EQ(out["BYE"].size(), 2U);
    EXPECT_EQ(out["BYE"][0]->message.request_uri(), "sip:old@192.0.2.1:5070");
    EXPECT_EQ(out["BYE"][0]->header(HeaderId::route), "<" + a.contact_uri + ">");
}

TEST_F(Subscribed, AnEndThatWaitsIsNoSubscriptionAnyMore) {
    deliver(subscribe(a.impu, a.impu, nullptr));
    const auto opening = notify();
    ASSERT_TRUE(registrar->deregister(a.impu));
    transport.sent.clear();
    enroll(a, path_a);
    EXPECT_FALSE(server->reg_event().ue_subscribed(a.impi));
    deliver(subscribe(a.impu, a.impu, opening.get()));
    EXPECT_EQ(sent()->status(), 481) << "it belongs to a registration that is over";
    // Time does not make another end of it.
    advance(20s);
    transport.sent.clear();
    deliver(answer(*opening, 200, "n"));
    const auto last = notify();
    EXPECT_THAT(last->bytes, HasSubstr("Subscription-State: terminated;reason=noresource"));
}

TEST_F(Subscribed, TheEndOfTheRegistrationOutweighsThatOfTheTime) {
    deliver(subscribe(a.impu, a.impu, nullptr));
    auto opening = notify();
    deliver(answer(*opening, 200, "n"));
    advance(590s);
    ASSERT_TRUE(registrar->rechallenge(a.impu, false));
    ASSERT_TRUE(server->reauthenticate({a.impu}));  // a NOTIFY that nobody answers
    opening = notify();
    advance(15s);
    ASSERT_TRUE(registrar->deregister(a.impu));
    transport.sent.clear();
    deliver(answer(*opening, 200, "n"));
    const auto last = notify();
    EXPECT_THAT(last->bytes, HasSubstr("Subscription-State: terminated;reason=noresource"));
    EXPECT_THAT(last->bytes, HasSubstr("event=\"rejected\""));
}

// ---- BYE ----

struct Talks : Forks {
    Talks() {
        deliver(invite(left.impu));
        auto out = all_sent();
        EXPECT_EQ(out["INVITE"].size(), 1U);
        asked = std::move(out["INVITE"].at(0));
        deliver(answer(*asked, 200, "l", "Contact: <" + left.contact_uri + ">\r\n"));
        transport.sent.clear();
        EXPECT_EQ(server->sessions().size(), 1U);
    }
    std::string bye() {
        const std::string ours = asked->header(HeaderId::record_route);
        return within(*asked,
                      request("BYE", left.contact_uri,
                              "Route: " + ours.substr(0, ours.find(',')) +
                                  ", <sip:left@192.0.2.1:5081;lr>\r\n"),
                      "l");
    }
    std::unique_ptr<Reply> asked;
};

TEST_F(Talks, AByeThatIsRefusedEndsNoSession) {
    for (const int status : {401, 403, 500, 503}) {
        deliver(bye());
        auto out = all_sent();
        ASSERT_EQ(out["BYE"].size(), 1U);
        deliver(answer(*out["BYE"][0], status, "l"));
        EXPECT_EQ(server->sessions().size(), 1U) << status;
        transport.sent.clear();
    }
    transport.accept = false;
    deliver(bye());
    transport.accept = true;
    EXPECT_EQ(server->sessions().size(), 1U) << "it was never sent";
    transport.sent.clear();
    deliver(bye());
    auto out = all_sent();
    ASSERT_EQ(out["BYE"].size(), 1U);
    deliver(answer(*out["BYE"][0], 481, "l"));
    EXPECT_EQ(server->sessions().size(), 0U);
    EXPECT_EQ(server->sessions().counters().ended, 1U);
}

TEST_F(Talks, AByeThatNobodyAnswersEndsTheSession) {
    deliver(bye());
    EXPECT_EQ(server->sessions().size(), 1U);
    advance(33s);
    EXPECT_EQ(server->sessions().size(), 0U);
}

// ---- what makes the network act ----

struct Triggers : ServerTest {
    static Subscriber listed(std::string name, std::uint64_t key,
                             std::vector<std::string> more = {}) {
        const auto rule = SubscriberRule::parse("100:001010000000001", test::seed, test::realm);
        Subscriber s;
        s.impi = name + "@ims.example";
        s.impus = {"sip:" + s.impi};
        for (auto& m : more) s.impus.push_back(std::move(m));
        s.k = rule->k(key);
        s.opc = rule->opc(key);
        return s;
    }
    Triggers() {
        EXPECT_TRUE(hss.add(listed("carol", 60)));
        EXPECT_TRUE(hss.add(listed("dave", 61)));
        carol.impi = "carol@ims.example";
        carol.impu = "sip:carol@ims.example";
        dave.impi = "dave@ims.example";
        dave.impu = "sip:dave@ims.example";
        enroll(carol, path_a);
        enroll(dave, path_b);
    }
    Result<LocalHss::Reloaded> reload(std::vector<Subscriber> list) {
        return hss.reload(std::move(list), server->from_hss());
    }
    static std::vector<Subscriber> list_of(Subscriber one, Subscriber two) {
        std::vector<Subscriber> list;
        list.push_back(std::move(one));
        list.push_back(std::move(two));
        return list;
    }
    Phone carol{60}, dave{61};
};

TEST_F(Triggers, WhoIsGoneFromTheHssIsDeregistered) {
    std::vector<Subscriber> list;
    list.push_back(listed("dave", 61));
    const auto done = reload(std::move(list));
    ASSERT_TRUE(done);
    EXPECT_EQ(done->removed, 1U);
    EXPECT_EQ(registrar->find(carol.impu), nullptr);
    EXPECT_NE(registrar->find(dave.impu), nullptr);
    EXPECT_EQ(server->from_hss_counters().terminated, 1U);
    EXPECT_EQ(registrar->counters().deactivated, 1U);
}

TEST_F(Triggers, WhoIsBarredIsDeregisteredAndMayNotRegister) {
    auto barred = listed("carol", 60);
    barred.barred = true;
    ASSERT_TRUE(reload(list_of(std::move(barred), listed("dave", 61))));
    EXPECT_EQ(registrar->find(carol.impu), nullptr);
    auto again = carol.initial();
    again.branch += "again";
    deliver(again.text());
    EXPECT_EQ(sent()->status(), 403);
    // A challenge that is out when the bar comes down leads nowhere either.
    auto renew = dave.initial();
    renew.branch += "renew";
    renew.integrity = "no";
    deliver(renew.text());
    const auto challenge = sent();
    ASSERT_EQ(challenge->status(), 401);
    auto also = listed("dave", 61);
    also.barred = true;
    auto first = listed("carol", 60);
    first.barred = true;
    ASSERT_TRUE(reload(list_of(std::move(first), std::move(also))));
    EXPECT_EQ(registrar->challenges_outstanding(), 0U);
    auto answer = dave.answer(*challenge);
    answer.branch += "renew";
    deliver(answer.text());
    EXPECT_EQ(sent()->status(), 403);
    EXPECT_EQ(registrar->registered(), 0U);
}

TEST_F(Triggers, AnotherKeyMeansReauthentication) {
    ASSERT_TRUE(reload(list_of(listed("carol", 70), listed("dave", 61))));
    const auto* binding = registrar->find(carol.impu);
    ASSERT_NE(binding, nullptr);
    EXPECT_TRUE(binding->shortened);
    EXPECT_FALSE(registrar->find(dave.impu)->shortened);
    EXPECT_EQ(server->reauthentication().counters().begun, 1U);
    const auto refer = sent();  // it has not subscribed
    EXPECT_EQ(refer->message.method(), "REFER");
}

TEST_F(Triggers, AnotherProfileIsTakenOver) {
    ASSERT_TRUE(reload(list_of(listed("carol", 60, {"tel:+49301"}), listed("dave", 61))));
    ASSERT_NE(registrar->find("tel:+49301"), nullptr);
    EXPECT_EQ(registrar->find("tel:+49301")->impi, carol.impi);
    ASSERT_TRUE(reload(list_of(listed("carol", 60), listed("dave", 61, {"tel:+49301"}))));
    EXPECT_EQ(registrar->find("tel:+49301")->impi, dave.impi);
    EXPECT_EQ(registrar->registered(), 2U);
}

TEST_F(Triggers, AListThatIsWrongChangesNothing) {
    const auto done = reload(list_of(listed("carol", 60), listed("carol", 61)));
    ASSERT_FALSE(done);
    EXPECT_THAT(done.error().text, HasSubstr("given twice"));
    EXPECT_EQ(hss.subscribers(), 102U);
    EXPECT_EQ(registrar->registered(), 2U);
    EXPECT_EQ(hss.view(dave.impi)->flag, LocalHss::Flag::registered);
    // And one that is right keeps sequence numbers and flags.
    const auto before = hss.view(dave.impi)->sqn;
    ASSERT_TRUE(reload(list_of(listed("dave", 61), listed("carol", 60))));
    EXPECT_EQ(hss.view(dave.impi)->sqn, before);
    EXPECT_EQ(hss.view(dave.impi)->flag, LocalHss::Flag::registered);
    EXPECT_EQ(server->from_hss_counters().terminated, 0U);
}

TEST_F(Triggers, ByCommand) {
    std::string answer;
    Commands commands(*server, *registrar, cx, [] { return Result<std::string>("1 removed"); });
    const auto run = [&](std::string_view line) {
        answer.clear();
        commands.execute(line, [&](std::string text) { answer = std::move(text); });
        return answer;
    };
    EXPECT_EQ(run("reload"), "ok\n1 removed");
    EXPECT_THAT(run("show carol@ims.example"), HasSubstr("sip:carol@ims.example"));
    EXPECT_THAT(run("deregister carol@ims.example --reason boredom"), StartsWith("error: "));
    EXPECT_THAT(run("deregister carol@ims.example loudly"), StartsWith("error: "));
    EXPECT_EQ(registrar->registered(), 2U);
    for (const auto* to : {"dave@ims.example", "sip:dave@ims.example"}) {
        EXPECT_EQ(run(std::string("options ") + to), "");
        EXPECT_EQ(sent()->message.request_uri(), dave.contact_uri) << to;
    }
    EXPECT_EQ(run("deregister carol@ims.example --reason deactivated"), "ok");
    EXPECT_EQ(registrar->find(carol.impu), nullptr);
    EXPECT_EQ(run("reauth dave@ims.example"), "ok");
    EXPECT_TRUE(registrar->find(dave.impu)->shortened);
    EXPECT_THAT(run("deregister nobody@ims.example"), HasSubstr("not registered"));
    Commands without(*server, *registrar, cx);
    without.execute("reload", [&](std::string text) { answer = std::move(text); });
    EXPECT_THAT(answer, StartsWith("error: there is no file"));
}

struct ByTime : ServerTest {
    ByTime() {
        ServerConfig s;
        s.listen = {test::endpoint("192.0.2.9:5060")};
        s.schedule = {.every = 1000s, .per_second = 2};
        s.reauthentication.wait = 600s;
        server.reset();
        server = std::make_unique<Server>(s, *registrar, wheel, random);
        server->attach(transport);
    }
};

TEST_F(ByTime, EachUserSoLongAfterItsLastAuthentication) {
    for (std::uint64_t i = 0; i < 20; ++i) {
        Phone p{i};
        enroll(p, path_a);
    }
    EXPECT_EQ(server->schedule().size(), 20U);
    advance(899s);
    EXPECT_EQ(server->schedule().asked(), 0U);
    advance(50s);
    const auto half = server->schedule().asked();
    EXPECT_GT(half, 2U) << "spread";
    EXPECT_LT(half, 18U);
    advance(60s);
    EXPECT_EQ(server->schedule().asked(), 20U);
    EXPECT_EQ(server->reauthentication().counters().begun, 20U);
}

TEST(ReauthenticationSchedule, EachSetOfAUserHasATimeOfItsOwn) {
    ManualClock clock;
    TimerWheel wheel(clock);
    SeededRandom random(3);
    std::vector<std::string> asked;
    ReauthenticationSchedule schedule(
        {.every = 10s, .per_second = 10}, [&](std::string_view impu) { asked.emplace_back(impu); },
        wheel, random);
    const std::vector<std::string> one = {"sip:a@y", "sip:b@y"}, other = {"sip:c@y"};
    const auto tell = [&](const std::vector<std::string>& impus, sip::ContactEvent event) {
        schedule.on_registration({.impi = "u",
                                  .event = event,
                                  .impus = impus,
                                  .contact = "sip:x",
                                  .authenticated = true});
    };
    const auto advance = [&](Duration by) {
        clock.advance(by);
        wheel.advance();
    };
    tell(one, sip::ContactEvent::registered);
    tell(other, sip::ContactEvent::registered);
    EXPECT_EQ(schedule.size(), 2U);
    advance(6s);
    tell(one, sip::ContactEvent::refreshed);
    for (int i = 0; i < 50; ++i) advance(100ms);
    EXPECT_EQ(asked, other) << "the one that registered anew has time";
    tell(other, sip::ContactEvent::expired);
    EXPECT_EQ(schedule.size(), 1U);
    // Sets that became one.
    const std::vector<std::string> all = {"sip:c@y", "sip:a@y", "sip:b@y"};
    tell(all, sip::ContactEvent::refreshed);
    EXPECT_EQ(schedule.size(), 1U);
    tell(all, sip::ContactEvent::expired);
    EXPECT_EQ(schedule.size(), 0U);
}

TEST(ReauthenticationSchedule, APaceForAllAndTheEndOfEach) {
    ManualClock clock;
    TimerWheel wheel(clock);
    SeededRandom random(3);
    std::vector<TimePoint> asked;
    ReauthenticationSchedule schedule(
        {.every = 1s, .per_second = 10}, [&](std::string_view) { asked.push_back(clock.now()); },
        wheel, random);
    const std::vector<std::string> impus = {"sip:x@y"};
    const auto tell = [&](const std::string& impi, sip::ContactEvent event, bool authenticated) {
        schedule.on_registration({.impi = impi,
                                  .event = event,
                                  .impus = impus,
                                  .contact = "sip:x",
                                  .authenticated = authenticated,
                                  .user_gone = RegistrationChange::ends(event)});
    };
    for (int i = 0; i < 50; ++i) tell("u" + std::to_string(i), sip::ContactEvent::registered, true);
    tell("unchallenged", sip::ContactEvent::refreshed, false);
    EXPECT_EQ(schedule.size(), 50U);
    tell("u7", sip::ContactEvent::expired, false);
    EXPECT_EQ(schedule.size(), 49U);
    for (int i = 0; i < 1000; ++i) {
        clock.advance(10ms);
        wheel.advance();
    }
    ASSERT_EQ(asked.size(), 49U);
    for (std::size_t i = 1; i < asked.size(); ++i) EXPECT_GE(asked[i] - asked[i - 1], 99ms);
}

}  // namespace
}  // namespace gmgate::home
