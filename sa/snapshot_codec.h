#pragma once
// Octets of a snapshot: big-endian numbers and length-prefixed texts. Internal to sa/.

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/ip.h"
#include "sa/database.h"

namespace gmgate::sa {

class SnapshotWriter {
  public:
    void u8(std::uint8_t v) { out_.push_back(v); }
    void u16(std::uint16_t v) {
        u8(static_cast<std::uint8_t>(v >> 8U));
        u8(static_cast<std::uint8_t>(v));
    }
    void u32(std::uint32_t v) {
        u16(static_cast<std::uint16_t>(v >> 16U));
        u16(static_cast<std::uint16_t>(v));
    }
    void u64(std::uint64_t v) {
        u32(static_cast<std::uint32_t>(v >> 32U));
        u32(static_cast<std::uint32_t>(v));
    }
    void i64(std::int64_t v) { u64(static_cast<std::uint64_t>(v)); }
    void bytes(std::span<const std::uint8_t> b) { out_.insert(out_.end(), b.begin(), b.end()); }
    void text(std::string_view t) {
        u32(static_cast<std::uint32_t>(t.size()));
        bytes(as_bytes(t));
    }
    void ip(const IpAddress& a) {
        u8(a.is_v6() ? 6 : 4);
        bytes(a.octets());
    }
    // A record carries its length, so that an older reader can skip what a newer writer added at
    // its end.
    [[nodiscard]] std::size_t begin_record() {
        u32(0);
        return out_.size();
    }
    void end_record(std::size_t begin) {
        store_be32(out_.data() + begin - 4, static_cast<std::uint32_t>(out_.size() - begin));
    }
    [[nodiscard]] SecretBytes take() { return std::move(out_); }

  private:
    SecretBytes out_;
};

// Reads as far as the octets go; after a short read ok() is false and everything read is zero.
class SnapshotReader {
  public:
    explicit SnapshotReader(std::span<const std::uint8_t> in) : in_(in) {}

    [[nodiscard]] bool ok() const { return ok_; }
    [[nodiscard]] std::size_t left() const { return in_.size(); }
    std::span<const std::uint8_t> bytes(std::size_t n) {
        if (!ok_ || n > in_.size()) {
            ok_ = false;
            return {};
        }
        const auto out = in_.first(n);
        in_ = in_.subspan(n);
        return out;
    }
    std::uint8_t u8() {
        const auto b = bytes(1);
        return b.empty() ? std::uint8_t{0} : b[0];
    }
    std::uint16_t u16() {
        const auto b = bytes(2);
        return b.empty() ? std::uint16_t{0} : load_be16(b.data());
    }
    std::uint32_t u32() {
        const auto b = bytes(4);
        return b.empty() ? 0U : load_be32(b.data());
    }
    std::uint64_t u64() {
        const std::uint64_t high = u32();
        return (high << 32U) | u32();
    }
    std::int64_t i64() { return static_cast<std::int64_t>(u64()); }
    std::string_view text() { return as_text(bytes(u32())); }
    IpAddress ip() {
        const std::uint8_t family = u8();
        if (family == 4) {
            const auto b = bytes(4);
            return b.empty() ? IpAddress{} : IpAddress::v4(std::span<const std::uint8_t, 4>(b));
        }
        if (family == 6) {
            const auto b = bytes(16);
            return b.empty() ? IpAddress{} : IpAddress::v6(std::span<const std::uint8_t, 16>(b));
        }
        ok_ = false;
        return {};
    }
    SnapshotReader record() { return SnapshotReader(bytes(u32())); }
    // Reading a record that is not whole fails in the record; what is around it fails with it.
    void require(bool condition) { ok_ = ok_ && condition; }

  private:
    std::span<const std::uint8_t> in_;
    bool ok_ = true;
};

}  // namespace gmgate::sa
