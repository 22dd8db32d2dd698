// C6–C8, C12: what goes wrong with the security agreement and its SAs, over the whole gateway.
// TS 33.203 clauses 7.2, 7.3.2; RFC 3329.

#include "tests/support/conformance_world.h"

namespace gmgate::test {
namespace {

std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> parts;
    std::size_t from = 0;
    for (std::size_t i = 0; i <= text.size(); ++i) {
        if (i != text.size() && text[i] != at) continue;
        std::string part = text.substr(from, i - from);
        part.erase(0, part.find_first_not_of(' '));
        parts.push_back(part);
        from = i + 1;
    }
    return parts;
}

std::string join(const std::vector<std::string>& parts, std::string_view with) {
    std::string out;
    for (const std::string& p : parts) {
        if (!out.empty()) out += with;
        out += p;
    }
    return out;
}

// The value of parameter `name` in every mechanism, or only in the n-th, becomes `value`.
std::string with(const std::string& list, std::string_view name, std::string_view value,
                 std::optional<std::size_t> only = {}) {
    auto mechanisms = split(list, ',');
    for (std::size_t i = 0; i < mechanisms.size(); ++i) {
        if (only && *only != i) continue;
        auto parameters = split(mechanisms[i], ';');
        for (auto& p : parameters) {
            if (p.starts_with(std::string(name) + "="))
                p = std::string(name) + "=" + std::string(value);
        }
        mechanisms[i] = join(parameters, ";");
    }
    return join(mechanisms, ", ");
}

std::string without_parameter(const std::string& list, std::string_view name) {
    auto mechanisms = split(list, ',');
    for (auto& m : mechanisms) {
        auto parameters = split(m, ';');
        std::erase_if(parameters,
                      [&](const std::string& p) { return p.starts_with(std::string(name) + "="); });
        m = join(parameters, ";");
    }
    return join(mechanisms, ", ");
}

std::string swapped(const std::string& list) {
    auto mechanisms = split(list, ',');
    std::swap(mechanisms[0], mechanisms[1]);
    return join(mechanisms, ", ");
}

std::string shortened(const std::string& list, std::size_t without) {
    auto mechanisms = split(list, ',');
    mechanisms.erase(mechanisms.begin() + static_cast<std::ptrdiff_t>(without));
    return join(mechanisms, ", ");
}

std::string upper(std::string text) {
    for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return text;
}

// ---- C6 ----

struct Refused {
    std::string_view name;
    std::function<void(Phone&, RegisterOptions&)> alter;
    int status;
    Reason reason;
    std::string_view header;  // of the answer
};

std::vector<Refused> unacceptable() {
    const auto numbers = [](const Phone& p) {
        return ";spi-c=" + std::to_string(p.spi_uc) + ";spi-s=" + std::to_string(p.spi_us) +
               ";port-c=" + std::to_string(p.port_uc) + ";port-s=" + std::to_string(p.port_us);
    };
    return {
        {"no Security-Client", [](Phone&, RegisterOptions& o) { o.security_client = false; }, 421,
         Reason::sec_agree_missing, "Require"},
        {"no sec-agree", [](Phone&, RegisterOptions& o) { o.require = false; }, 421,
         Reason::sec_agree_missing, "Require"},
        {"neither", [](Phone&, RegisterOptions& o) { o.security_client = o.require = false; }, 421,
         Reason::sec_agree_missing, "Require"},
        {"other mechanisms only",
         [](Phone&, RegisterOptions& o) { o.client = "digest, tls;q=0.2"; }, 494,
         Reason::no_common_algorithm, "Security-Server"},
        {"no algorithm of ours",
         [=](Phone& p, RegisterOptions& o) { o.client = "ipsec-3gpp;alg=rot13" + numbers(p); }, 494,
         Reason::no_common_algorithm, "Security-Server"},
        {"tunnel mode",
         [=](Phone& p, RegisterOptions& o) {
             o.client = "ipsec-3gpp;alg=hmac-sha-1-96;mod=tun" + numbers(p);
         },
         494, Reason::no_common_algorithm, "Security-Server"},
        {"AH",
         [=](Phone& p, RegisterOptions& o) {
             o.client = "ipsec-3gpp;alg=hmac-sha-1-96;prot=ah" + numbers(p);
         },
         494, Reason::no_common_algorithm, "Security-Server"},
        {"no alg", [=](Phone& p, RegisterOptions& o) { o.client = "ipsec-3gpp" + numbers(p); }, 400,
         Reason::security_client_malformed, "Warning"},
        {"no spi-c",
         [](Phone&, RegisterOptions& o) {
             o.client = "ipsec-3gpp;alg=hmac-sha-1-96;spi-s=1001;port-c=7001;port-s=7002";
         },
         400, Reason::security_client_malformed, "Warning"},
        {"a number that is none",
         [](Phone&, RegisterOptions& o) {
             o.client = "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=abc;spi-s=1001;port-c=7001;port-s=7002";
         },
         400, Reason::security_client_malformed, "Warning"},
        {"a number beyond 32 bits",
         [](Phone&, RegisterOptions& o) {
             o.client =
                 "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=4294967296;spi-s=1001;port-c=7001;"
                 "port-s=7002";
         },
         400, Reason::security_client_malformed, "Warning"},
        {"port 5060",
         [](Phone&, RegisterOptions& o) {
             o.client =
                 "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1000;spi-s=1001;port-c=5060;port-s=7002";
         },
         400, Reason::security_client_malformed, "Warning"},
        {"a reserved SPI",
         [](Phone&, RegisterOptions& o) {
             o.client = "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=255;spi-s=1001;port-c=7001;port-s=7002";
         },
         400, Reason::security_client_malformed, "Warning"},
        {"cut short",
         [](Phone& p, RegisterOptions& o) {
             const std::string whole = p.security_client();
             o.client = whole.substr(0, whole.rfind(';'));
         },
         400, Reason::security_client_malformed, "Warning"},
        {"no Authorization", [](Phone&, RegisterOptions& o) { o.authorization = ""; }, 403,
         Reason::no_authorization, ""},
    };
}

TEST(C6, RefusedAsSm1CameAndNothingIsForwardedOrKept) {
    for (const bool registered : {false, true}) {
        for (const Refused& c : unacceptable()) {
            SCOPED_TRACE(std::string(c.name) + (registered ? ", on the old set" : ", in clear"));
            Beginning b(registered);
            World& w = b.w;
            Phone& p = b.p;
            const auto at_home = w.home.inbox.size();
            const auto installs = w.backend.install_calls();
            const auto reserved = w.sets->stats().reserved.value();
            RegisterOptions o;
            c.alter(p, o);
            b.send_sm1(o);
            w.run();
            EXPECT_EQ(p.last_status(), c.status);
            EXPECT_EQ(p.last().set, b.old);
            EXPECT_EQ(p.last().esp, registered);
            if (!c.header.empty()) {
                EXPECT_TRUE(p.last().message.has(c.header)) << p.last().message.text;
            }
            if (c.status == 421) {
                EXPECT_EQ(p.last().message.header("Require"), "sec-agree");
            }
            if (c.status == 494) {
                EXPECT_TRUE(p.last().message.header("Security-Server").find("hmac-sha-1-96") !=
                            std::string::npos);
            }
            EXPECT_EQ(w.drops(c.reason), 1U);
            EXPECT_EQ(w.home.inbox.size(), at_home) << "nothing is forwarded";
            EXPECT_EQ(w.backend.install_calls(), installs);
            EXPECT_EQ(w.sets->stats().reserved.value(), reserved) << "nothing is allocated";
            EXPECT_EQ(w.gateway->pending(), 0U);
            EXPECT_EQ(w.settled(), b.before);
            // It does better the next time.
            EXPECT_TRUE(b.registers());
        }
    }
}

// ---- C7 ----

TEST(C7, ThePhoneAbandonsAndOurSideTimesOut) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        c.w.advance(239s);
        EXPECT_TRUE(c.w.backend.has(c.fresh));
        c.w.advance(2s);
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        EXPECT_EQ(c.w.books(), c.before);
        c.expect_as_before();
    }
}

