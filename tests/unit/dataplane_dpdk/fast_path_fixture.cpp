#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

#include <string>

namespace gmgate::dataplane::test {

IpAddress our_address(bool v6) {
    return *IpAddress::parse(v6 ? "2001:db8::1" : "10.0.0.1");
}

IpAddress core_address(bool v6) {
    return *IpAddress::parse(v6 ? "2001:db8:c::1" : "192.0.2.1");
}

namespace {

sa::AkaKey random_key(Random& random) {
    sa::AkaKey key;
    random.fill(key.writable());
    return key;
}

Octets octets(const IpAddress& a) {
    return {a.octets().begin(), a.octets().end()};
}

}  // namespace

Phone::Phone(std::uint32_t n, sa::Suite s, bool v6, Random& random, std::uint32_t owner,
             std::uint32_t generation)
    : id(n + 1),
      ue(*IpAddress::parse(v6 ? "2001:db8:1::" + std::to_string(n + 1)
                              : "10.1.0." + std::to_string(n + 1))),
      ours(our_address(v6)),
      suite(s),
      ck(random_key(random)),
      ik(random_key(random)),
      esp(suite, ck, ik) {
    numbers.spi_ps = sa::SpiLayout::make(generation, owner, 2 * n);
    numbers.spi_pc = sa::SpiLayout::make(generation, owner, 2 * n + 1);
    numbers.spi_uc = 0x11110000 + n;
    numbers.spi_us = 0x22220000 + n;
    numbers.port_ps = port_ps;
    numbers.port_pc = static_cast<std::uint16_t>(first_port_pc + n);
    numbers.port_uc = static_cast<std::uint16_t>(30000 + n);
    numbers.port_us = static_cast<std::uint16_t>(40000 + n);
}

sa::SetParams Phone::params() const {
    sa::SetParams p;
    p.id = id;
    p.ue = ue;
    p.ours = ours;
    p.numbers = numbers;
    p.suite = suite;
    p.ck = &ck;
    p.ik = &ik;
    return p;
}

Flow Phone::up(bool tcp, bool to_ps) const {
    return {ue.is_v6(),
            tcp,
            octets(ue),
            octets(ours),
            to_ps ? numbers.port_uc : numbers.port_us,
            to_ps ? numbers.port_ps : numbers.port_pc};
}

Flow Phone::down(bool tcp, bool to_uc) const {
    return {ue.is_v6(),
            tcp,
            octets(ours),
            octets(ue),
            to_uc ? numbers.port_ps : numbers.port_pc,
            to_uc ? numbers.port_uc : numbers.port_us};
}

Octets Phone::esp_up(std::uint32_t sequence, std::size_t data, bool tcp, bool to_ps) const {
    return esp.protect(plain_frame(up(tcp, to_ps), data), to_ps ? numbers.spi_ps : numbers.spi_pc,
                       sequence);
}

FastPathTest::FastPathTest(const SaTableConfig& config, EngineKind engine)
    : engine_(engine), table_(config, make_engine(engine), random_) {}

void FastPathTest::SetUp() {
    start_eal();
    before_ = buffers_out();
    make_path();
}

void FastPathTest::make_path(unsigned worker, bool fill_checksums, bool verify_only) {
    FastPathConfig config;
    config.worker = worker;
    config.our_addresses = {our_address(false), our_address(true)};
    config.other_addresses = {core_address(false), core_address(true)};
    config.protected_ports.add(port_ps);
    config.protected_ports.add_range(first_port_pc, first_port_pc + 999);
    config.fill_checksums = fill_checksums;
    config.verify_only = verify_only;
    config.nat = nat_;
    config.our_addresses.insert(config.our_addresses.end(), more_addresses_.begin(),
                                more_addresses_.end());
    path_ = std::make_unique<FastPath>(config, table_, make_engine(engine_), random_);
    last_drops_ = {};
}

void FastPathTest::TearDown() {
    EXPECT_EQ(buffers_out(), before_) << "a packet was neither listed nor freed";
}

SetHandle FastPathTest::install(const Phone& phone, const SequenceState& state) {
    const auto handle = table_.publish(phone.params(), state);
    EXPECT_TRUE(handle.has_value()) << (handle ? "" : handle.error().text);
    return handle ? *handle : SetHandle{};
}

namespace {

std::vector<Octets> take(PacketList& list) {
    std::vector<Octets> all;
    for (rte_mbuf* m : list.all()) {
        EXPECT_EQ(m->nb_segs, 1);
        EXPECT_EQ(m->pkt_len, m->data_len);
        all.push_back(contents(m));
        rte_pktmbuf_free(m);
    }
    list.count = 0;
    return all;
}

std::vector<std::pair<unsigned, Octets>> take(HandOverList& list) {
    std::vector<std::pair<unsigned, Octets>> all;
    for (std::uint16_t i = 0; i < list.packets.count; ++i)
        all.emplace_back(list.workers[i], contents(list.packets.packets[i]));
    (void)take(list.packets);
    return all;
}

}  // namespace

FastPathTest::In FastPathTest::inbound(const std::vector<Octets>& frames, std::uint32_t now) {
    std::vector<rte_mbuf*> burst;
    for (const Octets& f : frames) burst.push_back(make_mbuf(f));
    InboundResult result;
    path_->inbound(burst.data(), static_cast<std::uint16_t>(burst.size()), now, result);
    return {take(result.to_host), take(result.to_worker), take(result.fragments)};
}

FastPathTest::In FastPathTest::inbound_mbuf(rte_mbuf* m) {
    InboundResult result;
    path_->inbound(&m, 1, 1000, result);
    return {take(result.to_host), take(result.to_worker), take(result.fragments)};
}

FastPathTest::Out FastPathTest::outbound(const std::vector<Octets>& frames, std::uint64_t flags) {
    std::vector<rte_mbuf*> burst;
    for (const Octets& f : frames) {
        burst.push_back(make_mbuf(f));
        burst.back()->ol_flags |= flags;
    }
    OutboundResult result;
    path_->outbound(burst.data(), static_cast<std::uint16_t>(burst.size()), 1000, result);
    return {take(result.to_wire), take(result.to_worker), take(result.fragments)};
}

FastPathTest::Out FastPathTest::outbound_mbuf(rte_mbuf* m) {
    OutboundResult result;
    path_->outbound(&m, 1, 1000, result);
    return {take(result.to_wire), take(result.to_worker), take(result.fragments)};
}

std::uint64_t FastPathTest::dropped(DropReason reason) {
    std::uint64_t found = 0;
    for (std::size_t i = 0; i < drop_reason_count; ++i) {
        const std::uint64_t now = path_->counters().drops[i].get();
        const std::uint64_t since = now - last_drops_[i];
        last_drops_[i] = now;
        if (i == static_cast<std::size_t>(reason)) {
            found = since;
        } else {
            EXPECT_EQ(since, 0U) << name(static_cast<DropReason>(i)) << " counted beside "
                                 << name(reason);
        }
    }
    return found;
}

std::vector<FastPathEvent> FastPathTest::events() {
    std::vector<FastPathEvent> all;
    while (const auto e = path_->events().pop()) all.push_back(*e);
    return all;
}

}  // namespace gmgate::dataplane::test
