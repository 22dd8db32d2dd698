#pragma once
// Looks for keys in the whole memory of this process (S1): which are there at all, and which in
// pages that a core dump would have. A sanitizer keeps memory of its own, where this finds nothing
// it could tell apart.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/secret.h"
#include "base/unique_fd.h"

namespace gmgate::test {

class KeySearch {
  public:
    // The octets are kept in pieces of eight, masked; the caller's copy is the caller's to wipe.
    void add(std::span<const std::uint8_t> octets) {
        for (std::size_t at = 0; at + 8 <= octets.size(); at += 8) {
            std::uint64_t piece = 0;
            std::memcpy(&piece, octets.data() + at, 8);
            if (piece != 0) pieces_.insert(piece ^ mask);
        }
    }
    [[nodiscard]] std::size_t size() const { return pieces_.size(); }

    struct Found {
        std::size_t secret = 0;  // in pages kept out of core dumps
        std::size_t in_dumps = 0;
        std::string where;  // the first of those
    };
    [[nodiscard]] Found run() const {
        Found found;
        walk([&](std::uint64_t masked, bool dumped, const std::string& mapping) {
            if (!pieces_.contains(masked)) return;
            ++(dumped ? found.in_dumps : found.secret);
            if (dumped && found.where.empty()) found.where = mapping;
        });
        return found;
    }
    // What is there already is a constant, not a key.
    void forget_what_is_there() {
        std::vector<std::uint64_t> there;
        walk([&](std::uint64_t masked, bool, const std::string&) {
            if (pieces_.contains(masked)) there.push_back(masked);
        });
        for (const std::uint64_t masked : there) pieces_.erase(masked);
    }

  private:
    static constexpr std::uint64_t mask = 0xA5C3'5A3C'96E1'780FULL;
    static constexpr std::size_t chunk = 256UL * 1024;

    template <class See>
    static void walk(const See& see) {
        struct Mapping {
            std::uint64_t begin = 0, end = 0;
            std::string line;
            bool dumped = true;
        };
        std::vector<Mapping> all;
        std::ifstream smaps("/proc/self/smaps");
        for (std::string line; std::getline(smaps, line);) {
            Mapping m;
            if (line.starts_with("VmFlags:")) {
                if (!all.empty()) all.back().dumped = line.find(" dd") == std::string::npos;
            } else if (line.find('-') < line.find(' ') &&
                       std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64, &m.begin, &m.end) == 2) {
                m.line = line;
                all.push_back(std::move(m));
            }
        }
        // What is read stays out of what is searched: it lies in a block of its own, left out.
        const SecretPages held(chunk + 8);
        const auto ours = reinterpret_cast<std::uint64_t>(held.bytes().data());
        const UniqueFd memory(::open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
        const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
        for (const Mapping& m : all) {
            if (m.line.find(" rw") == std::string::npos) continue;
            for (std::uint64_t at = m.begin; at < m.end; at += chunk) {
                const auto size = std::min<std::uint64_t>(chunk, m.end - at);
                if (at < ours + held.bytes().size() && ours < at + size) continue;
                std::vector<unsigned char> resident(size / page);
                const bool known =
                    ::mincore(reinterpret_cast<void*>(at), size, resident.data()) == 0;
                for (std::uint64_t p = 0; p < size / page; ++p) {
                    if (known && (resident[p] & 1U) == 0) continue;
                    const ssize_t n = ::pread(memory.get(), held.bytes().data(), page,
                                              static_cast<off_t>(at + p * page));
                    for (ssize_t i = 0; i + 8 <= n; i += 4) {
                        std::uint64_t piece = 0;
                        std::memcpy(&piece, held.bytes().data() + i, 8);
                        see(piece ^ mask, m.dumped, m.line);
                    }
                }
            }
        }
    }

    std::unordered_set<std::uint64_t> pieces_;
};

}  // namespace gmgate::test
