// What the kernel's refusals tell a person, and what is ours in its dumps; the rest of --esp kernel
// is proved in tests/vm.
#include "ue/xfrm.h"

#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace gmgate::ue {
namespace {

constexpr sa::Suite gcm{sa::Integrity::null, sa::Encryption::aes_gcm};

TEST(Xfrm, SaysWhatTheKernelLacks) {
    const Error no_esp = explain_xfrm_error(EPROTONOSUPPORT, gcm, true, "Requested type not found");
    EXPECT_EQ(no_esp.kind, ErrorKind::unsupported);
    EXPECT_NE(no_esp.text.find("esp6"), std::string::npos) << no_esp.text;
    EXPECT_NE(no_esp.text.find("Requested type not found"), std::string::npos) << no_esp.text;
    EXPECT_NE(explain_xfrm_error(EPROTONOSUPPORT, gcm, false, "").text.find("esp4"),
              std::string::npos);
    const Error no_algorithm = explain_xfrm_error(ENOSYS, gcm, false, "");
    EXPECT_EQ(no_algorithm.kind, ErrorKind::unsupported);
    EXPECT_NE(no_algorithm.text.find("null/aes-gcm"), std::string::npos) << no_algorithm.text;
    EXPECT_NE(no_algorithm.text.find("modules gcm"), std::string::npos) << no_algorithm.text;
}

TEST(Xfrm, SaysWhoMayAndWhatIsTaken) {
    const Error denied = explain_xfrm_error(EPERM, gcm, false, "");
    EXPECT_EQ(denied.kind, ErrorKind::denied);
    EXPECT_NE(denied.text.find("CAP_NET_ADMIN"), std::string::npos) << denied.text;
    EXPECT_EQ(explain_xfrm_error(EEXIST, gcm, false, "").kind, ErrorKind::conflict);
    EXPECT_EQ(explain_xfrm_error(ENOBUFS, gcm, false, "").kind, ErrorKind::exhausted);
    EXPECT_EQ(explain_xfrm_error(EINVAL, gcm, false, "").kind, ErrorKind::io);
}

// One message of a dump.
template <class Head>
std::vector<std::uint8_t> dumped(std::uint16_t type, const Head& head,
                                 const std::vector<xfrm_user_tmpl>& templates = {}) {
    const std::size_t list = templates.size() * sizeof(xfrm_user_tmpl);
    std::vector<std::uint8_t> out(NLMSG_SPACE(sizeof head) +
                                  (list == 0 ? 0 : NLA_HDRLEN + NLA_ALIGN(list)));
    nlmsghdr m{};
    m.nlmsg_len = static_cast<std::uint32_t>(out.size());
    m.nlmsg_type = type;
    std::memcpy(out.data(), &m, sizeof m);
    std::memcpy(out.data() + NLMSG_HDRLEN, &head, sizeof head);
    if (list != 0) {
        const nlattr a{static_cast<std::uint16_t>(NLA_HDRLEN + list), XFRMA_TMPL};
        std::memcpy(out.data() + NLMSG_SPACE(sizeof head), &a, sizeof a);
        std::memcpy(out.data() + NLMSG_SPACE(sizeof head) + NLA_HDRLEN, templates.data(), list);
    }
    return out;
}

XfrmLeavings read(std::vector<std::uint8_t> bytes) {
    XfrmLeavings out;
    read_xfrm_dump(*reinterpret_cast<const nlmsghdr*>(bytes.data()), 0x1000, 0x10, out);
    return out;
}

TEST(Xfrm, LeavingsAreKnownByTheirReqid) {
    xfrm_usersa_info state{};
    state.family = AF_INET;
    state.mode = XFRM_MODE_TRANSPORT;
    state.id.proto = IPPROTO_ESP;
    state.id.spi = htonl(0x12345678);
    state.saddr.a4 = htonl(0x0A140001);
    state.id.daddr.a4 = htonl(0x0A150001);
    for (const auto& [reqid, ours] : {std::pair{0x0FFFU, false},
                                      {0x1000U, true},
                                      {0x100FU, true},
                                      {0x1010U, false},
                                      {0U, false}}) {
        state.reqid = reqid;
        EXPECT_EQ(read(dumped(XFRM_MSG_NEWSA, state)).states.size(), ours ? 1U : 0U) << reqid;
    }
    state.reqid = 0x1005;
    const auto found = read(dumped(XFRM_MSG_NEWSA, state));
    ASSERT_EQ(found.states.size(), 1U);
    EXPECT_EQ(found.states[0].from.to_string(), "10.20.0.1");
    EXPECT_EQ(found.states[0].to.to_string(), "10.21.0.1");
    EXPECT_EQ(found.states[0].spi, 0x12345678U);
    state.family = AF_INET6;
    EXPECT_EQ(read(dumped(XFRM_MSG_NEWSA, state)).states.at(0).to.is_v6(), true);
    state.mode = XFRM_MODE_TUNNEL;
    EXPECT_EQ(read(dumped(XFRM_MSG_NEWSA, state)).size(), 0U);

    xfrm_userpolicy_info policy{};
    policy.dir = XFRM_POLICY_OUT;
    policy.sel.sport = htons(7000);
    xfrm_user_tmpl t{};
    t.id.proto = IPPROTO_ESP;
    t.mode = XFRM_MODE_TRANSPORT;
    t.reqid = 0x1001;
    const auto policies = read(dumped(XFRM_MSG_NEWPOLICY, policy, {t})).policies;
    ASSERT_EQ(policies.size(), 1U);
    EXPECT_EQ(policies[0].direction, XFRM_POLICY_OUT);
    EXPECT_EQ(policies[0].selector.sport, htons(7000));
    t.reqid = 0x2001;
    EXPECT_EQ(read(dumped(XFRM_MSG_NEWPOLICY, policy, {t})).size(), 0U);
    EXPECT_EQ(read(dumped(XFRM_MSG_NEWPOLICY, policy)).size(), 0U);
    // Not of our making, whatever its first template says.
    t.reqid = 0x1001;
    EXPECT_EQ(read(dumped(XFRM_MSG_NEWPOLICY, policy, {t, t})).size(), 0U);
}

TEST(Xfrm, ADumpThatIsCutShortShowsNothing) {
    xfrm_usersa_info state{};
    state.reqid = 0x1000;
    auto bytes = dumped(XFRM_MSG_NEWSA, state);
    nlmsghdr m{};
    std::memcpy(&m, bytes.data(), sizeof m);
    m.nlmsg_len -= 1;
    std::memcpy(bytes.data(), &m, sizeof m);
    EXPECT_EQ(read(bytes).size(), 0U);
}

}  // namespace
}  // namespace gmgate::ue
