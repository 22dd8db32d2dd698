#include "ue/security_agreement.h"

#include <gtest/gtest.h>

#include "control/sip/message.h"
#include "control/sip/values.h"

namespace gmgate::ue {
namespace {

using sa::Encryption;
using sa::Integrity;
using sa::Suite;

constexpr Suite sha{Integrity::hmac_sha_1_96, Encryption::null};
constexpr Suite md5{Integrity::hmac_md5_96, Encryption::null};
constexpr Suite sha_cbc{Integrity::hmac_sha_1_96, Encryption::aes_cbc};

Result<std::vector<Mechanism>> parse(std::initializer_list<std::string_view> values) {
    const std::vector<std::string_view> v(values);
    return parse_security_server(v);
}

TEST(SecurityServer, AnyOrderCaseBlanksFoldsAndUnknownParameters) {
    const auto list =
        parse({"IPSEC-3gpp ; Q = 0.5;\r\n ALG=HMAC-SHA-1-96 ; foo;bar=\"b a z\"; "
               "spi-s=0000012345;spi-c = 256;port-s=6100; "
               "port-c=6200; EALG=AES-CBC; prot=ESP;mod=Trans"});
    ASSERT_TRUE(list) << list.error().text;
    ASSERT_EQ(list->size(), 1U);
    const Mechanism& m = list->front();
    EXPECT_EQ(m.suite, sha_cbc);
    EXPECT_EQ(m.q, 500);
    EXPECT_EQ(m.spi_s, 12345U);
    EXPECT_EQ(m.spi_c, 256U);
    EXPECT_EQ(m.port_s, 6100);
    EXPECT_EQ(m.port_c, 6200);
}

TEST(SecurityServer, DefaultsOfRfc) {
    const auto list =
        parse({"ipsec-3gpp;alg=hmac-md5-96;spi-c=1000;spi-s=1001;port-c=6200;port-s=6100"});
    ASSERT_TRUE(list);
    EXPECT_EQ(list->front().suite, md5);
    EXPECT_EQ(list->front().q, 1000);
}

TEST(SecurityServer, WhatThePhoneCannotUse) {
    for (const std::string_view text :
         {"digest;q=0.1",
          "ipsec-3gpp;alg=hmac-sha-1-96;prot=ah;spi-c=1000;spi-s=1001;port-c=1;port-s=2",
          "ipsec-3gpp;alg=hmac-sha-1-96;mod=tun;spi-c=1000;spi-s=1001;port-c=1;port-s=2",
          "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=255;spi-s=1001;port-c=1;port-s=2",
          "ipsec-3gpp;alg=null;ealg=null;spi-c=1000;spi-s=1001;port-c=1;port-s=2",
          "ipsec-3gpp;alg=aes-gmac;ealg=aes-cbc;spi-c=1000;spi-s=1001;port-c=1;port-s=2",
          "ipsec-3gpp;spi-c=1000;spi-s=1001;port-c=1;port-s=2", "ipsec-3gpp ; q=0.1"}) {
        const auto list = parse({text});
        ASSERT_TRUE(list) << text;
        EXPECT_FALSE(list->front().suite) << text;
    }
}

TEST(SecurityServer, Errors) {
    for (const std::string_view text :
         {"ipsec-3gpp;spi-c=4294967296", "ipsec-3gpp;spi-c=-1",
          "ipsec-3gpp;spi-c=", "ipsec-3gpp;port-s=65536", "ipsec-3gpp;port-c=12x",
          "ipsec-3gpp;q=1.5", "ipsec-3gpp;q=2", "ipsec-3gpp;q=0.1234", ";alg=x", "a;b=\x01"}) {
        EXPECT_FALSE(parse({text})) << text;
    }
    const std::vector<std::string_view> many(65, "ipsec-3gpp;q=0.1");
    EXPECT_FALSE(parse_security_server(many));
    std::string parameters = "ipsec-3gpp";
    for (int i = 0; i < 40; ++i) parameters += ";p" + std::to_string(i) + "=1";
    EXPECT_FALSE(parse({parameters}));
}

TEST(Choice, PreferenceThenOrder) {
    const auto list =
        parse({"ipsec-3gpp;q=0.1;alg=hmac-md5-96;spi-c=1000;spi-s=1001;port-c=6200;port-s=6100",
               "ipsec-3gpp;q=0.9;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c=1000;spi-s=1001;port-c=6200;"
               "port-s=6100",
               "ipsec-3gpp;q=0.9;alg=hmac-sha-1-96;spi-c=1000;spi-s=1001;port-c=6200;port-s=6100"});
    ASSERT_TRUE(list);
    const std::vector<Suite> all(sa::all_suites.begin(), sa::all_suites.end());
    EXPECT_EQ(choose(*list, all)->suite, sha_cbc) << "highest q, and of two equal ones the first";
    EXPECT_EQ(choose(*list, std::vector<Suite>{sha, md5})->suite, sha);
    EXPECT_EQ(choose(*list, std::vector<Suite>{md5})->suite, md5);
    EXPECT_EQ(choose(*list, std::vector<Suite>{{Integrity::null, Encryption::aes_gcm}}), nullptr);
}

class Styles : public ::testing::TestWithParam<Style> {};

// The style is handwriting: what it says must be the same for all.
TEST_P(Styles, ClientSaysWhatItShould) {
    const std::vector<Suite> suites(sa::all_suites.begin(), sa::all_suites.end());
    const std::string lines = security_client(GetParam(), suites, 4711, 4712, 40001, 40002);
    std::string message = "REGISTER sip:x SIP/2.0\r\n" + lines + "\r\n";
    sip::Message m;
    ASSERT_EQ(m.parse(message), sip::ParseStatus::ok);
    std::vector<std::string_view> values;
    for (const auto& v : m.values(sip::HeaderId::security_client)) values.push_back(v.text);
    const auto list = parse_security_server(values);  // the same grammar
    ASSERT_TRUE(list) << list.error().text;
    ASSERT_EQ(list->size(), suites.size());
    for (std::size_t i = 0; i < suites.size(); ++i) {
        EXPECT_EQ((*list)[i].suite, suites[i]);
        EXPECT_EQ((*list)[i].spi_c, 4711U);
        EXPECT_EQ((*list)[i].spi_s, 4712U);
        EXPECT_EQ((*list)[i].port_c, 40001);
        EXPECT_EQ((*list)[i].port_s, 40002);
    }
}

TEST_P(Styles, BothModesBehindANat) {
    const std::vector<Suite> suites{sha, md5};
    const std::string lines = security_client(GetParam(), suites, 4711, 4712, 40001, 40002, true);
    std::string message = "REGISTER sip:x SIP/2.0\r\n" + lines + "\r\n";
    sip::Message m;
    ASSERT_EQ(m.parse(message), sip::ParseStatus::ok);
    std::vector<std::string_view> values;
    for (const auto& v : m.values(sip::HeaderId::security_client)) values.push_back(v.text);
    const auto list = parse_security_server(values);
    ASSERT_TRUE(list) << list.error().text;
    ASSERT_EQ(list->size(), 4U);
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ((*list)[i].suite, suites[i % 2]);
        EXPECT_EQ((*list)[i].encapsulated, i >= 2);
    }
    const auto encapsulated = std::span<const Mechanism>(*list).subspan(2);
    EXPECT_EQ(choose(encapsulated, suites), nullptr);
    EXPECT_EQ(choose(encapsulated, suites, true), encapsulated.data());
}

TEST_P(Styles, VerifyKeepsMeaningAndOrder) {
    const auto list =
        parse({"ipsec-3gpp;q=0.9;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c=300;spi-s=4000000000;port-c="
               "6200;port-s=6100;x-new=1",
               "digest;q=0.5",
               "ipsec-3gpp; q=0.1; alg=hmac-md5-96; spi-c=300; spi-s=4000000000; port-c=6200; "
               "port-s=6100"});
    ASSERT_TRUE(list);
    const std::string direct = security_verify(GetParam(), *list);
    const std::string text = verify_template(GetParam(), *list, list->front());
    SaNumbers n;
    n.spi_pc = 300;
    n.spi_ps = 4000000000;
    n.port_pc = 6200;
    n.port_ps = 6100;
    const std::string expanded = expand_verify(GetParam(), text, n);
    for (const std::string& lines : {direct, expanded}) {
        const std::string message = "REGISTER sip:x SIP/2.0\r\n" + lines + "\r\n";
        sip::Message m;
        ASSERT_EQ(m.parse(message), sip::ParseStatus::ok) << lines;
        std::vector<std::string_view> values;
        for (const auto& v : m.values(sip::HeaderId::security_verify)) values.push_back(v.text);
        const auto back = parse_security_server(values);
        ASSERT_TRUE(back) << lines;
        ASSERT_EQ(back->size(), 3U);
        for (std::size_t i = 0; i < 3; ++i) {
            EXPECT_EQ((*back)[i].name, (*list)[i].name);
            EXPECT_EQ((*back)[i].suite, (*list)[i].suite);
            EXPECT_EQ((*back)[i].q, (*list)[i].q);
            EXPECT_EQ((*back)[i].spi_c, (*list)[i].spi_c);
            EXPECT_EQ((*back)[i].spi_s, (*list)[i].spi_s);
            EXPECT_EQ((*back)[i].port_c, (*list)[i].port_c);
            EXPECT_EQ((*back)[i].port_s, (*list)[i].port_s);
            EXPECT_EQ((*back)[i].parameters.size(), (*list)[i].parameters.size());
        }
    }
    EXPECT_EQ(text.find("4000000000"), std::string::npos)
        << "shared by all phones: no numbers of one";
}

INSTANTIATE_TEST_SUITE_P(All, Styles, ::testing::ValuesIn(all_styles),
                         [](const auto& p) { return std::string(name(p.param)); });

}  // namespace
}  // namespace gmgate::ue
