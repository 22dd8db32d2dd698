#include "sa/packed_strings.h"

#include <cstring>

namespace gmgate::sa {

namespace {

constexpr std::size_t header = 2;

std::uint32_t load32(const std::uint8_t* p) {
    std::uint32_t v = 0;
    std::memcpy(&v, p, 4);
    return v;
}

}  // namespace

Result<PackedStrings> PackedStrings::pack(std::span<const std::string_view> texts) {
    if (texts.size() > max_texts) return fail(ErrorKind::invalid, "too many texts");
    std::size_t octets = 0;
    for (const std::string_view t : texts) {
        if (t.size() > max_octets) return fail(ErrorKind::invalid, "a text is too long");
        octets += t.size();
    }
    PackedStrings out;
    out.block_ = std::make_unique_for_overwrite<std::uint8_t[]>(header + 4 * texts.size() + octets);
    std::uint8_t* p = out.block_.get();
    const auto count = static_cast<std::uint16_t>(texts.size());
    std::memcpy(p, &count, 2);
    std::uint32_t end = 0;
    std::uint8_t* body = p + header + 4 * texts.size();
    for (std::size_t i = 0; i < texts.size(); ++i) {
        if (!texts[i].empty()) std::memcpy(body + end, texts[i].data(), texts[i].size());
        end += static_cast<std::uint32_t>(texts[i].size());
        std::memcpy(p + header + 4 * i, &end, 4);
    }
    return out;
}

std::size_t PackedStrings::size() const {
    if (block_ == nullptr) return 0;
    std::uint16_t count = 0;
    std::memcpy(&count, block_.get(), 2);
    return count;
}

std::string_view PackedStrings::operator[](std::size_t i) const {
    const std::size_t count = size();
    if (i >= count) return {};
    const std::uint8_t* ends = block_.get() + header;
    const std::uint32_t begin = i == 0 ? 0 : load32(ends + 4 * (i - 1));
    const std::uint32_t end = load32(ends + 4 * i);
    return {reinterpret_cast<const char*>(ends + 4 * count + begin), end - begin};
}

std::size_t PackedStrings::octets() const {
    const std::size_t count = size();
    if (block_ == nullptr) return 0;
    return header + 4 * count + (count == 0 ? 0 : load32(block_.get() + header + 4 * (count - 1)));
}

}  // namespace gmgate::sa