// With another offer at once: the challenge of the first is replaced (B3), nothing waits for it.
TEST(C7, ThePhoneAbandonsAndOffersSomethingElse) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        c.p.offer = "ipsec-3gpp;alg=hmac-md5-96;ealg=null";
        if (!registered) c.p.next_ports();
        ASSERT_TRUE(c.p.challenged(registered));
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        EXPECT_EQ(c.w.gateway->pending(), 1U);
        c.expect_completes();
    }
}

// ---- C8 ----

struct Altered {
    std::string_view name;
    std::function<void(Phone&, RegisterOptions&)> alter;
    Reason reason;
};

std::vector<Altered> inconsistent() {
    using O = RegisterOptions;
    const auto verify = [](auto change) {
        return [change](Phone& p, O& o) { o.verify = change(p.pending->server); };
    };
    const auto client = [](auto change) {
        return [change](Phone& p, O& o) { o.client = change(p.security_client()); };
    };
    const Reason v = Reason::verify_mismatch;
    const Reason k = Reason::client_mismatch;
    return {
        {"no Security-Verify", [](Phone&, O& o) { o.verify = ""; }, Reason::verify_missing},
        {"order", verify([](const std::string& s) {
             return swapped(without_parameter(s, "q"));  // without q the order of writing counts
         }),
         v},
        {"q makes another order",
         verify([](const std::string& s) { return with(s, "q", "0.001", 0); }), v},
        {"spi-c", verify([](const std::string& s) { return with(s, "spi-c", "4711"); }), v},
        {"spi-s", verify([](const std::string& s) { return with(s, "spi-s", "4711"); }), v},
        {"spi-c of one", verify([](const std::string& s) { return with(s, "spi-c", "4711", 2); }),
         v},
        {"port-c", verify([](const std::string& s) { return with(s, "port-c", "6299"); }), v},
        {"port-s", verify([](const std::string& s) { return with(s, "port-s", "6101"); }), v},
        {"port-s 5060", verify([](const std::string& s) { return with(s, "port-s", "5060"); }), v},
        {"spi exchanged",
         [](Phone& p, O& o) {
             const auto& n = p.pending->numbers;
             o.verify = with(with(p.pending->server, "spi-c", std::to_string(n.spi_ps)), "spi-s",
                             std::to_string(n.spi_pc));
         },
         v},
        {"alg", verify([](const std::string& s) { return with(s, "alg", "hmac-md5-96", 2); }), v},
        {"alg unknown", verify([](const std::string& s) { return with(s, "alg", "rot13", 2); }), v},
        {"ealg", verify([](const std::string& s) { return with(s, "ealg", "null", 2); }), v},
        {"prot", verify([](const std::string& s) { return with(s, "prot", "ah", 0); }), v},
        {"mod", verify([](const std::string& s) { return with(s, "mod", "tun", 0); }), v},
        {"the strongest missing", verify([](const std::string& s) { return shortened(s, 0); }), v},
        {"the last missing",
         verify([](const std::string& s) { return shortened(s, split(s, ',').size() - 1); }), v},
        {"one twice", verify([](const std::string& s) { return s + ", " + split(s, ',')[0]; }), v},
        {"one more", verify([](const std::string& s) {
             return s + ", " + with(split(s, ',')[0], "alg", "hmac-sha-1-96");
         }),
         v},
        {"another mechanism more", verify([](const std::string& s) { return s + ", digest"; }), v},
        {"cut short", verify([](const std::string& s) { return s.substr(0, s.rfind(';')); }), v},
        {"rubbish", verify([](const std::string&) { return std::string("ipsec-3gpp"); }), v},
        {"no Security-Client", [](Phone&, O& o) { o.security_client = false; },
         Reason::client_missing},
        {"client alg", client([](const std::string& s) { return with(s, "alg", "hmac-md5-96"); }),
         k},
        {"client ealg", client([](const std::string& s) { return with(s, "ealg", "null", 1); }), k},
        {"client spi-c", client([](const std::string& s) { return with(s, "spi-c", "777"); }), k},
        {"client spi-s", client([](const std::string& s) { return with(s, "spi-s", "777"); }), k},
        {"client port-c", client([](const std::string& s) { return with(s, "port-c", "7900"); }),
         k},
        {"client port-s", client([](const std::string& s) { return with(s, "port-s", "7900"); }),
         k},
        {"client missing one", client([](const std::string& s) { return shortened(s, 1); }), k},
        {"client one more", client([](const std::string& s) {
             return s + ", " + with(split(s, ',')[0], "alg", "hmac-md5-96");
         }),
         k},
        {"other To", [](Phone&, O& o) { o.impu = "sip:mallory@home.example"; },
         Reason::identity_mismatch},
    };
}

