#include "sa/kernel/set_states.h"

#include <linux/udp.h>
#include <linux/xfrm.h>
#include <openssl/evp.h>

#include <algorithm>
#include <memory>
#include <string_view>

namespace gmgate::kernel {

namespace {

constexpr sa::Port whole_port = 0xFFFF;

State make(const StateId& id, const IpAddress& source, const IpAddress& destination,
           sa::Port source_port, sa::Port destination_port) {
    State s;
    s.id = id;
    s.source = source;
    Selector& sel = s.selector;
    sel.v6 = source.is_v6();
    sel.source = source;
    sel.destination = destination;
    sel.source_prefix = sel.destination_prefix = source.is_v6() ? 128 : 32;
    sel.source_port = source_port;
    sel.destination_port = destination_port;
    sel.source_mask = sel.destination_mask = whole_port;
    return s;
}

class Digest {
  public:
    Digest() { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
    void add(std::span<const std::uint8_t> octets) {
        number(octets.size());
        EVP_DigestUpdate(context_.get(), octets.data(), octets.size());
    }
    void number(std::uint64_t n) { EVP_DigestUpdate(context_.get(), &n, sizeof n); }
    void add(const std::optional<Algorithm>& a) {
        number(a ? 1 : 0);
        if (!a) return;
        add(std::span(reinterpret_cast<const std::uint8_t*>(a->name.data()), a->name.size()));
        number(a->icv_bits);
        add(a->key);
    }
    Fingerprint finish() {
        Fingerprint out{};
        EVP_DigestFinal_ex(context_.get(), out.data(), nullptr);
        return out;
    }

  private:
    struct Free {
        void operator()(EVP_MD_CTX* c) const { EVP_MD_CTX_free(c); }
    };
    std::unique_ptr<EVP_MD_CTX, Free> context_{EVP_MD_CTX_new()};
};

}  // namespace

std::array<StateId, states_per_set> state_ids(const IpAddress& ue, const IpAddress& ours,
                                              const sa::SaNumbers& n, const IpAddress* outer) {
    const IpAddress& there = outer != nullptr ? *outer : ue;
    return {{{ours, n.spi_ps}, {ours, n.spi_pc}, {there, n.spi_uc}, {there, n.spi_us}}};
}

std::array<State, states_per_set> set_states(const IpAddress& ue, const IpAddress& ours,
                                             const sa::SaNumbers& n, std::uint32_t out_sequence,
                                             const Endpoint* outer) {
    const auto ids = state_ids(ue, ours, n, outer != nullptr ? &outer->address : nullptr);
    std::array<State, states_per_set> out{make(ids[in_ps], ue, ours, n.port_uc, n.port_ps),
                                          make(ids[in_pc], ue, ours, n.port_us, n.port_pc),
                                          make(ids[out_uc], ours, ue, n.port_ps, n.port_uc),
                                          make(ids[out_us], ours, ue, n.port_pc, n.port_us)};
    for (std::size_t i = 0; i < states_per_set; ++i) {
        State& s = out[i];
        if (outer != nullptr) {
            s.mode = XFRM_MODE_TUNNEL;
            if (is_inbound(i)) s.source = outer->address;
            s.encapsulation = is_inbound(i)
                                  ? Encapsulation{UDP_ENCAP_ESPINUDP, outer->port, nat_port}
                                  : Encapsulation{UDP_ENCAP_ESPINUDP, nat_port, outer->port};
        }
        if (is_inbound(i)) {
            s.soft_packets = sequence_near_end;
            continue;
        }
        // The kernel counts packets; what went before counts as sent.
        s.out_sequence = out_sequence;
        s.soft_packets =
            out_sequence < sequence_near_end ? sequence_near_end - out_sequence : std::uint64_t{1};
        s.hard_packets = std::max<std::uint64_t>(sequence_end - out_sequence, 1);
    }
    return out;
}

Fingerprint fingerprint(const State& s) {
    Digest d;
    const Selector& sel = s.selector;
    for (const IpAddress* a : {&s.id.destination, &s.source, &sel.source, &sel.destination})
        d.add(a->octets());
    for (const std::uint64_t n :
         {std::uint64_t{s.id.spi}, std::uint64_t{s.protocol}, std::uint64_t{s.mode},
          std::uint64_t{s.reqid}, std::uint64_t{sel.source_prefix},
          std::uint64_t{sel.destination_prefix}, std::uint64_t{sel.source_port},
          std::uint64_t{sel.source_mask}, std::uint64_t{sel.destination_port},
          std::uint64_t{sel.destination_mask}, std::uint64_t{sel.protocol},
          std::uint64_t{s.replay_window}, std::uint64_t{s.set_mark.value_or(0)}}) {
        d.number(n);
    }
    d.add(s.auth);
    d.add(s.crypt);
    d.add(s.aead);
    return d.finish();
}

}  // namespace gmgate::kernel
