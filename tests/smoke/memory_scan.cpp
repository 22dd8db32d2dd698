// Looks for keys in the memory of a running process (S1), as one with the right to read
// /proc/PID/mem can.
//
//   memory_scan [--dumpable] PID < patterns
//
// A line of patterns: a name without blanks, a blank, octets in hex. Each is looked for in pieces
// of eight octets, so that half a key that was overwritten in part is found too. Prints a line for
// each piece found, with the mapping it lies in, and then how much was read. Exit status: 0 nothing
// found, 1 something found, 2 the memory cannot be read.
//
// With --dumpable what lies in pages that are kept out of core dumps (MADV_DONTDUMP: base/secret.h)
// is where it may be: those pieces are counted, and 1 means that something lies elsewhere.

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"

namespace {

constexpr std::size_t piece = 8;
constexpr std::size_t chunk = 1UL << 20U;
constexpr std::size_t most_lines = 200;

class Patterns {
  public:
    Patterns() : maybe_(1UL << 22U) {}
    // False: not hex, or shorter than a piece.
    bool add(const std::string& name, const std::string& hex) {
        std::vector<std::uint8_t> octets(hex.size() / 2);
        if (octets.size() < piece || !gmgate::from_hex(hex, octets)) return false;
        for (std::size_t at = 0; at + piece <= octets.size(); at += piece) {
            std::uint64_t value = 0;
            std::memcpy(&value, octets.data() + at, piece);
            if (value == 0) continue;
            names_[value] = name + "+" + std::to_string(at);
            maybe_[slot(value)] = true;
        }
        return true;
    }
    [[nodiscard]] const std::string* find(std::uint64_t value) const {
        if (!maybe_[slot(value)]) return nullptr;
        const auto it = names_.find(value);
        return it == names_.end() ? nullptr : &it->second;
    }
    [[nodiscard]] std::size_t size() const { return names_.size(); }

  private:
    static std::size_t slot(std::uint64_t value) {
        return static_cast<std::size_t>((value * 0x9E3779B97F4A7C15ULL) >> 42U);
    }
    std::vector<bool> maybe_;
    std::unordered_map<std::uint64_t, std::string> names_;
};

struct Mapping {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::string name;
    bool in_dumps = true;
};

std::vector<Mapping> mappings_of(const std::string& process) {
    std::vector<Mapping> found;
    std::ifstream in(process + "/smaps");
    bool readable = false;  // the mapping whose lines these are
    for (std::string line; std::getline(in, line);) {
        Mapping m;
        std::array<char, 5> rights{};
        int rest = 0;
        if (line.starts_with("VmFlags:")) {
            if (readable) found.back().in_dumps = line.find(" dd") == std::string::npos;
            continue;
        }
        if (line.find('-') >= line.find(' ')) continue;  // a figure of the mapping
        readable = false;
        if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %*s %n", &m.begin,
                        &m.end, rights.data(), &rest) < 3 ||
            rights[0] != 'r') {
            continue;
        }
        m.name = static_cast<std::size_t>(rest) < line.size()
                     ? line.substr(static_cast<std::size_t>(rest))
                     : std::string("anonymous");
        if (m.name == "[vvar]" || m.name == "[vsyscall]" || m.name == "[vvar_vclock]") continue;
        found.push_back(std::move(m));
        readable = true;
    }
    return found;
}

// Which of the pages hold anything: address space that was only reserved is not read.
std::vector<bool> present_pages(int pagemap, std::uint64_t at, std::size_t pages) {
    std::vector<std::uint64_t> entries(pages, ~0ULL);
    const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    const ssize_t n = pagemap < 0 ? -1
                                  : pread(pagemap, entries.data(), pages * sizeof(std::uint64_t),
                                          static_cast<off_t>(at / page * sizeof(std::uint64_t)));
    std::vector<bool> present(pages, true);
    if (n != static_cast<ssize_t>(pages * sizeof(std::uint64_t))) return present;
    for (std::size_t i = 0; i < pages; ++i) present[i] = (entries[i] >> 62U) != 0;  // or swapped
    return present;
}

}  // namespace

int main(int argc, char** argv) {
    const bool dumpable = argc == 3 && std::string(argv[1]) == "--dumpable";
    if (argc != (dumpable ? 3 : 2)) {
        std::fprintf(stderr, "usage: memory_scan [--dumpable] PID < patterns\n");
        return 2;
    }
    Patterns patterns;
    for (std::string name, hex; std::cin >> name >> hex;) {
        if (!patterns.add(name, hex)) {
            std::fprintf(stderr, "%s: not a pattern\n", name.c_str());
            return 2;
        }
    }
    const std::string process = "/proc/" + std::string(argv[argc - 1]);
    const int memory = ::open((process + "/mem").c_str(), O_RDONLY | O_CLOEXEC);
    if (memory < 0) {
        std::perror((process + "/mem").c_str());
        return 2;
    }
    const int pagemap = ::open((process + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC);
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    std::vector<std::uint8_t> buffer(chunk + piece);
    std::uint64_t read = 0;
    std::size_t hits = 0;
    std::size_t kept_apart = 0;
    for (const Mapping& m : mappings_of(process)) {
        std::size_t kept = 0;  // the last octets of the chunk before: a piece may lie across
        for (std::uint64_t at = m.begin; at < m.end; at += chunk) {
            const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, m.end - at));
            const auto present = present_pages(pagemap, at, size / page);
            for (std::size_t p = 0; p < size / page;) {
                if (!present[p]) {
                    kept = 0;
                    ++p;
                    continue;
                }
                std::size_t run = 1;
                while (p + run < size / page && present[p + run]) ++run;
                const std::uint64_t from = at + p * page;
                p += run;
                const ssize_t n =
                    pread(memory, buffer.data() + kept, run * page, static_cast<off_t>(from));
                if (n <= 0) {
                    kept = 0;
                    continue;
                }
                read += static_cast<std::uint64_t>(n);
                const std::size_t held = kept + static_cast<std::size_t>(n);
                for (std::size_t i = 0; i + piece <= held; ++i) {
                    std::uint64_t value = 0;
                    std::memcpy(&value, buffer.data() + i, piece);
                    const std::string* name = patterns.find(value);
                    if (name == nullptr) continue;
                    if (dumpable && !m.in_dumps) {
                        ++kept_apart;
                        continue;
                    }
                    if (++hits <= most_lines) {
                        std::printf("%s at %#" PRIx64 " in %s (%#" PRIx64 "-%#" PRIx64 ")\n",
                                    name->c_str(), from - kept + i, m.name.c_str(), m.begin, m.end);
                    }
                }
                kept = std::min(piece - 1, held);
                std::memmove(buffer.data(), buffer.data() + held - kept, kept);
            }
        }
    }
    if (dumpable)
        std::printf("%zu in pages that are kept out of core dumps, %zu elsewhere\n", kept_apart,
                    hits);
    std::printf("%zu pieces looked for in %" PRIu64 " MiB: %zu found\n", patterns.size(),
                read >> 20U, hits + kept_apart);
    ::close(memory);
    if (pagemap >= 0) ::close(pagemap);
    if (read == 0) return 2;
    return hits == 0 ? 0 : 1;
}