TEST(C8, EverySingleDifferenceAbortsTheProcedureAndNothingElse) {
    for (const bool registered : {false, true}) {
        for (const Altered& a : inconsistent()) {
            SCOPED_TRACE(std::string(a.name) + (registered ? ", SM1 protected" : ", SM1 in clear"));
            Procedure c(registered);
            const auto at_home = c.w.home.inbox.size();
            const auto installs = c.w.backend.install_calls();
            RegisterOptions o;
            a.alter(c.p, o);
            c.p.send_sm7(o);
            c.w.run();
            EXPECT_EQ(c.p.last_status() / 100, 4);
            // In clear before: on the new SAs. Protected: on the old set (D6).
            EXPECT_EQ(c.p.last().set, registered ? c.old : c.fresh);
            EXPECT_EQ(c.w.home.inbox.size(), at_home) << "nothing is forwarded";
            EXPECT_EQ(c.w.drops(a.reason), 1U);
            EXPECT_EQ(c.w.backend.install_calls(), installs) << "no value was adopted";
            // The right one comes too late.
            c.p.send_sm7();
            c.w.run();
            EXPECT_EQ(c.w.home.inbox.size(), at_home);
            c.w.advance(33s);
            EXPECT_FALSE(c.w.backend.has(c.fresh)) << "the new SAs are gone";
            c.expect_as_before();
        }
    }
}

