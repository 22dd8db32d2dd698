#include "control/sip/reginfo.h"

#include <algorithm>
#include <array>
#include <pugixml.hpp>

#include "base/bytes.h"
#include "control/sip/values.h"

namespace gmgate::sip {

namespace {

constexpr std::string_view reginfo_namespace = "urn:ietf:params:xml:ns:reginfo";
// "automatically by" has no place in RFC 3680; its schema lets other namespaces stand behind the
// contacts, and who does not know it passes it over.
constexpr std::string_view extension_namespace = "urn:gmgate:params:xml:ns:reginfo-reauth";
constexpr std::string_view automatically_by = "automatically by ";

constexpr std::array<std::string_view, 3> state_names{"init", "active", "terminated"};
constexpr std::array<std::string_view, 9> event_names{"registered", "created",      "refreshed",
                                                      "shortened",  "expired",      "deactivated",
                                                      "probation",  "unregistered", "rejected"};

// The words of profile `seed` for a state; "re-authenticate" is the one the proposal gives.
constexpr std::string_view reauthenticate_word = "re-authenticate";
constexpr std::array<std::string_view, 3> seed_words{"not-registered", "registered",
                                                     "deregistered"};

template <class Enum, std::size_t N>
std::optional<Enum> of_name(const std::array<std::string_view, N>& names, std::string_view word) {
    const auto at = std::ranges::find(names, word);
    if (at == names.end()) return std::nullopt;
    return static_cast<Enum>(at - names.begin());
}

std::string_view local_name(const pugi::xml_node& node) {
    const std::string_view whole = node.name();
    const auto colon = whole.find(':');
    return colon == std::string_view::npos ? whole : whole.substr(colon + 1);
}

// Is this element of the same namespace as the root? By prefix: a document that binds two prefixes
// to one namespace is legal, and nobody writes it.
bool is(const pugi::xml_node& node, std::string_view root_prefix, std::string_view wanted) {
    const std::string_view whole = node.name();
    if (whole.size() != root_prefix.size() + wanted.size()) return false;
    return whole.starts_with(root_prefix) && whole.ends_with(wanted);
}

std::string_view text_of(const pugi::xml_node& node) {
    return trim_lws(node.text().get());
}

std::unexpected<Error> broken(std::string_view what) {
    return fail(ErrorKind::invalid, "registration document: " + std::string(what));
}
std::unexpected<Error> too_much(std::string_view what) {
    return fail(ErrorKind::exhausted, "registration document: " + std::string(what));
}

Result<RegContact> read_contact(const pugi::xml_node& node, std::string_view prefix) {
    RegContact c;
    c.id = node.attribute("id").value();
    const std::string_view state = node.attribute("state").value();
    if (state != "active" && state != "terminated") return broken("a contact's state is unknown");
    c.active = state == "active";
    const auto event = of_name<ContactEvent>(event_names, node.attribute("event").value());
    if (!event) return broken("a contact's event is unknown");
    c.event = *event;
    if (const auto expires = node.attribute("expires")) {
        c.expires = parse_number(expires.value());
        if (!c.expires) return broken("a contact's expires is not a number");
    }
    for (const auto& child : node.children()) {
        if (is(child, prefix, "uri")) c.uri = text_of(child);
    }
    if (c.id.size() > max_reg_text || c.uri.size() > max_reg_text)
        return too_much("a contact is too long");
    if (c.uri.empty()) return broken("a contact without uri");
    return c;
}

Result<RegEntry> read_registration(const pugi::xml_node& node, std::string_view prefix) {
    RegEntry e;
    e.aor = trim_lws(node.attribute("aor").value());
    e.id = node.attribute("id").value();
    if (e.aor.empty()) return broken("a registration without aor");
    if (e.aor.size() > max_reg_text || e.id.size() > max_reg_text)
        return too_much("an identity is too long");
    const auto state = of_name<RegState>(state_names, node.attribute("state").value());
    if (!state) return broken("a registration's state is unknown");
    e.state = *state;
    for (const auto& child : node.children()) {
        if (is(child, prefix, "contact")) {
            if (e.contacts.size() == max_reg_contacts) return too_much("too many contacts");
            auto contact = read_contact(child, prefix);
            if (!contact) return std::unexpected(std::move(contact.error()));
            e.reauthenticate =
                e.reauthenticate || (contact->active && contact->event == ContactEvent::shortened);
            e.contacts.push_back(std::move(*contact));
        } else if (local_name(child) == "automatically-by") {
            e.covered_by = text_of(child);
            if (e.covered_by.size() > max_reg_text) return too_much("an identity is too long");
        }
    }
    return e;
}

Result<RegInfo> read_rfc3680(const pugi::xml_node& root) {
    const std::string_view whole = root.name();
    const std::string_view prefix = whole.substr(0, whole.size() - local_name(root).size());
    const std::string declaration =
        prefix.empty() ? "xmlns" : "xmlns:" + std::string(prefix.substr(0, prefix.size() - 1));
    if (local_name(root) != "reginfo" ||
        root.attribute(declaration.c_str()).value() != reginfo_namespace)
        return broken("the root is not reginfo of RFC 3680");
    RegInfo info;
    info.version = parse_number(root.attribute("version").value());
    if (!info.version) return broken("version is not a number");
    const std::string_view state = root.attribute("state").value();
    if (state != "full" && state != "partial") return broken("state is neither full nor partial");
    info.full = state == "full";
    for (const auto& child : root.children()) {
        if (!is(child, prefix, "registration")) continue;
        if (info.entries.size() == max_reg_entries) return too_much("too many identities");
        auto entry = read_registration(child, prefix);
        if (!entry) return std::unexpected(std::move(entry.error()));
        info.entries.push_back(std::move(*entry));
    }
    return info;
}

Result<RegEntry> read_tuple(const pugi::xml_node& node) {
    RegEntry e;
    e.aor = trim_lws(node.attribute("name").value());
    if (e.aor.empty()) return broken("a tuple without name");
    if (e.aor.size() > max_reg_text) return too_much("an identity is too long");
    const std::string_view word = text_of(node.child("status").child("value"));
    if (word == reauthenticate_word) {
        e.state = RegState::active;
        e.reauthenticate = true;
    } else {
        const auto state = of_name<RegState>(seed_words, word);
        if (!state) return broken("a tuple's value is unknown");
        e.state = *state;
    }
    const std::string_view detail = text_of(node.child("detail"));
    if (detail.starts_with(automatically_by)) {
        e.covered_by = trim_lws(detail.substr(automatically_by.size()));
        if (e.covered_by.size() > max_reg_text) return too_much("an identity is too long");
    }
    return e;
}

Result<RegInfo> read_seed(const pugi::xml_node& root) {
    if (local_name(root) != "registration-state")
        return broken("the root is not registration-state");
    RegInfo info;
    for (const auto& child : root.children()) {
        if (std::string_view(child.name()) != "tuple") continue;
        if (info.entries.size() == max_reg_entries) return too_much("too many identities");
        auto entry = read_tuple(child);
        if (!entry) return std::unexpected(std::move(entry.error()));
        info.entries.push_back(std::move(*entry));
    }
    return info;
}

// ---- writing ----

void put(std::string& out, std::string_view text) {
    for (const char c : text) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            default:
                if (static_cast<unsigned char>(c) >= 0x20 || c == '\t') out += c;
        }
    }
}

