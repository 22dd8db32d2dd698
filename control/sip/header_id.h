#pragma once
// The header fields gmgate knows by number: all of RFC 3261 and what the Gm interface adds.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gmgate::sip {

// `unknown` is every other header: indexed, reachable by position and by name, passed on unchanged.
enum class HeaderId : std::uint8_t {
    unknown,
    // RFC 3261
    accept,
    accept_encoding,
    accept_language,
    alert_info,
    allow,
    authentication_info,
    authorization,
    call_id,
    call_info,
    contact,
    content_disposition,
    content_encoding,
    content_language,
    content_length,
    content_type,
    cseq,
    date,
    error_info,
    expires,
    from,
    in_reply_to,
    max_forwards,
    mime_version,
    min_expires,
    organization,
    priority,
    proxy_authenticate,
    proxy_authorization,
    proxy_require,
    record_route,
    reply_to,
    require,
    retry_after,
    route,
    server,
    subject,
    supported,
    timestamp,
    to,
    unsupported,
    user_agent,
    via,
    warning,
    www_authenticate,
    // RFC 3262, 3265/6665, 3326, 3327, 3329, 3515, 3608, 3841, 3891, 3892, 4028, 5626, 6086 …
    rack,
    rseq,
    event,
    allow_events,
    subscription_state,
    reason,
    path,
    security_client,
    security_server,
    security_verify,
    refer_to,
    service_route,
    accept_contact,
    reject_contact,
    request_disposition,
    replaces,
    referred_by,
    session_expires,
    min_se,
    flow_timer,
    feature_caps,
    privacy,
    history_info,
    identity,
    // RFC 3325, 7315, 5002, 6050, 7549 …
    p_preferred_identity,
    p_asserted_identity,
    p_associated_uri,
    p_called_party_id,
    p_visited_network_id,
    p_access_network_info,
    p_charging_vector,
    p_charging_function_addresses,
    p_preferred_service,
    p_asserted_service,
    p_early_media,
    p_media_authorization,
    p_profile_key,
    p_user_database,
    p_served_user,
    resource_priority,
    geolocation,
    sip_etag,
    sip_if_match,
    count_
};

inline constexpr std::size_t header_id_count = static_cast<std::size_t>(HeaderId::count_);

// Any case, full or compact form ("via", "Via", "v"); unknown if it is none of the above.
[[nodiscard]] HeaderId header_id(std::string_view name);
// The full name as the RFC writes it ("P-Charging-Vector"); empty for unknown.
[[nodiscard]] std::string_view header_name(HeaderId id);

// True if the grammar of the header is a comma-separated list that may also be spread over several
// lines (RFC 3261 7.3.1), so that Message::values may take it apart. Not so for Authorization and
// its kin, Date, Subject, User-Agent…, whose commas mean something else.
[[nodiscard]] bool is_comma_list(HeaderId id);
// True if more than one line of it in a message is an error (To, From, Call-ID, CSeq,
// Max-Forwards…).
[[nodiscard]] bool is_single(HeaderId id);

}  // namespace gmgate::sip
