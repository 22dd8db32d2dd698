#pragma once
// DNS messages, written by hand: what a server sends.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::dns {

class Wire {
  public:
    Wire& u8(unsigned v) {
        bytes.push_back(static_cast<std::uint8_t>(v));
        return *this;
    }
    Wire& u16(unsigned v) { return u8(v >> 8U).u8(v & 0xFFU); }
    Wire& u32(std::uint32_t v) { return u16(v >> 16U).u16(v & 0xFFFFU); }
    Wire& name(std::string_view text) {
        while (!text.empty()) {
            const std::size_t dot = std::min(text.find('.'), text.size());
            u8(static_cast<unsigned>(dot));
            for (const char c : text.substr(0, dot)) u8(static_cast<unsigned char>(c));
            text.remove_prefix(std::min(dot + 1, text.size()));
        }
        return u8(0);
    }
    Wire& text(std::string_view t) {
        u8(static_cast<unsigned>(t.size()));
        for (const char c : t) u8(static_cast<unsigned char>(c));
        return *this;
    }
    Wire& header(unsigned id, unsigned flags, unsigned answers) {
        return u16(id).u16(flags).u16(1).u16(answers).u16(0).u16(0);
    }
    Wire& question(std::string_view n, unsigned type) { return name(n).u16(type).u16(1); }
    Wire& record(std::string_view owner, unsigned type, std::uint32_t ttl, const Wire& data) {
        name(owner).u16(type).u16(1).u32(ttl).u16(static_cast<unsigned>(data.bytes.size()));
        bytes.insert(bytes.end(), data.bytes.begin(), data.bytes.end());
        return *this;
    }
    std::vector<std::uint8_t> bytes;
};

inline Wire a_record(unsigned a, unsigned b, unsigned c, unsigned d) {
    return Wire().u8(a).u8(b).u8(c).u8(d);
}
inline Wire srv_record(unsigned priority, unsigned weight, unsigned port, std::string_view host) {
    return Wire().u16(priority).u16(weight).u16(port).name(host);
}
inline Wire naptr_record(unsigned order, unsigned preference, std::string_view service,
                         std::string_view replacement, std::string_view flags = "s") {
    return Wire().u16(order).u16(preference).text(flags).text(service).text("").name(replacement);
}

}  // namespace gmgate::dns