void attribute(std::string& out, std::string_view key, std::string_view value) {
    out += ' ';
    out += key;
    out += "=\"";
    put(out, value);
    out += '"';
}

void write_registration(std::string& out, const RegEntry& e) {
    out += "  <registration";
    attribute(out, "aor", e.aor);
    attribute(out, "id", e.id);
    attribute(out, "state", name(e.state));
    out += ">\n";
    for (const RegContact& c : e.contacts) {
        out += "    <contact";
        attribute(out, "id", c.id);
        attribute(out, "state", c.active ? "active" : "terminated");
        attribute(out, "event", name(c.event));
        if (c.expires) attribute(out, "expires", std::to_string(*c.expires));
        out += "><uri>";
        put(out, c.uri);
        out += "</uri></contact>\n";
    }
    if (!e.covered_by.empty()) {
        out += "    <automatically-by";
        attribute(out, "xmlns", extension_namespace);
        out += '>';
        put(out, e.covered_by);
        out += "</automatically-by>\n";
    }
    out += "  </registration>\n";
}

void write_tuple(std::string& out, const RegEntry& e) {
    out += "  <tuple";
    attribute(out, "name", e.aor);
    out += ">\n    <status><value>";
    out += e.reauthenticate ? reauthenticate_word : seed_words[static_cast<std::size_t>(e.state)];
    out += "</value></status>\n";
    if (!e.covered_by.empty()) {
        out += "    <detail>";
        out += automatically_by;
        put(out, e.covered_by);
        out += "</detail>\n";
    }
    out += "  </tuple>\n";
}

}  // namespace

