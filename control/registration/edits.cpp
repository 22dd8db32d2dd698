#include "control/registration/edits.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "control/sip/values.h"

namespace gmgate::registration {

using sip::HeaderId;

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
    edit.remove_option_tag("sec-agree");
}

void strip_to_ue(sip::Edit& edit) {
    for (const HeaderId id :
         {HeaderId::security_client, HeaderId::security_server, HeaderId::security_verify,
          HeaderId::p_visited_network_id, HeaderId::p_charging_vector,
          HeaderId::p_charging_function_addresses, HeaderId::p_served_user,
          HeaderId::p_user_database, HeaderId::p_profile_key}) {
        edit.remove_all(id);
    }
    edit.remove_auth_params(HeaderId::www_authenticate, {"ck", "ik"});
    edit.remove_auth_params(HeaderId::proxy_authenticate, {"ck", "ik"});
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