TEST(C8, WhatMeansTheSamePasses) {
    const std::vector<std::pair<std::string_view, std::function<void(Phone&, RegisterOptions&)>>>
        cases{
            {"octet by octet", [](Phone&, RegisterOptions&) {}},
            {"parameters in another order",
             [](Phone& p, RegisterOptions& o) {
                 auto mechanisms = split(p.pending->server, ',');
                 for (auto& m : mechanisms) {
                     auto parameters = split(m, ';');
                     std::reverse(parameters.begin() + 1, parameters.end());
                     m = join(parameters, " ; ");
                 }
                 o.verify = join(mechanisms, ",");
             }},
            // The offer has no order: our list decides (A8).
            {"the offer in another order",
             [](Phone& p, RegisterOptions& o) { o.client = swapped(p.security_client()); }},
            {"zero-padded numbers",
             [](Phone& p, RegisterOptions& o) {
                 const auto& n = p.pending->numbers;
                 const auto ten = [](sa::Spi spi) {
                     std::string s = std::to_string(spi);
                     return std::string(10 - s.size(), '0') + s;
                 };
                 o.verify =
                     with(with(p.pending->server, "spi-c", ten(n.spi_pc)), "spi-s", ten(n.spi_ps));
                 o.client = with(with(p.security_client(), "spi-c", ten(p.spi_uc)), "spi-s",
                                 ten(p.spi_us));
             }},
            {"upper case",
             [](Phone& p, RegisterOptions& o) { o.verify = upper(p.pending->server); }},
            {"no q, the same order",
             [](Phone& p, RegisterOptions& o) {
                 o.verify = without_parameter(p.pending->server, "q");
             }},
            {"other q, the same order, written the other way round",
             [](Phone& p, RegisterOptions& o) {
                 auto mechanisms = split(p.pending->server, ',');
                 for (std::size_t i = 0; i < mechanisms.size(); ++i)
                     mechanisms[i] = with(mechanisms[i], "q", "0." + std::to_string(800 - i));
                 std::ranges::reverse(mechanisms);
                 o.verify = join(mechanisms, ", ");
             }},
            {"defaults left out",
             [](Phone& p, RegisterOptions& o) {
                 o.verify = without_parameter(without_parameter(p.pending->server, "prot"), "mod");
             }},
            {"a header for each mechanism",
             [](Phone& p, RegisterOptions& o) {
                 const auto mechanisms = split(p.pending->server, ',');
                 o.verify = join(mechanisms, "\r\nSecurity-Verify:  ");
             }},
            {"folded",
             [](Phone& p, RegisterOptions& o) {
                 o.verify = join(split(p.pending->server, ','), ",\r\n ");
             }},
        };
    for (const bool registered : {false, true}) {
        for (const auto& [name, alter] : cases) {
            SCOPED_TRACE(name);
            Procedure c(registered);
            RegisterOptions o;
            alter(c.p, o);
            c.p.send_sm7(o);
            c.w.run();
            EXPECT_EQ(c.p.last_status(), 200);
        }
    }
}

