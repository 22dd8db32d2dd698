#pragma once
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "base/bytes.h"
#include "base/secret.h"

namespace gmgate::ue::test {

inline nlohmann::json load(const std::string& name) {
    std::ifstream in(std::string(GMGATE_TEST_DATA) + "/ue/" + name);
    if (!in) throw std::runtime_error("no test data " + name);
    return nlohmann::json::parse(in);
}
inline Bytes hex(const std::string& text) {
    return from_hex(text).value();
}
inline Secret<16> key(const std::string& text) {
    const Bytes b = hex(text);
    return Secret<16>(std::span<const std::uint8_t, 16>(b.data(), 16));
}
template <std::size_t N>
std::array<std::uint8_t, N> fixed(const std::string& text) {
    std::array<std::uint8_t, N> out{};
    if (!from_hex(text, out)) throw std::runtime_error("bad hex " + text);
    return out;
}

}  // namespace gmgate::ue::test
