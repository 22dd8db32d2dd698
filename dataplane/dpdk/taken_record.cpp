#include "dataplane/dpdk/taken_record.h"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <net/if.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/unique_fd.h"

namespace gmgate::dataplane {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 5> changed_sysctls{{
    {"ipv6", "disable_ipv6"},
    {"ipv4", "rp_filter"},
    {"ipv4", "arp_ignore"},
    {"ipv4", "forwarding"},
    {"ipv4", "accept_redirects"},
}};
constexpr std::size_t longest = 4096;

bool is_number(std::string_view text) {
    return !text.empty() && text.size() <= 4 &&
           std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

bool TakenRecord::may_change(std::string_view family, std::string_view key) {
    return std::ranges::find(changed_sysctls, std::pair{family, key}) != changed_sysctls.end();
}

Result<void> TakenRecord::write(const std::string& path) const {
    std::ostringstream out;
    out << "interface " << index << ' ' << to_hex(mac) << '\n' << "flags " << flags << '\n';
    for (const Sysctl& s : sysctls)
        out << "sysctl " << s.family << ' ' << s.key << ' ' << s.value << '\n';
    for (const Feature& f : features) out << "feature " << f.set << ' ' << f.value << '\n';
    const std::string text = out.str();
    // Never through what lies there already: a link would have us write elsewhere.
    (void)::unlink(path.c_str());
    const UniqueFd f(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!f.valid())
        return fail(ErrorKind::denied, "cannot write " + path + ": " + std::strerror(errno));
    if (::write(f.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        return fail(ErrorKind::io, "cannot write " + path + ": " + std::strerror(errno));
    return {};
}

std::optional<TakenRecord> TakenRecord::read(const std::string& path) {
    const UniqueFd f(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat about{};
    if (!f.valid() || ::fstat(f.get(), &about) != 0) return std::nullopt;
    if (!S_ISREG(about.st_mode) || about.st_uid != ::geteuid() ||
        (about.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return std::nullopt;
    std::array<char, longest> buffer{};
    const ssize_t n = ::read(f.get(), buffer.data(), buffer.size());
    if (n <= 0 || static_cast<std::size_t>(n) == buffer.size()) return std::nullopt;
    std::istringstream in(std::string(buffer.data(), static_cast<std::size_t>(n)));
    TakenRecord r;
    std::string word;
    std::string mac;
    if (!(in >> word >> r.index >> mac) || word != "interface" || !from_hex(mac, r.mac))
        return std::nullopt;
    while (in >> word) {
        if (word == "flags") {
            if (!(in >> r.flags)) return std::nullopt;
        } else if (word == "sysctl") {
            Sysctl s;
            if (!(in >> s.family >> s.key >> s.value) || !may_change(s.family, s.key) ||
                !is_number(s.value) || r.sysctls.size() >= changed_sysctls.size())
                return std::nullopt;
            r.sysctls.push_back(std::move(s));
        } else if (word == "feature") {
            Feature feature{};
            if (!(in >> feature.set >> feature.value) ||
                (feature.set != ETHTOOL_SGRO && feature.set != ETHTOOL_SFLAGS) ||
                r.features.size() >= 2)
                return std::nullopt;
            r.features.push_back(feature);
        } else {
            return std::nullopt;
        }
    }
    r.flags &= IFF_UP | IFF_NOARP | IFF_ALLMULTI;
    return r;
}

}  // namespace gmgate::dataplane