std::string_view name(RegProfile profile) {
    return profile == RegProfile::seed ? "seed" : "rfc3680";
}
std::string_view event_package(RegProfile profile) {
    return profile == RegProfile::seed ? "registration-state" : "reg";
}
std::string_view content_type(RegProfile profile) {
    return profile == RegProfile::seed ? "application/registration-state+xml"
                                       : "application/reginfo+xml";
}
std::optional<RegProfile> reg_profile(std::string_view event) {
    const std::string_view package = trim_lws(event.substr(0, event.find(';')));
    for (const RegProfile p : {RegProfile::rfc3680, RegProfile::seed}) {
        if (package == event_package(p)) return p;  // case counts (RFC 6665 7.2.1)
    }
    return std::nullopt;
}

std::string_view name(RegState state) {
    return state_names[static_cast<std::size_t>(state)];
}
std::string_view name(ContactEvent event) {
    return event_names[static_cast<std::size_t>(event)];
}

Result<RegInfo> parse_reginfo(RegProfile profile, std::string_view body) {
    if (body.size() > max_reginfo) return too_much("too long");
    pugi::xml_document document;
    // No CDATA, comments or processing instructions; entities other than XML's own five are left
    // as they stand, so nothing expands.
    constexpr unsigned options =
        pugi::parse_escapes | pugi::parse_eol | pugi::parse_doctype | pugi::parse_wconv_attribute;
    if (!document.load_buffer(body.data(), body.size(), options, pugi::encoding_utf8))
        return broken("not well-formed XML");
    pugi::xml_node root;
    for (const auto& node : document.children()) {
        if (node.type() == pugi::node_doctype) return broken("a document type declaration");
        if (node.type() != pugi::node_element) continue;
        if (root) return broken("two roots");
        root = node;
    }
    if (!root) return broken("no root");
    return profile == RegProfile::seed ? read_seed(root) : read_rfc3680(root);
}

std::string write_reginfo(RegProfile profile, const RegInfo& info) {
    std::string out;
    out.reserve(256 + 320 * info.entries.size());
    out += "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    if (profile == RegProfile::seed) {
        out += "<registration-state>\n";
        for (const RegEntry& e : info.entries) write_tuple(out, e);
        out += "</registration-state>\n";
        return out;
    }
    out += "<reginfo";
    attribute(out, "xmlns", reginfo_namespace);
    attribute(out, "version", std::to_string(info.version.value_or(0)));
    attribute(out, "state", info.full ? "full" : "partial");
    out += ">\n";
    for (const RegEntry& e : info.entries) write_registration(out, e);
    out += "</reginfo>\n";
    return out;
}

}  // namespace gmgate::sip
