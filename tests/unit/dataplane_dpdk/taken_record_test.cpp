// The file that says what to put back is no way to make a privileged program do more than that.

#include "dataplane/dpdk/taken_record.h"

#include <gtest/gtest.h>
#include <linux/ethtool.h>
#include <net/if.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace gmgate::dataplane {
namespace {

class TakenRecordTest : public testing::Test {
  protected:
    TakenRecordTest() {
        std::string name = testing::TempDir() + "gmgate-record-XXXXXX";
        folder_ = ::mkdtemp(name.data());
        path_ = folder_ / "taken";
    }
    ~TakenRecordTest() override { std::filesystem::remove_all(folder_); }
    static TakenRecord record() {
        TakenRecord r;
        r.index = 7;
        r.mac = {2, 0, 0, 0, 0, 1};
        r.flags = IFF_UP | IFF_NOARP;
        r.sysctls = {{"ipv4", "rp_filter", "2"}, {"ipv6", "disable_ipv6", "0"}};
        r.features = {{ETHTOOL_SGRO, 1}};
        return r;
    }
    std::optional<TakenRecord> read(const std::string& text) {
        std::ofstream(path_, std::ios::trunc) << text;
        std::filesystem::permissions(path_, std::filesystem::perms{0600});
        return TakenRecord::read(path_);
    }
    std::filesystem::path folder_;
    std::filesystem::path path_;
};

TEST_F(TakenRecordTest, ComesBackAsWritten) {
    ASSERT_TRUE(record().write(path_));
    EXPECT_EQ(TakenRecord::read(path_), record());
    struct stat about{};
    ASSERT_EQ(::stat(path_.c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777U, 0600U);
    EXPECT_FALSE(TakenRecord::read(folder_ / "none"));
}

TEST_F(TakenRecordTest, NamesNothingElse) {
    const std::string head = "interface 7 020000000001\nflags 1\n";
    EXPECT_TRUE(read(head + "sysctl ipv4 forwarding 0\n"));
    for (const char* bad :
         {"sysctl ipv4 ../../../kernel/core_pattern 1\n", "sysctl ../core rp_filter 1\n",
          "sysctl ipv4 accept_source_route 1\n", "sysctl ipv4 rp_filter |/bin/sh\n",
          "feature 1 1\n", "shell x\n", "flags x\n"}) {
        EXPECT_FALSE(read(head + bad)) << bad;
    }
    EXPECT_FALSE(read(""));
    EXPECT_FALSE(read("interface x y\n"));
    EXPECT_FALSE(read(head + std::string(5000, ' ')));
    const auto flags = read("interface 7 020000000001\nflags 4294967295\n");
    ASSERT_TRUE(flags);
    EXPECT_EQ(flags->flags, static_cast<unsigned>(IFF_UP | IFF_NOARP | IFF_ALLMULTI));
}

TEST_F(TakenRecordTest, FollowsNoLinkAndTrustsNoOthersFile) {
    const auto other = folder_ / "other";
    ASSERT_TRUE(record().write(other));
    std::filesystem::create_symlink(other, path_);
    EXPECT_FALSE(TakenRecord::read(path_));
    // Writing replaces the link and leaves alone what it pointed at.
    std::ofstream(other, std::ios::trunc) << "precious";
    ASSERT_TRUE(record().write(path_));
    EXPECT_FALSE(std::filesystem::is_symlink(path_));
    std::string left;
    std::ifstream(other) >> left;
    EXPECT_EQ(left, "precious");
    std::filesystem::permissions(path_, std::filesystem::perms{0620});
    EXPECT_FALSE(TakenRecord::read(path_));
    std::filesystem::remove(path_);
    ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
    EXPECT_FALSE(TakenRecord::read(path_)) << "and it does not wait";
}

}  // namespace
}  // namespace gmgate::dataplane
