#include "control/sip/header_id.h"

#include <array>
#include <cstring>

namespace gmgate::sip {
namespace {

constexpr std::array<std::string_view, header_id_count> names{
    "",
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Alert-Info",
    "Allow",
    "Authentication-Info",
    "Authorization",
    "Call-ID",
    "Call-Info",
    "Contact",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-Type",
    "CSeq",
    "Date",
    "Error-Info",
    "Expires",
    "From",
    "In-Reply-To",
    "Max-Forwards",
    "MIME-Version",
    "Min-Expires",
    "Organization",
    "Priority",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Require",
    "Record-Route",
    "Reply-To",
    "Require",
    "Retry-After",
    "Route",
    "Server",
    "Subject",
    "Supported",
    "Timestamp",
    "To",
    "Unsupported",
    "User-Agent",
    "Via",
    "Warning",
    "WWW-Authenticate",
    "RAck",
    "RSeq",
    "Event",
    "Allow-Events",
    "Subscription-State",
    "Reason",
    "Path",
    "Security-Client",
    "Security-Server",
    "Security-Verify",
    "Refer-To",
    "Service-Route",
    "Accept-Contact",
    "Reject-Contact",
    "Request-Disposition",
    "Replaces",
    "Referred-By",
    "Session-Expires",
    "Min-SE",
    "Flow-Timer",
    "Feature-Caps",
    "Privacy",
    "History-Info",
    "Identity",
    "P-Preferred-Identity",
    "P-Asserted-Identity",
    "P-Associated-URI",
    "P-Called-Party-ID",
    "P-Visited-Network-ID",
    "P-Access-Network-Info",
    "P-Charging-Vector",
    "P-Charging-Function-Addresses",
    "P-Preferred-Service",
    "P-Asserted-Service",
    "P-Early-Media",
    "P-Media-Authorization",
    "P-Profile-Key",
    "P-User-Database",
    "P-Served-User",
    "Resource-Priority",
    "Geolocation",
    "SIP-ETag",
    "SIP-If-Match",
};

constexpr bool every_id_has_a_name() {
    for (std::size_t i = 1; i < names.size(); ++i) {
        if (names[i].size() < 2) return false;
    }
    return true;
}
static_assert(every_id_has_a_name(), "HeaderId and its names went apart");

constexpr std::size_t longest_name() {
    std::size_t most = 0;
    for (const auto n : names) most = n.size() > most ? n.size() : most;
    return most;
}

constexpr std::uint8_t fold(char c) {
    return static_cast<std::uint8_t>(static_cast<std::uint8_t>(c) | 0x20U);
}

// Length, first, middle and last letter tell all names apart; a multiplier found by the compiler
// spreads them over the table without a collision, so that a lookup is one probe and one
// comparison.
constexpr unsigned table_bits = 10;

constexpr std::uint32_t key_of(std::string_view n) {
    return std::uint32_t{fold(n.front())} | std::uint32_t{fold(n.back())} << 8U |
           std::uint32_t{fold(n[n.size() / 2])} << 16U |
           static_cast<std::uint32_t>(n.size()) << 24U;
}
constexpr std::size_t slot_of(std::uint32_t key, std::uint32_t multiplier) {
    return static_cast<std::uint32_t>(key * multiplier) >> (32U - table_bits);
}

using Table = std::array<std::uint8_t, 1U << table_bits>;

constexpr bool fill(std::uint32_t multiplier, Table& table) {
    table = {};
    for (std::size_t i = 1; i < names.size(); ++i) {
        auto& slot = table[slot_of(key_of(names[i]), multiplier)];
        if (slot != 0) return false;
        slot = static_cast<std::uint8_t>(i);
    }
    return true;
}

consteval std::uint32_t find_multiplier() {
    Table table{};
    std::uint32_t m = 0x9E3779B1U;
    while (!fill(m, table)) m = (m * 1664525U + 1013904223U) | 1U;
    return m;
}

constexpr std::uint32_t multiplier = find_multiplier();

consteval Table make_table() {
    Table table{};
    fill(multiplier, table);
    return table;
}

constexpr Table table = make_table();

struct Folded {
    char text[32];
};
static_assert(longest_name() <= sizeof(Folded::text));

consteval std::array<Folded, header_id_count> make_folded() {
    std::array<Folded, header_id_count> all{};
    for (std::size_t i = 0; i < names.size(); ++i) {
        for (std::size_t j = 0; j < names[i].size(); ++j) {
            all[i].text[j] = static_cast<char>(fold(names[i][j]));
        }
    }
    return all;
}

constexpr auto folded_names = make_folded();

// Or-ing 0x20 folds letters; the only other octet it makes one of a name's is CR, which becomes
// '-'. So where the name has '-' (no bit 0x40, unlike letters) the octet must have had the bit
// already.
bool equal_octets(std::uint64_t text, std::uint64_t folded) {
    constexpr std::uint64_t bits = 0x2020202020202020ULL;
    return (text | bits) == folded && ((~folded >> 1U) & bits & ~text) == 0;
}

bool equal_folded(const char* text, const char* folded, std::size_t size) {
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    if (size >= 8) {
        for (std::size_t i = 0; i + 8 <= size; i += 8) {
            std::memcpy(&a, text + i, 8);
            std::memcpy(&b, folded + i, 8);
            if (!equal_octets(a, b)) return false;
        }
        std::memcpy(&a, text + size - 8, 8);
        std::memcpy(&b, folded + size - 8, 8);
        return equal_octets(a, b);
    }
    for (std::size_t i = 0; i < size; ++i) {
        if (fold(text[i]) != static_cast<std::uint8_t>(folded[i]) || text[i] == '\r') return false;
    }
    return true;
}

HeaderId compact(char letter) {
    switch (fold(letter)) {
        case 'a':
            return HeaderId::accept_contact;
        case 'b':
            return HeaderId::referred_by;
        case 'c':
            return HeaderId::content_type;
        case 'd':
            return HeaderId::request_disposition;
        case 'e':
            return HeaderId::content_encoding;
        case 'f':
            return HeaderId::from;
        case 'i':
            return HeaderId::call_id;
        case 'j':
            return HeaderId::reject_contact;
        case 'k':
            return HeaderId::supported;
        case 'l':
            return HeaderId::content_length;
        case 'm':
            return HeaderId::contact;
        case 'o':
            return HeaderId::event;
        case 'r':
            return HeaderId::refer_to;
        case 's':
            return HeaderId::subject;
        case 't':
            return HeaderId::to;
        case 'u':
            return HeaderId::allow_events;
        case 'v':
            return HeaderId::via;
        case 'x':
            return HeaderId::session_expires;
        case 'y':
            return HeaderId::identity;
        default:
            return HeaderId::unknown;
    }
}

}  // namespace

HeaderId header_id(std::string_view name) {
    const auto size = name.size();
    if (size < 2) {
        const bool letter =
            size == 1 && fold(name[0]) >= 'a' && fold(name[0]) <= 'z' && name[0] >= 'A';
        return letter ? compact(name[0]) : HeaderId::unknown;
    }
    if (size > longest_name()) return HeaderId::unknown;
    const auto id = table[slot_of(key_of(name), multiplier)];
    if (id == 0 || names[id].size() != size ||
        !equal_folded(name.data(), folded_names[id].text, size)) {
        return HeaderId::unknown;
    }
    return static_cast<HeaderId>(id);
}

std::string_view header_name(HeaderId id) {
    return names[static_cast<std::size_t>(id)];
}

bool is_comma_list(HeaderId id) {
    switch (id) {
        case HeaderId::accept:
        case HeaderId::accept_contact:
        case HeaderId::accept_encoding:
        case HeaderId::accept_language:
        case HeaderId::alert_info:
        case HeaderId::allow:
        case HeaderId::allow_events:
        case HeaderId::call_info:
        case HeaderId::contact:
        case HeaderId::content_encoding:
        case HeaderId::content_language:
        case HeaderId::error_info:
        case HeaderId::feature_caps:
        case HeaderId::geolocation:
        case HeaderId::history_info:
        case HeaderId::in_reply_to:
        case HeaderId::p_access_network_info:
        case HeaderId::p_asserted_identity:
        case HeaderId::p_associated_uri:
        case HeaderId::p_early_media:
        case HeaderId::p_media_authorization:
        case HeaderId::p_preferred_identity:
        case HeaderId::p_visited_network_id:
        case HeaderId::path:
        case HeaderId::proxy_require:
        case HeaderId::reason:
        case HeaderId::record_route:
        case HeaderId::reject_contact:
        case HeaderId::request_disposition:
        case HeaderId::require:
        case HeaderId::resource_priority:
        case HeaderId::route:
        case HeaderId::security_client:
        case HeaderId::security_server:
        case HeaderId::security_verify:
        case HeaderId::service_route:
        case HeaderId::supported:
        case HeaderId::unsupported:
        case HeaderId::via:
        case HeaderId::warning:
            return true;
        default:
            return false;
    }
}

bool is_single(HeaderId id) {
    switch (id) {
        case HeaderId::call_id:
        case HeaderId::content_disposition:
        case HeaderId::content_length:
        case HeaderId::content_type:
        case HeaderId::cseq:
        case HeaderId::date:
        case HeaderId::event:
        case HeaderId::expires:
        case HeaderId::from:
        case HeaderId::max_forwards:
        case HeaderId::mime_version:
        case HeaderId::min_expires:
        case HeaderId::refer_to:
        case HeaderId::replaces:
        case HeaderId::retry_after:
        case HeaderId::session_expires:
        case HeaderId::subscription_state:
        case HeaderId::timestamp:
        case HeaderId::to:
            return true;
        default:
            return false;
    }
}

}  // namespace gmgate::sip
