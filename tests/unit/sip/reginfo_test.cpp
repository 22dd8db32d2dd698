// The documents of the registration event package, both forms: what others write is read, what is
// not one is refused, and nothing grows past its limit.

#include "control/sip/reginfo.h"

#include <gtest/gtest.h>

#include <string>

namespace gmgate::sip {
namespace {

std::string reginfo(std::string_view inside, std::string_view version = "0",
                    std::string_view state = "full") {
    return "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"" +
           std::string(version) + "\" state=\"" + std::string(state) + "\">" + std::string(inside) +
           "</reginfo>";
}
std::string contact(std::string_view attributes, std::string_view uri = "sip:a@10.2.0.1:7777") {
    return "<registration aor=\"sip:a@home\" id=\"r\" state=\"active\"><contact id=\"c\" " +
           std::string(attributes) + "><uri>" + std::string(uri) +
           "</uri></contact></registration>";
}
ErrorKind refused(RegProfile profile, const std::string& body) {
    const auto info = parse_reginfo(profile, body);
    EXPECT_FALSE(info) << body.substr(0, 200);
    return info ? ErrorKind::io : info.error().kind;
}
ErrorKind refused(const std::string& body) {
    return refused(RegProfile::rfc3680, body);
}

TEST(Reginfo, ReadsWhatACoreWrites) {
    const auto info = parse_reginfo(RegProfile::rfc3680, R"(<?xml version="1.0" encoding="UTF-8"?>
<!-- a comment -->
<reginfo xmlns="urn:ietf:params:xml:ns:reginfo" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
         version="41" state="partial">
  <registration aor=" sip:user@example.com " id="as9" state="active">
    <contact id="76" state="active" event="registered" duration-registered="7322" q="0.8" expires="3600">
      <uri>
        sip:user@pc887.example.com
      </uri>
      <display-name xml:lang="en">User &lt;one&gt;</display-name>
      <unknown-param name="methods">INVITE</unknown-param>
    </contact>
    <contact id="77" state="terminated" event="expired"><uri>sip:user@192.0.2.1;a=&quot;b&quot;</uri></contact>
    <actions xmlns="urn:3gpp"><contact/></actions>
  </registration>
  <registration aor="tel:+4930123" id="b" state="init"/>
</reginfo>)");
    ASSERT_TRUE(info) << info.error().text;
    EXPECT_EQ(info->version, 41U);
    EXPECT_FALSE(info->full);
    ASSERT_EQ(info->entries.size(), 2U);
    const RegEntry& e = info->entries[0];
    EXPECT_EQ(e.aor, "sip:user@example.com");
    EXPECT_EQ(e.state, RegState::active);
    EXPECT_FALSE(e.reauthenticate);
    ASSERT_EQ(e.contacts.size(), 2U);
    EXPECT_EQ(e.contacts[0].uri, "sip:user@pc887.example.com");
    EXPECT_TRUE(e.contacts[0].active);
    EXPECT_EQ(e.contacts[0].expires, 3600U);
    EXPECT_FALSE(e.contacts[1].active);
    EXPECT_EQ(e.contacts[1].event, ContactEvent::expired);
    EXPECT_EQ(e.contacts[1].uri, "sip:user@192.0.2.1;a=\"b\"");
    EXPECT_FALSE(e.contacts[1].expires);
    EXPECT_EQ(info->entries[1].state, RegState::init);
}

TEST(Reginfo, ANamespacePrefixIsNoObstacle) {
    const auto info = parse_reginfo(
        RegProfile::rfc3680,
        R"(<r:reginfo xmlns:r="urn:ietf:params:xml:ns:reginfo" version="1" state="full">)"
        R"(<r:registration aor="sip:a@home" id="r" state="active"><r:contact id="c" state="active" )"
        R"(event="shortened" expires="60"><r:uri>sip:a@10.2.0.1</r:uri></r:contact>)"
        R"(</r:registration><x:registration xmlns:x="urn:other" aor="sip:b@home"/></r:reginfo>)");
    ASSERT_TRUE(info) << info.error().text;
    ASSERT_EQ(info->entries.size(), 1U) << "another namespace's element is none of ours";
    EXPECT_TRUE(info->entries[0].reauthenticate);
    EXPECT_EQ(info->entries[0].contacts[0].expires, 60U);
}

// The example of the proposal, in the envelope it leaves open.
TEST(Reginfo, ReadsTheTuplesOfTheProposal) {
    const auto info = parse_reginfo(RegProfile::seed, R"(<registration-state>
        <tuple name="sip:user1_public1@home1.net">
          <status><value>re-authenticate</value></status>
        </tuple>

        <tuple name="sip:user1_public2@home1.net">
          <status> <value>re-authenticate</value> </status>
          <detail>automatically by sip:user1_public1@home1.net</detail>
        </tuple>
        <tuple name="sip:user1_public3@home1.net">
          <status><value>registered</value></status>
        </tuple>
        <tuple name="sip:user1_public4@home1.net">
          <status><value>deregistered</value></status>
        </tuple></registration-state>)");
    ASSERT_TRUE(info) << info.error().text;
    EXPECT_FALSE(info->version);
    EXPECT_TRUE(info->full);
    ASSERT_EQ(info->entries.size(), 4U);
    EXPECT_TRUE(info->entries[0].reauthenticate);
    EXPECT_EQ(info->entries[0].covered_by, "");
    EXPECT_TRUE(info->entries[1].reauthenticate);
    EXPECT_EQ(info->entries[1].covered_by, "sip:user1_public1@home1.net");
    EXPECT_FALSE(info->entries[2].reauthenticate);
    EXPECT_EQ(info->entries[2].state, RegState::active);
    EXPECT_EQ(info->entries[3].state, RegState::terminated);
}

TEST(Reginfo, WritesTheTuplesAsTheProposalHasThem) {
    RegInfo info;
    info.entries.resize(3);
    info.entries[0].aor = "sip:user1_public1@home1.net";
    info.entries[0].reauthenticate = true;
    info.entries[1].aor = "sip:user1_public2@home1.net";
    info.entries[1].reauthenticate = true;
    info.entries[1].covered_by = "sip:user1_public1@home1.net";
    info.entries[2].aor = "sip:user1_public3@home1.net";
    EXPECT_EQ(write_reginfo(RegProfile::seed, info),
              R"(<?xml version="1.0" encoding="UTF-8"?>
<registration-state>
  <tuple name="sip:user1_public1@home1.net">
    <status><value>re-authenticate</value></status>
  </tuple>
  <tuple name="sip:user1_public2@home1.net">
    <status><value>re-authenticate</value></status>
    <detail>automatically by sip:user1_public1@home1.net</detail>
  </tuple>
  <tuple name="sip:user1_public3@home1.net">
    <status><value>registered</value></status>
  </tuple>
</registration-state>
)");
}

TEST(Reginfo, WhatIsWrittenReadsAsTheSame) {
    RegInfo info;
    info.version = 4'294'967'295U;
    info.full = false;
    RegEntry e;
    e.aor = "sip:o'neil&\"<sons>\"@home";
    e.id = "r1";
    e.covered_by = "sip:b&c@home";
    e.reauthenticate = true;
    e.contacts.push_back({"c\n1", "sip:a@10.2.0.1;x=\"<&>\"", true, ContactEvent::shortened, 60});
    e.contacts.push_back({"c2", "sip:b@10.2.0.2", false, ContactEvent::rejected, {}});
    info.entries.push_back(e);
    const std::string text = write_reginfo(RegProfile::rfc3680, info);
    const auto back = parse_reginfo(RegProfile::rfc3680, text);
    ASSERT_TRUE(back) << back.error().text << '\n' << text;
    EXPECT_EQ(back->version, info.version);
    EXPECT_FALSE(back->full);
    ASSERT_EQ(back->entries.size(), 1U);
    const RegEntry& b = back->entries[0];
    EXPECT_EQ(b.aor, e.aor);
    EXPECT_EQ(b.covered_by, e.covered_by);
    EXPECT_TRUE(b.reauthenticate);
    ASSERT_EQ(b.contacts.size(), 2U);
    EXPECT_EQ(b.contacts[0].id, "c1") << "what XML cannot carry is left out";
    EXPECT_EQ(b.contacts[0].uri, e.contacts[0].uri);
    EXPECT_EQ(b.contacts[0].expires, 60U);
    EXPECT_EQ(b.contacts[1].event, ContactEvent::rejected);
    EXPECT_FALSE(b.contacts[1].active);
}

TEST(Reginfo, WhatIsNoDocumentIsRefused) {
    for (const std::string& body :
         {std::string(), std::string("not xml"), std::string("<reginfo"),
          std::string("<reginfo version=\"0\" state=\"full\"/>"),
          std::string("<reginfo xmlns=\"urn:other\" version=\"0\" state=\"full\"/>"),
          std::string("<presence xmlns=\"urn:ietf:params:xml:ns:reginfo\"/>"), reginfo("", "x"),
          reginfo("", "-1"), reginfo("", "4294967296"), reginfo("", "0", "some"),
          reginfo("") + reginfo(""), reginfo("<registration id=\"r\" state=\"active\"/>"),
          reginfo("<registration aor=\"sip:a@h\" id=\"r\" state=\"maybe\"/>"),
          reginfo(contact("state=\"idle\" event=\"created\"")),
          reginfo(contact("state=\"active\" event=\"born\"")),
          reginfo(contact("state=\"active\" event=\"created\" expires=\"soon\"")),
          reginfo(contact("state=\"active\" event=\"created\"", "")),
          "<!DOCTYPE reginfo [<!ENTITY x \"y\">]>" + reginfo(""), std::string("<\0r/>", 5)}) {
        EXPECT_EQ(refused(body), ErrorKind::invalid) << body;
    }
    EXPECT_EQ(refused(RegProfile::seed, "<registration-state><tuple/></registration-state>"),
              ErrorKind::invalid);
    EXPECT_EQ(refused(RegProfile::seed,
                      "<registration-state><tuple name=\"sip:a@h\"><status><value>asleep</value>"
                      "</status></tuple></registration-state>"),
              ErrorKind::invalid);
    EXPECT_EQ(refused(RegProfile::seed, reginfo("")), ErrorKind::invalid);
}

TEST(Reginfo, NothingGrowsPastItsLimit) {
    std::string many;
    for (std::size_t i = 0; i < max_reg_entries; ++i)
        many += "<registration aor=\"sip:a@h\" id=\"r\" state=\"init\"/>";
    EXPECT_TRUE(parse_reginfo(RegProfile::rfc3680, reginfo(many)));
    EXPECT_EQ(refused(reginfo(many + "<registration aor=\"sip:a@h\" id=\"r\" state=\"init\"/>")),
              ErrorKind::exhausted);
    std::string contacts = "<registration aor=\"sip:a@h\" id=\"r\" state=\"active\">";
    for (std::size_t i = 0; i <= max_reg_contacts; ++i)
        contacts +=
            "<contact id=\"c\" state=\"active\" event=\"created\"><uri>sip:a</uri></contact>";
    EXPECT_EQ(refused(reginfo(contacts + "</registration>")), ErrorKind::exhausted);
    EXPECT_EQ(refused(reginfo(contact("state=\"active\" event=\"created\"",
                                      std::string(max_reg_text + 1, 'x')))),
              ErrorKind::exhausted);
    EXPECT_EQ(refused(std::string(max_reginfo + 1, ' ')), ErrorKind::exhausted);
    // As deep as it goes: no recursion to run out of stack in.
    std::string deep;
    for (std::size_t i = 0; i < max_reginfo / 8; ++i) deep += "<a>";
    for (std::size_t i = 0; i < max_reginfo / 8; ++i) deep += "</a>";
    EXPECT_EQ(refused(deep), ErrorKind::invalid);
}

TEST(Reginfo, TheEventHeaderNamesTheForm) {
    EXPECT_EQ(reg_profile("reg"), RegProfile::rfc3680);
    EXPECT_EQ(reg_profile("reg;id=1"), RegProfile::rfc3680);
    EXPECT_EQ(reg_profile(" registration-state ;x"), RegProfile::seed);
    EXPECT_FALSE(reg_profile("presence"));
    EXPECT_FALSE(reg_profile("reg.winfo"));
    EXPECT_FALSE(reg_profile(""));
}

}  // namespace
}  // namespace gmgate::sip
