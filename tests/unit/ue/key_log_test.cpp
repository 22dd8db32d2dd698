// The key table, judged by tshark where there is one.
#include "ue/key_log.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/unit/ue/test_data.h"
#include "ue/packet.h"

namespace gmgate::ue {
namespace {

using test::key;

struct TempDir {
    std::filesystem::path path;
    TempDir() {
        std::string name = (std::filesystem::temp_directory_path() / "gmue-test-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
        path = name;
    }
    ~TempDir() { std::filesystem::remove_all(path); }
};

SaSet make_set(sa::Suite suite, Spi first) {
    SaSet s;
    s.suite = suite;
    s.numbers = {first, first + 1, first + 2, first + 3, 40001, 40002, 6200, 6100};
    s.secret->keys = sa::expand_keys(suite, key("000102030405060708090a0b0c0d0e0f"),
                                     key("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));
    return s;
}

TEST(KeyTable, Rows) {
    const auto ue = *IpAddress::parse("10.20.0.1"), p = *IpAddress::parse("10.21.0.1");
    const std::string rows = key_table_rows(
        ue, p, make_set({sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc}, 0x1000));
    EXPECT_EQ(
        rows.substr(0, rows.find('\n')),
        R"("IPv4","10.20.0.1","10.21.0.1","0x00001003","AES-CBC [RFC3602]","0x000102030405060708090a0b0c0d0e0f","HMAC-SHA-1-96 [RFC2404]","0xf0f1f2f3f4f5f6f7f8f9fafbfcfdfeff00000000")");
    EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), 4);
    EXPECT_NE(rows.find("\"10.21.0.1\",\"10.20.0.1\",\"0x00001000\""), std::string::npos)
        << "spi_uc is ours, inbound";
}

TEST(KeyLogFile, OnlyTheOwnerReadsIt) {
    const TempDir dir;
    const std::string path = dir.path / "esp_sa";
    {
        auto log = FileKeyLog::open(path);
        ASSERT_TRUE(log) << log.error().text;
        (*log)->write(*IpAddress::parse("10.20.0.1"), *IpAddress::parse("10.21.0.1"),
                      make_set(sa::all_suites[0], 0x1000));
    }
    struct stat s{};
    ASSERT_EQ(stat(path.c_str(), &s), 0);
    EXPECT_EQ(s.st_mode & 0777U, 0600U);
    const auto size = s.st_size;
    EXPECT_GT(size, 0);
    EXPECT_TRUE(FileKeyLog::open(path)) << "appends";
    ASSERT_EQ(chmod(path.c_str(), 0644), 0);
    EXPECT_FALSE(FileKeyLog::open(path)) << "others could read it";
    std::filesystem::create_symlink("esp_sa", dir.path / "link");
    EXPECT_FALSE(FileKeyLog::open(dir.path / "link"));
    EXPECT_FALSE(FileKeyLog::open(dir.path / "absent" / "x"));
}

void put32(std::ofstream& f, std::uint32_t v) {
    f.write(reinterpret_cast<const char*>(&v), 4);
}

// One packet of every suite, both families and both transports: what does tshark make of it with
// our table?
TEST(KeyTable, TsharkOpensOurEsp) {
    if (std::system("command -v tshark >/dev/null 2>&1") != 0)
        GTEST_SKIP() << "no tshark here; deploy/install-deps test installs it";
    const TempDir dir;
    std::ofstream table(dir.path / "esp_sa");
    std::ofstream pcap(dir.path / "x.pcap", std::ios::binary);
    put32(pcap, 0xA1B2C3D4);
    put32(pcap, 0x00040002);
    for (const std::uint32_t v : {0U, 0U, 65535U, 101U}) put32(pcap, v);  // raw IP
    EspCrypto crypto;
    SeededRandom random(1);
    std::uint32_t n = 0;
    std::vector<std::string> methods;
    for (const auto suite : sa::all_suites) {
        for (const bool v6 : {false, true}) {
            const auto ue = *IpAddress::parse(v6 ? "fd00:20::1" : "10.20.0.1");
            const auto p = *IpAddress::parse(v6 ? "fd00:21::1" : "10.21.0.1");
            const SaSet set = make_set(suite, 0x1000 + n * 16);
            table << key_table_rows(ue, p, set);
            // A method of its own for each packet, so that the answer says which ones were opened.
            const std::string method = fmt::format("X{}", n);
            const std::string text = fmt::format(
                "{} sip:x SIP/2.0\r\nCall-ID: {}\r\nCSeq: 1 {}\r\nContent-Length: 0\r\n\r\n",
                method, n, method);
            Bytes inner, esp;
            build_udp({ue, set.numbers.port_uc}, {p, 5060}, as_bytes(text), inner);
            EspCrypto::Packet packet;
            packet.spi = set.numbers.spi_ps;
            packet.sequence = 1;
            packet.payload = inner;
            crypto.seal(suite, set.secret->keys, packet, random, esp);
            std::vector<Bytes> ip;
            build_ip(ue, p, protocol_esp, esp, 1500, 1, ip);
            put32(pcap, n);
            put32(pcap, 0);
            put32(pcap, static_cast<std::uint32_t>(ip[0].size()));
            put32(pcap, static_cast<std::uint32_t>(ip[0].size()));
            pcap.write(reinterpret_cast<const char*>(ip[0].data()),
                       static_cast<std::streamsize>(ip[0].size()));
            // AES-GMAC is beyond Wireshark 4.0: see key_log.h.
            if (suite.integrity != sa::Integrity::aes_gmac) methods.push_back(method);
            ++n;
        }
    }
    table.close();
    pcap.close();
    const std::string command = fmt::format(
        "WIRESHARK_CONFIG_DIR={0} tshark -r {0}/x.pcap -o esp.enable_encryption_decode:TRUE -o "
        "esp.enable_authentication_check:TRUE "
        "-T fields -E separator=/s -e sip.Method -e esp.icv_good -e esp.icv_bad 2>{0}/err",
        dir.path.string());
    FILE* out = popen(command.c_str(), "r");
    ASSERT_NE(out, nullptr);
    std::string answer;
    std::array<char, 4096> buffer{};
    for (std::size_t got = 0; (got = fread(buffer.data(), 1, buffer.size(), out)) > 0;)
        answer.append(buffer.data(), got);
    ASSERT_EQ(pclose(out), 0);
    for (const auto& m : methods)
        EXPECT_NE(answer.find(m + " "), std::string::npos) << m << "\n" << answer;
    std::size_t checked = 0;
    for (std::size_t at = 0; (at = answer.find(" 1 0\n", at)) != std::string::npos; ++at) ++checked;
    RecordProperty("icv_checked", static_cast<int>(checked));
    EXPECT_GE(checked, 12U) << "six HMAC suites, two families, ICVs found good\n" << answer;
}

}  // namespace
}  // namespace gmgate::ue
