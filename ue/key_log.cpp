#include "ue/key_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/bytes.h"

namespace gmgate::ue {

namespace {

struct Names {
    std::string encryption, encryption_key, authentication, authentication_key;
};

Names wireshark(sa::Suite suite, const sa::EspKeys& keys) {
    Names n{"NULL", "", "NULL", ""};
    const auto hex = [](std::span<const std::uint8_t> k) { return "0x" + to_hex(k); };
    switch (suite.encryption) {
        case sa::Encryption::null:
            break;
        case sa::Encryption::aes_cbc:
            n.encryption = "AES-CBC [RFC3602]";
            n.encryption_key = hex(keys.encryption());
            break;
        case sa::Encryption::des_ede3_cbc:
            n.encryption = "TripleDES-CBC [RFC2451]";
            n.encryption_key = hex(keys.encryption());
            break;
        case sa::Encryption::aes_gcm:
            n.encryption = "AES-GCM with 16 octet ICV [RFC4106]";
            n.encryption_key = hex(keys.encryption()) + to_hex(keys.salt.reveal());
            break;
    }
    switch (suite.integrity) {
        case sa::Integrity::null:
            break;
        case sa::Integrity::hmac_sha_1_96:
            n.authentication = "HMAC-SHA-1-96 [RFC2404]";
            n.authentication_key = hex(keys.integrity());
            break;
        case sa::Integrity::hmac_md5_96:
            n.authentication = "HMAC-MD5-96 [RFC2403]";
            n.authentication_key = hex(keys.integrity());
            break;
        case sa::Integrity::aes_gmac:
            n.authentication = "ANY 128 bit authentication [no checking]";
            break;
    }
    return n;
}

}  // namespace

std::string key_table_rows(const IpAddress& ue, const IpAddress& pcscf, const SaSet& set) {
    Names n = wireshark(set.suite, set.secret->keys);
    const char* family = ue.is_v6() ? "IPv6" : "IPv4";
    std::string out;
    // Who captures beyond a NAT sees another address of ours.
    const std::string us = set.encapsulated ? "*" : ue.to_string();
    const std::string them = pcscf.to_string();
    const auto row = [&](const std::string& from, const std::string& to, Spi spi) {
        out += fmt::format("\"{}\",\"{}\",\"{}\",\"0x{:08x}\",\"{}\",\"{}\",\"{}\",\"{}\"\n",
                           family, from, to, spi, n.encryption, n.encryption_key, n.authentication,
                           n.authentication_key);
    };
    row(us, them, set.numbers.spi_ps);
    row(us, them, set.numbers.spi_pc);
    row(them, us, set.numbers.spi_uc);
    row(them, us, set.numbers.spi_us);
    for (std::string* s : {&n.encryption_key, &n.authentication_key}) {
        wipe(std::span(reinterpret_cast<std::uint8_t*>(s->data()), s->size()));
    }
    return out;
}

Result<std::unique_ptr<FileKeyLog>> FileKeyLog::open(const std::string& path) {
    const int fd =
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail(ErrorKind::io, fmt::format("--keylog {}: {}", path, std::strerror(errno)));
    struct stat s{};
    if (::fstat(fd, &s) != 0 || !S_ISREG(s.st_mode) || (s.st_mode & 077U) != 0) {
        ::close(fd);
        return fail(
            ErrorKind::denied,
            fmt::format("--keylog {}: not a file only its owner may read; remove it or 'chmod 600'",
                        path));
    }
    std::FILE* file = ::fdopen(fd, "a");
    if (file == nullptr) {
        ::close(fd);
        return fail(ErrorKind::io, fmt::format("--keylog {}: {}", path, std::strerror(errno)));
    }
    return std::unique_ptr<FileKeyLog>(new FileKeyLog(file));
}

FileKeyLog::~FileKeyLog() {
    std::fclose(file_);
}

void FileKeyLog::write(const IpAddress& ue, const IpAddress& pcscf, const SaSet& set) {
    std::string rows = key_table_rows(ue, pcscf, set);
    std::fwrite(rows.data(), 1, rows.size(), file_);
    std::fflush(file_);  // whoever captures now wants to decrypt now
    wipe(std::span(reinterpret_cast<std::uint8_t*>(rows.data()), rows.size()));
}

}  // namespace gmgate::ue
