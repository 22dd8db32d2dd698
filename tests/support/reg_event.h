#pragma once
// A phone that subscribes to its own registration state, and the NOTIFYs that come.

#include <utility>

#include "control/sip/reginfo.h"
#include "tests/support/conformance_world.h"

namespace gmgate::test {

inline void subscribe(Phone& p, std::string_view package = "reg", unsigned expires = 3600,
                      std::string_view more = {}, std::string_view uri = {}) {
    p.send_on(p.current(), p.request("SUBSCRIBE", uri.empty() ? std::string_view(p.impu) : uri,
                                     "Event: " + std::string(package) + "\r\nExpires: " +
                                         std::to_string(expires) + "\r\nContact: <" + p.contact() +
                                         ">\r\n" + std::string(more)));
    p.world.run();
}

// A challenged re-registration of a phone that hears a NOTIFY right behind its 200; true: 200.
inline bool renew(Phone& p) {
    if (!p.challenged(true)) return false;
    p.send_sm7();
    const auto heard = p.inbox.size();
    p.world.run();
    if (p.inbox.size() <= heard || p.inbox[heard].message.status() != 200) return false;
    p.accept();
    return true;
}

// NOTIFYs the phone was sent, oldest first.
inline std::vector<Wire> notifies(const Phone& p) {
    std::vector<Wire> found;
    for (const Wire& w : p.inbox) {
        if (w.message.is_request() && w.message.method() == "NOTIFY") found.push_back(w);
    }
    return found;
}

inline std::string body_of(const Sip& m) {
    return m.text.substr(m.text.find("\r\n\r\n") + 4);
}

inline sip::RegInfo reginfo_of(const Sip& m) {
    const auto profile = sip::reg_profile(m.header("Event"));
    EXPECT_TRUE(profile) << m.text;
    EXPECT_EQ(m.header("Content-Type"), sip::content_type(*profile));
    auto info = sip::parse_reginfo(*profile, body_of(m));
    EXPECT_TRUE(info) << (info ? "" : info.error().text) << '\n' << m.text;
    return info ? std::move(*info) : sip::RegInfo{};
}

}  // namespace gmgate::test
