#include "control/registration/interconnect.h"

namespace gmgate::registration {

using sip::HeaderId;

namespace {

// The Vias of a request that is gone, the topmost stamped with where it came from (RFC 3261
// 18.2.1, RFC 3581); empty: it cannot be read.
std::string vias_of(std::string_view head, const Endpoint& source) {
    sip::Message request;
    if (request.parse(head) != sip::ParseStatus::ok) return {};
    std::string stamped;
    sip::Edit edit(request);
    edit.stamp_top_via(source);
    sip::Message again;
    if (!edit.apply(stamped) || again.parse(std::string_view(stamped)) != sip::ParseStatus::ok)
        return {};
    std::string vias;
    for (const sip::Value& value : again.values(HeaderId::via)) {
        if (!vias.empty()) vias += ", ";
        vias += value.text;
    }
    return vias;
}

}  // namespace

void put_our_via(sip::Edit& edit, const Context& context, const Endpoint& source,
                 const sip::Flow& flow, std::string_view branch) {
    const std::string ours = context.via_on(flow);
    if (context.policy.interconnect == Interconnect::via)
        return edit.set_header(HeaderId::via, {ours, branch, ";rport"});
    edit.stamp_top_via(source);
    edit.push_via({ours, branch});
}

void take_our_via(sip::Edit& edit, const Context& context, std::string_view head,
                  const Endpoint& source) {
    if (context.policy.interconnect == Interconnect::path)
        return edit.remove_first_value(HeaderId::via);
    edit.set_header(HeaderId::via, {vias_of(head, source)});
}

void put_path(sip::Edit& edit, const Context& context, std::string_view token) {
    const bool is_via = context.policy.interconnect == Interconnect::via;
    edit.set_header(HeaderId::path,
                    {"<sip:", token, "@", context.core_host, is_via ? ";lr;ob>" : ";lr>"});
    // A core that goes by the Via need not know Path, and must not refuse the phone for it.
    edit.append_header(is_via ? "Supported" : "Require", {"path"});
}

}  // namespace gmgate::registration
