// What the kernel's refusals tell a person; the rest of --esp kernel is proved in tests/vm.
#include "ue/xfrm.h"

#include <gtest/gtest.h>

#include <cerrno>

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

}  // namespace
}  // namespace gmgate::ue
