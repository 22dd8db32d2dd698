#pragma once
// Character classes of RFC 3261 25.1 as one table. Private to control/sip and control/secagree.

#include <array>
#include <cstdint>
#include <string_view>

namespace gmgate::sip {

enum CharClass : std::uint8_t {
    char_token = 1,  // token: alphanum and -.!%*_+`'~
    char_uri = 2,    // may stand in a URI at all: printable ASCII but <>" and the like
    char_user = 4,   // user part, without '%' escapes' own check
    char_host = 8,   // hostname; '_' too, which real networks use
    char_lws = 16,   // SP HTAB CR LF
    char_digit = 32,
    char_hex = 64,
    char_param = 128,  // parameter name: what is neither blank, separator nor quote
};

consteval std::array<std::uint8_t, 256> make_char_classes() {
    std::array<std::uint8_t, 256> t{};
    const auto add = [&t](std::string_view chars, unsigned c) {
        for (const char ch : chars) {
            auto& cell = t[static_cast<unsigned char>(ch)];
            cell = static_cast<std::uint8_t>(cell | c);
        }
    };
    constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    constexpr std::string_view digits = "0123456789";
    add(letters, char_token | char_user | char_host);
    add(digits, char_token | char_user | char_host | char_digit | char_hex);
    add("abcdefABCDEF", char_hex);
    add("-.!%*_+`'~", char_token);
    add("-_.!~*'()&=+$,;?/%:", char_user);
    add("-._", char_host);
    add(" \t\r\n", char_lws);
    for (unsigned c = 0x21; c < 0x7F; ++c) {
        const char ch = static_cast<char>(c);
        if (ch != '<' && ch != '>' && ch != '"') t[c] |= char_uri;
        if (ch != '<' && ch != '>' && ch != '"' && ch != ';' && ch != '=' && ch != ',')
            t[c] |= char_param;
    }
    return t;
}

inline constexpr auto char_classes = make_char_classes();

constexpr bool is_class(char c, unsigned classes) {
    return (char_classes[static_cast<unsigned char>(c)] & classes) != 0;
}

constexpr bool all_of_class(std::string_view text, unsigned classes) {
    for (const char c : text) {
        if (!is_class(c, classes)) return false;
    }
    return true;
}

}  // namespace gmgate::sip