TEST(C8, AnotherPhonesSetCannotBeTouched) {
    World w(with_gmhome());
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    const auto hers = w.set_of(alice.current());
    const Books before = w.settled();
    ASSERT_TRUE(mallory.challenged());
    const auto his = w.set_of(*mallory.pending);
    RegisterOptions o;
    o.verify = alice.current().server;  // her SPIs and ports, all of them
    mallory.send_sm7(o);
    w.run();
    EXPECT_EQ(mallory.last_status(), 403);
    EXPECT_EQ(mallory.last().set, his);
    w.expect_served(alice);
    EXPECT_EQ(alice.last().set, hers);
    EXPECT_EQ(w.settled(), before);
    // Nor with her offer in his Security-Client: her numbers are the phone's business, his set is
    // made of our own.
    RegisterOptions as_she;
    as_she.client = alice.security_client();
    mallory.send_sm1(as_she);
    w.run();
    EXPECT_EQ(mallory.last_status(), 401);
    EXPECT_EQ(w.backend.set(hers)->numbers, alice.current().numbers);
    w.expect_served(alice);
}

TEST(C8, SilentByPolicy) {
    for (const bool registered : {false, true}) {
        auto options = with_gmhome();
        options.policy.consistency_failure = registration::ConsistencyFailure::silent;
        Procedure c(registered, options);
        const auto heard = c.p.inbox.size();
        RegisterOptions o;
        o.verify = "";
        c.p.send_sm7(o);
        c.w.run();
        EXPECT_EQ(c.p.inbox.size(), heard);
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        EXPECT_EQ(c.w.drops(Reason::verify_missing), 1U);
        c.expect_as_before();
    }
}

// ---- C12 ----

TEST(C12, NoSm6ButA500ACounterAndALogLine) {
    for (const bool registered : {false, true}) {
        for (const ErrorKind kind :
             {ErrorKind::io, ErrorKind::exhausted, ErrorKind::invalid, ErrorKind::conflict}) {
            SCOPED_TRACE(registered);
            Beginning b(registered);
            World& w = b.w;
            Phone& p = b.p;
            w.backend.fail_install(kind);
            testing::internal::CaptureStderr();
            b.send_sm1();
            w.run();
            const std::string log = testing::internal::GetCapturedStderr();
            EXPECT_EQ(p.last_status(), 500);
            EXPECT_EQ(p.last().set, b.old) << "as SM1 came";
            EXPECT_FALSE(p.last().message.has("Security-Server"));
            EXPECT_FALSE(p.last().message.has("WWW-Authenticate"));
            EXPECT_TRUE(log.find(p.impi) != std::string::npos) << log;
            EXPECT_TRUE(log.find("install") != std::string::npos) << log;
            EXPECT_EQ(w.drops(Reason::install_failed), 1U);
            EXPECT_EQ(w.sets->stats().install_failed.value(), 1U);
            EXPECT_EQ(w.settled(), b.before) << "what was installed or taken is undone";
            if (registered) w.expect_served(p);
            EXPECT_TRUE(b.registers()) << "the next attempt is as good as new";
        }
    }
}

// The packet layer is full: of old sets, and of those of strangers who never answer.
TEST(C12, TheTableIsFull) {
    auto options = with_gmhome();
    options.capacity = 2;
    World w(options);
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& bob = w.phone("bob", "10.2.0.2");
    Phone& carol = w.phone("carol", "10.2.0.3");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(bob.register_once());
    const Books before = w.settled();
    EXPECT_FALSE(carol.challenged());
    EXPECT_EQ(carol.last_status(), 500);
    alice.send_protected_sm1();
    w.run();
    EXPECT_EQ(alice.last_status(), 500);
    EXPECT_TRUE(alice.last().esp);
    EXPECT_EQ(w.settled(), before);
    w.expect_served(alice, 2);
    ASSERT_TRUE(bob.deregister());
    w.advance(100s);
    EXPECT_TRUE(carol.register_once()) << "there is room again";
}

// It fails again and again: nothing adds up.
TEST(C12, HundredsOfFailuresLeaveNothing) {
    auto options = with_gmhome();
    options.capacity = 4096;  // released SPIs rest (A4)
    World w(options);
    w.backend.fail_install(ErrorKind::io, 300);
    testing::internal::CaptureStderr();
    for (int i = 0; i < 300; ++i) {
        Phone& p = w.phone("u" + std::to_string(i),
                           "10.3." + std::to_string(i / 200) + "." + std::to_string(i % 200 + 1));
        p.send_sm1();
        w.run();
        EXPECT_EQ(p.last_status(), 500);
    }
    (void)testing::internal::GetCapturedStderr();
    EXPECT_EQ(w.drops(Reason::install_failed), 300U);
    w.nothing_left();
    EXPECT_TRUE(w.phone("last", "10.4.0.1").register_once());
}

}  // namespace
}  // namespace gmgate::test
