// Who a request is from, what a phone and the far end may say of it, and emergency calls (E2).

#include "tests/support/calls.h"

namespace gmgate::test {
namespace {

using registration::Emergency;

// What the core gets of a MESSAGE with these header lines.
Sip at_core(World& w, Phone& p, std::string_view headers) {
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example", headers));
    w.run();
    const Wire* m = latest(w.home.inbox, "MESSAGE");
    return m == nullptr ? Sip{} : m->message;
}

TEST(Identity, OneOfTheUsersOwnElseTheDefault) {
    World w;
    w.home.associated = "<sip:%U@home.example>, <tel:+1-555-0100>, <sip:+15550100@home.example>";
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto asserted = [&](std::string_view preferred) {
        return at_core(w, p,
                       preferred.empty()
                           ? std::string()
                           : "P-Preferred-Identity: " + std::string(preferred) + "\r\n")
            .header("P-Asserted-Identity");
    };
    EXPECT_EQ(asserted(""), "<sip:alice@home.example>");
    EXPECT_EQ(asserted("<tel:+15550100>"), "<tel:+15550100>");
    EXPECT_EQ(asserted("\"A.\" <tel:+1.555.0100>"), "<tel:+15550100>");
    EXPECT_EQ(asserted("<sip:+15550100@HOME.example;user=phone>"), "<sip:+15550100@home.example>");
    EXPECT_EQ(asserted("<sip:nobody@home.example>"), "<sip:alice@home.example>");
    EXPECT_EQ(asserted("<sip:nobody@home.example>, <tel:+15550100>"), "<tel:+15550100>")
        << "the first that is its own";
    EXPECT_EQ(asserted("nonsense"), "<sip:alice@home.example>");
    w.expect_no_leak(1);
}

// An identity that the network keeps out of P-Associated-URI is barred: registered, never asserted.
TEST(Identity, ABarredOneIsNeverAsserted) {
    World w;
    w.home.associated = "<sip:real@home.example>";
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    EXPECT_EQ(
        at_core(w, p, "P-Preferred-Identity: <" + p.impu + ">\r\n").header("P-Asserted-Identity"),
        "<sip:real@home.example>");
    w.expect_no_leak(1);
}

TEST(Identity, WhatAPhoneMaySayAndWhatNot) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const Sip m = at_core(
        w, p,
        "P-Asserted-Identity: <sip:president@home.example>\r\nP-Asserted-Service: urn:x\r\n"
        "P-Access-Network-Info: 3GPP-E-UTRAN;utran-cell-id-3gpp=1,"
        " 3GPP-E-UTRAN;network-provided, IEEE-802.11;np\r\n"
        "P-Visited-Network-ID: \"elsewhere\"\r\nP-Charging-Vector: icid-value=1\r\n"
        "P-Charging-Function-Addresses: ccf=1\r\nP-Served-User: <sip:x@y.example>\r\n"
        "P-Profile-Key: <sip:x@y.example>\r\nP-User-Database: <aaa://x>\r\n"
        "Feature-Caps: *;+g.x\r\nP-Private-Network-Indication: a.example\r\nRelayed-Charge: x\r\n"
        "Cellular-Network-Info: x\r\nP-Early-Media: supported\r\nPrivacy: id\r\n"
        "P-Preferred-Service: urn:urn-7:3gpp-service.ims.icsi.mmtel\r\n"
        "Accept-Contact: *;+g.3gpp.icsi-ref=\"x\"\r\nSession-Expires: 1800\r\nX-Own: kept\r\n");
    EXPECT_EQ(m.header("P-Asserted-Identity"), "<sip:alice@home.example>");
    EXPECT_EQ(m.header("P-Access-Network-Info"), "3GPP-E-UTRAN;utran-cell-id-3gpp=1");
    for (const std::string_view name :
         {"P-Asserted-Service", "P-Visited-Network-ID", "P-Charging-Function-Addresses",
          "P-Served-User", "P-Profile-Key", "P-User-Database", "Feature-Caps",
          "P-Private-Network-Indication", "Relayed-Charge", "Cellular-Network-Info"}) {
        EXPECT_FALSE(m.has(name)) << name;
    }
    EXPECT_FALSE(m.contains("icid-value=1\r\n")) << "ours alone";
    for (const std::string_view name : {"P-Early-Media", "Privacy", "P-Preferred-Service",
                                        "Accept-Contact", "Session-Expires", "X-Own"}) {
        EXPECT_TRUE(m.has(name)) << name;
    }
    // What networks tell each other does not reach a phone, nor where its far end is.
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact(),
                   "P-Access-Network-Info: 3GPP-E-UTRAN;utran-cell-id-3gpp=2\r\n"
                   "P-Charging-Function-Addresses: ccf=1\r\nFeature-Caps: *;+g.x\r\n"
                   "P-Served-User: <sip:x@y.example>\r\nP-Called-Party-ID: <" +
                       p.impu + ">\r\nP-Early-Media: sendrecv\r\n");
    w.run();
    const Sip heard = p.last().message;
    ASSERT_EQ(heard.method(), "MESSAGE");
    for (const std::string_view name :
         {"P-Access-Network-Info", "P-Charging-Vector", "P-Charging-Function-Addresses",
          "P-Served-User", "Feature-Caps"}) {
        EXPECT_FALSE(heard.has(name)) << name;
    }
    for (const std::string_view name :
         {"P-Called-Party-ID", "P-Early-Media", "P-Asserted-Identity"}) {
        EXPECT_TRUE(heard.has(name)) << name;
    }
    p.answer(p.last(), 200);
    w.expect_no_leak(1);
}

