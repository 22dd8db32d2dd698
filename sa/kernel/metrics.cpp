// Counters for operators: the backend's own, and the kernel's of refused packets.

#include <array>
#include <fstream>
#include <string>
#include <utility>

#include "sa/kernel/backend_impl.h"

namespace gmgate::kernel {

namespace {

struct KernelCounter {
    std::string_view name;  // in /proc/net/xfrm_stat
    std::string_view label;
    std::string_view help;
};

// Those that tell of packets refused; named as the fast path's drop reasons where they mean the
// same.
constexpr std::array<KernelCounter, 17> kernel_counters{{
    {"XfrmInError", "in_error", "ESP that no other reason covers"},
    {"XfrmInBufferError", "in_buffer", "no memory for an ESP packet"},
    {"XfrmInHdrError", "in_header", "ESP with an impossible header"},
    {"XfrmInNoStates", "unknown_spi", "ESP with an SPI that no SA has"},
    {"XfrmInStateProtoError", "integrity", "ESP that fails its integrity check (C1)"},
    {"XfrmInStateModeError", "in_mode", "ESP whose mode is not the SA's"},
    {"XfrmInStateSeqError", "replay", "ESP repeated, or left of the replay window (A1)"},
    {"XfrmInStateExpired", "in_expired", "ESP on an SA that is at its end (D7)"},
    {"XfrmInStateMismatch", "selector", "inside ESP: other addresses or ports than the SA's (A3)"},
    {"XfrmInStateInvalid", "in_invalid", "ESP on an SA that is going away"},
    {"XfrmInTmplMismatch", "cleartext_protected_port",
     "cleartext for a protected port, or through another's SA (A6)"},
    {"XfrmInNoPols", "in_no_policy", "through an SA, and no policy allows it"},
    {"XfrmInPolBlock", "in_blocked", "forwarded to or from a protected port (A6)"},
    {"XfrmOutNoStates", "outbound_no_sa", "from a protected port without an SA to send it on (A6)"},
    {"XfrmOutStateSeqError", "outbound_sequence_exhausted", "sequence numbers are used up (D7)"},
    {"XfrmOutStateExpired", "out_expired", "on an SA that is at its end (D7)"},
    {"XfrmOutError", "out_error", "to be protected, and could not be"},
}};

}  // namespace

std::vector<sa::DropCount> KernelBackend::drops() {
    std::vector<sa::DropCount> out;
    std::ifstream file("/proc/net/xfrm_stat");
    std::string name;
    std::uint64_t value = 0;
    while (file >> name >> value) {
        for (const KernelCounter& c : kernel_counters) {
            if (c.name == name) out.push_back({c.label, c.help, value});
        }
    }
    return out;
}

void KernelBackend::register_metrics(metrics::Registry& registry) const {
    using metrics::Kind;
    const Impl& i = *impl_;
    const auto add = [&](const char* name, const char* help, const metrics::Counter& counter) {
        registry.function(name, help, Kind::counter, {},
                          [&counter] { return static_cast<double>(counter.value()); });
    };
    const RequestCounters& r = i.requests.counters();
    add("gmgate_kernel_requests_total", "Netlink requests sent to XFRM.", r.requests);
    add("gmgate_kernel_request_errors_total", "Netlink requests the kernel refused.", r.errors);
    add("gmgate_kernel_answers_lost_total", "Netlink requests whose answer never came.", r.lost);
    add("gmgate_kernel_dumps_total", "Times a whole table of the kernel was read.", r.dumps);
    add("gmgate_kernel_dump_retries_total", "Reads of a table begun anew because it changed.",
        r.dump_retries);
    const Counters& c = i.counters;
    add("gmgate_kernel_installed_total", "SA sets installed.", c.installed);
    add("gmgate_kernel_install_failures_total", "SA sets refused.", c.install_failed);
    add("gmgate_kernel_removed_total", "SA sets removed.", c.removed);
    add("gmgate_kernel_adopted_total", "SA sets taken over from an earlier run.", c.adopted);
    add("gmgate_kernel_reconciled_states_total", "States of an earlier run removed.", c.reconciled);
    add("gmgate_kernel_acquires_total", "Packets from protected ports without an SA.", c.acquires);
    add("gmgate_kernel_near_end_total", "SA sets near the end of their sequence numbers (D7).",
        c.expired);
    add("gmgate_kernel_event_overruns_total", "Times kernel events were lost and read up.",
        c.overruns);
    add("gmgate_kernel_missing_total", "SA sets somebody else removed from the kernel.", c.missing);
    add("gmgate_kernel_policies_restored_total", "Policies somebody else removed, put back.",
        c.policies_put);
    add("gmgate_kernel_offload_fallbacks_total",
        "Times the NIC refused and the CPU does ESP instead.", c.offload_fallbacks);
    add("gmgate_kernel_nat_endpoint_changes_total",
        "Times a phone behind a NAT came from another address or port.", c.nat_changes);
    add("gmgate_kernel_nat_lost_total",
        "Packets of phones behind a NAT from where they could not be followed to.", c.nat_failures);
    add("gmgate_kernel_nat_other_total", "Packets to port 4500 that are not ESP.", c.nat_other);
    registry.function("gmgate_kernel_policies_bypassed",
                      "1: another program's policy, or a switch of the host, comes before our "
                      "policies (A6); gmctl health says which.",
                      Kind::gauge, {}, [&c] { return static_cast<double>(c.bypassed.value()); });
    registry.function("gmgate_kernel_sa_sets_limit", "SA sets the kernel is given at most.",
                      Kind::gauge, {},
                      [limit = i.options.max_sets] { return static_cast<double>(limit); });
    std::vector<metrics::Labels> reasons;
    for (const KernelCounter& k : kernel_counters)
        reasons.push_back({{"reason", std::string(k.label)}});
    registry.functions("gmgate_kernel_drops_total",
                       "Packets the kernel's XFRM refused, of this network namespace.",
                       Kind::counter, reasons, [] {
                           std::vector<double> values(kernel_counters.size());
                           for (const sa::DropCount& d : drops()) {
                               for (std::size_t k = 0; k < values.size(); ++k) {
                                   if (kernel_counters[k].label == d.name)
                                       values[k] = static_cast<double>(d.total);
                               }
                           }
                           return values;
                       });
}

}  // namespace gmgate::kernel
