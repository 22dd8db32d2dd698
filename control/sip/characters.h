#pragma once
// Character classes of RFC 3261 25.1 as one table. Private to control/sip and control/secagree.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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

// `text` is `lower` in any case, for texts of token characters and a `lower` of small letters and
// '-'.
inline bool is_name(std::string_view text, std::string_view lower) {
    if (text.size() != lower.size()) return false;
    for (std::size_t i = 0; i < lower.size(); ++i) {
        if ((static_cast<unsigned char>(text[i]) | 0x20U) != static_cast<unsigned char>(lower[i]))
            return false;
    }
    return true;
}

// The first of three octets in [p, end), or end; 16 octets at a time where SSE2 is there.
template <char a, char b, char c>
inline const char* find_any(const char* p, const char* end) {
#if defined(__SSE2__)
    const __m128i x = _mm_set1_epi8(a);
    const __m128i y = _mm_set1_epi8(b);
    const __m128i z = _mm_set1_epi8(c);
    while (end - p >= 16) {
        const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m128i hit =
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(block, x), _mm_cmpeq_epi8(block, y)),
                         _mm_cmpeq_epi8(block, z));
        const auto mask = static_cast<unsigned>(_mm_movemask_epi8(hit));
        if (mask != 0) return p + std::countr_zero(mask);
        p += 16;
    }
#endif
    while (p != end && *p != a && *p != b && *p != c) ++p;
    return p;
}

// First CR, LF or NUL in [p, end), or end.
inline const char* find_special(const char* p, const char* end) {
    return find_any<'\r', '\n', '\0'>(p, end);
}

// CR and LF only as CRLF + blank, no NUL: such text, put into a header, begins no line of its own.
inline bool keeps_its_line(std::string_view text) {
    const char* const end = text.data() + text.size();
    for (const char* p = find_special(text.data(), end); p != end; p = find_special(p, end)) {
        if (*p != '\r' || end - p < 3 || p[1] != '\n' || (p[2] != ' ' && p[2] != '\t'))
            return false;
        p += 3;
    }
    return true;
}

}  // namespace gmgate::sip