// RFC 3323, 3325: in requests and in answers, among other values.
TEST(Identity, WhoWantsPrivacyHasIt) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    for (const auto& [privacy, hidden] : std::map<std::string, bool>{{"id", true},
                                                                     {"id;critical", true},
                                                                     {"header; ID", true},
                                                                     {"header", false},
                                                                     {"identity", false},
                                                                     {"none", false}}) {
        w.home.request("MESSAGE", w.home.paths[p.impi], p.contact(),
                       "Privacy: " + privacy + "\r\n");
        w.run();
        EXPECT_EQ(p.last().message.has("P-Asserted-Identity"), !hidden) << privacy;
        p.answer(p.last(), 200);
        w.home.silent = true;
        p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
        w.run();
        w.home.reply(*latest(w.home.inbox, "MESSAGE"), 200,
                     "P-Asserted-Identity: <sip:bob@home.example>\r\nPrivacy: " + privacy + "\r\n");
        w.run();
        EXPECT_EQ(p.last().message.has("P-Asserted-Identity"), !hidden) << privacy;
        w.home.silent = false;
    }
    w.expect_no_leak(1);
}

class Emergencies : public testing::TestWithParam<Emergency> {};

TEST_P(Emergencies, AreRefusedSentElsewhereOrForwarded) {
    World::Options options;
    options.policy.emergency = GetParam();
    options.policy.emergency_numbers = {"112", "999"};
    if (GetParam() == Emergency::forward) options.policy.e_cscf = ep("192.0.2.30:5070");
    World w(options);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    for (const std::string_view target :
         {"urn:service:sos", "URN:service:SOS.police", "tel:112", "tel:9-9-9",
          "sip:112@home.example;user=phone", "sip:112;phone-context=x@home.example"}) {
        w.home.silent = true;
        const auto at_home = w.home.inbox.size();
        p.send_on(p.current(), p.request("INVITE", target, "Contact: <" + p.contact() + ">\r\n"));
        w.run();
        switch (GetParam()) {
            case Emergency::refuse:
                EXPECT_EQ(p.last_status(), 403) << target;
                EXPECT_EQ(w.home.inbox.size(), at_home);
                break;
            case Emergency::alternative:
                EXPECT_EQ(p.last_status(), 380) << target;
                EXPECT_EQ(p.last().message.header("Content-Type"), "application/3gpp-ims+xml");
                EXPECT_TRUE(p.last().message.contains("<type>emergency</type>"));
                EXPECT_TRUE(p.last().message.contains("<action>emergency-registration</action>"));
                EXPECT_EQ(p.last().message.header("P-Asserted-Identity"), w.home.paths[p.impi])
                    << "our entry in its Path: the phone knows it is us";
                EXPECT_EQ(w.home.inbox.size(), at_home);
                break;
            case Emergency::forward: {
                ASSERT_EQ(w.home.inbox.size(), at_home + 1) << target;
                const Wire sent = w.home.inbox.back();
                EXPECT_EQ(sent.flow.remote, ep("192.0.2.30:5070"));
                EXPECT_EQ(sent.message.uri(), target);
                EXPECT_EQ(sent.message.header("Route"), "<sip:192.0.2.30:5070;lr>");
                EXPECT_EQ(sent.message.header("P-Asserted-Identity"), "<sip:alice@home.example>");
                w.home.reply(sent, 486);
                w.run();
                EXPECT_EQ(p.last_status(), 486);
                break;
            }
        }
    }
    if (GetParam() != Emergency::forward) {
        EXPECT_EQ(w.drops(Reason::emergency_call), 6U);
        // An invented To tag hides nothing.
        p.send_on(p.current(),
                  p.request("INVITE", "urn:service:sos", "To: <urn:service:sos>;tag=none\r\n"));
        w.run();
        EXPECT_EQ(w.drops(Reason::emergency_call), 7U);
    }
    w.home.silent = false;
    for (const std::string_view target :
         {"urn:service:sosx", "tel:1120", "sip:x112@home.example", "sip:sos@home.example"}) {
        const auto at_home = count_of(w.home.inbox, "MESSAGE");
        p.send_on(p.current(), p.request("MESSAGE", target));
        w.run();
        if (target.starts_with("urn")) continue;  // nobody's, but not ours to call an emergency
        EXPECT_EQ(count_of(w.home.inbox, "MESSAGE"), at_home + 1) << target;
        EXPECT_EQ(w.home.inbox.back().flow.remote, ep("192.0.2.9:6060"));
    }
    w.expect_no_leak(1);
}

INSTANTIATE_TEST_SUITE_P(Policies, Emergencies,
                         testing::Values(Emergency::refuse, Emergency::alternative,
                                         Emergency::forward));

}  // namespace
}  // namespace gmgate::test
