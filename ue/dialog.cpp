#include "ue/dialog.h"

#include <algorithm>
#include <vector>

#include "control/sip/values.h"

namespace gmgate::ue {

namespace {

std::optional<std::string> contact_of(const sip::Message& m) {
    const auto value = m.first_value(sip::HeaderId::contact);
    const auto c = value ? sip::parse_contact(*value) : std::nullopt;
    if (!c || c->star || c->address.uri.text.size() > max_dialog_text) return std::nullopt;
    return one_line(c->address.uri.text);
}

// Record-Route as a value of Route; `reversed` at the end that sent the request.
std::optional<std::string> route_set(const sip::Message& m, bool reversed) {
    std::vector<std::string> all;
    std::size_t size = 0;
    for (const auto& v : m.values(sip::HeaderId::record_route)) {
        if (!sip::parse_name_addr(v.text)) return std::nullopt;
        size += v.text.size() + 2;
        if (size > max_route_set) return std::nullopt;
        all.push_back(one_line(v.text));
    }
    if (reversed) std::ranges::reverse(all);
    std::string out;
    for (const auto& r : all) out += (out.empty() ? "" : ", ") + r;
    return out;
}

bool usable(std::string_view text) {
    return !text.empty() && text.size() <= max_dialog_text;
}

}  // namespace

std::string one_line(std::string_view text) {
    std::string out(text);
    std::ranges::replace_if(
        out, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7F; }, ' ');
    return out;
}

bool Dialog::take_answer(const sip::Message& m) {
    const auto to = sip::to(m);
    const auto contact = contact_of(m);
    const auto route = route_set(m, true);
    if (!to || !usable(to->tag()) || !contact || !route) return false;
    remote_tag = to->tag();
    target = *contact;
    routes = *route;
    return true;
}

bool Dialog::take_request(const sip::Message& m) {
    const auto from = sip::from(m);
    const auto to = sip::to(m);
    const auto contact = contact_of(m);
    const auto route = route_set(m, false);
    const auto cseq = sip::cseq(m);
    if (!from || !to || !usable(from->tag()) || !usable(from->uri.text) || !usable(to->uri.text) ||
        !usable(sip::call_id(m)) || !contact || !route || !cseq)
        return false;
    call_id = sip::call_id(m);
    remote_tag = from->tag();
    remote_uri = one_line(from->uri.text);
    local_uri = one_line(to->uri.text);
    target = *contact;
    routes = *route;
    remote_cseq = cseq->number;
    return true;
}

void Dialog::refresh_target(const sip::Message& m) {
    if (auto contact = contact_of(m)) target = std::move(*contact);
}

bool Dialog::in_order(std::uint32_t cseq) {
    if (remote_cseq && cseq <= *remote_cseq) return false;
    remote_cseq = cseq;
    return true;
}

Dialog::Next Dialog::next() const {
    if (routes.empty()) return {target, {}};
    sip::ValueSplitter split(routes);
    const auto top = split.next();
    const auto first = top ? sip::parse_name_addr(*top) : std::nullopt;
    if (!first || first->uri.param("lr")) return {target, routes};
    std::string rest;
    while (const auto r = split.next()) rest += std::string(*r) + ", ";
    return {std::string(first->uri.text), rest + '<' + target + '>'};
}

}  // namespace gmgate::ue
