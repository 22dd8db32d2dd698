#include "control/registration/edits.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "control/sip/values.h"

namespace gmgate::registration {

using sip::HeaderId;

namespace {

// What is said between networks, as Feature-Caps is, and has no number of ours (TS 24.229 4.4,
// 7.2A).
constexpr std::array<std::string_view, 8> between_networks{"P-Private-Network-Indication",
                                                           "Relayed-Charge",
                                                           "Restoration-Info",
                                                           "Attestation-Info",
                                                           "Origination-Id",
                                                           "Response-Source",
                                                           "Service-Interact-Info",
                                                           "Cellular-Network-Info"};

// "network-provided": only a network says so of its own.
bool is_network_provided(const sip::Value& value) {
    const auto semicolon = value.text.find(';');
    if (semicolon == std::string_view::npos) return false;
    const std::string_view params = value.text.substr(semicolon);
    return sip::find_param(params, "network-provided") || sip::find_param(params, "np");
}

}  // namespace

bool wants_privacy(const sip::Message& message) {
    // RFC 3323 4.2: values between semicolons, whatever else stands there.
    for (const auto* h = message.first(HeaderId::privacy); h != nullptr; h = message.next(*h)) {
        std::string_view rest = message.value(*h);
        while (!rest.empty()) {
            const auto end = rest.find_first_of(";,");
            if (iequals(sip::trim_lws(rest.substr(0, end)), "id")) return true;
            rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
        }
    }
    return false;
}

void strip_from_ue(sip::Edit& edit) {
    for (const HeaderId id :
         {HeaderId::security_client, HeaderId::security_server, HeaderId::security_verify,
          HeaderId::p_asserted_identity, HeaderId::p_visited_network_id,
          HeaderId::p_charging_vector, HeaderId::p_charging_function_addresses,
          HeaderId::p_served_user, HeaderId::p_associated_uri, HeaderId::p_called_party_id,
          HeaderId::p_user_database, HeaderId::p_profile_key, HeaderId::p_asserted_service,
          HeaderId::p_media_authorization}) {
        edit.remove_all(id);
    }
    edit.remove_all(HeaderId::feature_caps);
    edit.remove_unnumbered(between_networks);
    edit.remove_values(HeaderId::p_access_network_info,
                       [](const sip::Value& value) { return is_network_provided(value); });
    edit.remove_option_tag("sec-agree");
}

void strip_to_ue(sip::Edit& edit) {
    for (const HeaderId id :
         {HeaderId::security_client, HeaderId::security_server, HeaderId::security_verify,
          HeaderId::p_visited_network_id, HeaderId::p_charging_vector,
          HeaderId::p_charging_function_addresses, HeaderId::p_served_user,
          HeaderId::p_user_database, HeaderId::p_profile_key, HeaderId::p_access_network_info}) {
        edit.remove_all(id);
    }
    edit.remove_all(HeaderId::feature_caps);
    edit.remove_unnumbered(between_networks);
    edit.remove_auth_params(HeaderId::www_authenticate, {"ck", "ik"});
    edit.remove_auth_params(HeaderId::proxy_authenticate, {"ck", "ik"});
}

std::string over_udp(const sip::Message& sent, std::string_view branch) {
    // The Via is ours, as we wrote it: "SIP/2.0/TCP host:port;branch=…".
    constexpr std::string_view tcp = "SIP/2.0/TCP";
    const auto via = sip::top_via(sent);
    const auto* line = sent.first(HeaderId::via);
    if (!via || line == nullptr) return {};
    const std::string_view value = sent.value(*line);
    const auto at = value.find(via->branch);
    if (!value.starts_with(tcp) || at == std::string_view::npos) return {};
    sip::Edit edit(sent);
    edit.replace(*line, {"SIP/2.0/UDP", value.substr(tcp.size(), at - tcp.size()), branch,
                         value.substr(at + via->branch.size())});
    std::string again;
    if (!edit.apply(again)) return {};
    return again;
}

void wipe_keys(const sip::Message& message, std::span<char> bytes) {
    const auto wipe = [&](std::optional<std::string_view> text) {
        if (!text || text->empty()) return;
        // The view is constant, the octets behind it are the caller's own.
        const auto at = static_cast<std::size_t>(text->data() - bytes.data());
        if (at < bytes.size() && text->size() <= bytes.size() - at)
            std::fill_n(bytes.data() + at, text->size(), '0');
    };
    for (const HeaderId id : {HeaderId::www_authenticate, HeaderId::proxy_authenticate}) {
        for (const auto* h = message.first(id); h != nullptr; h = message.next(*h)) {
            if (const auto challenge = sip::parse_digest_challenge(message.value(*h))) {
                wipe(challenge->ck);
                wipe(challenge->ik);
            } else {
                // Not readable as Digest: nothing in it may stay.
                wipe(message.value(*h));
            }
        }
    }
}

}  // namespace gmgate::registration
