// Between a phone and the network: its ESP, the TCP connections that ride its SAs, the clear
// stream.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/bytes.h"
#include "ue/packet.h"
#include "ue/phone.h"

namespace gmgate::ue {

namespace {

constexpr std::uint8_t protocol_ipv4 = 4;  // next header of tunnel mode
constexpr std::size_t max_ip_packet = 65535;

}  // namespace

// ---- links hand on to the phone ----

void OwnTcpLink::tcp_output(TcpConnection& c, const TcpSegment& segment) {
    const bool at_client_port = c.local_port() == set_.numbers.port_uc;
    Bytes bytes;
    build_tcp(set_.local, phone_.pcscf().address, segment, bytes);
    phone_.send_protected(set_, at_client_port, protocol_tcp, bytes);
}

void OwnTcpLink::tcp_established(TcpConnection&) {}

void OwnTcpLink::tcp_data(TcpConnection&, std::string_view data) {
    phone_.link_data(*this, set_, data);
}

void OwnTcpLink::tcp_closed(TcpConnection&, bool reset) {
    phone_.link_closed(*this, set_, reset);
}

void HostTcpLink::stream_data(std::string_view data) {
    phone_.link_data(*this, set_, data);
}

void HostTcpLink::stream_closed(std::string_view why) {
    phone_.link_closed(*this, set_, why != peer_closed);
}

void HostLink::host_datagram(bool at_client_port, const Endpoint& from, std::string_view payload) {
    phone_.host_datagram(set_, at_client_port, from, payload);
}

void HostLink::host_accepted(std::unique_ptr<HostStream> stream) {
    phone_.host_accepted(set_, std::move(stream));
}

// ---- sending ----

void Phone::send_protected(SaSet& set, bool from_client_port, std::uint8_t protocol,
                           std::span<const std::uint8_t> inner) {
    auto& n = set.numbers;
    std::uint32_t& last = from_client_port ? set.secret->sent_ps : set.secret->sent_pc;
    if (last == 0xFFFFFFFFU) {  // D7: never wrapped
        violation("an SA of the phone ran out of sequence numbers");
        return;
    }
    EspCrypto::Packet p;
    p.spi = from_client_port ? n.spi_ps : n.spi_pc;
    p.sequence = ++last;
    p.next_header = protocol;
    p.payload = inner;
    std::vector<Bytes> whole;
    if (set.encapsulated) {
        build_ip(set.local, pcscf().address, protocol, inner, max_ip_packet, p.sequence, whole);
        p.next_header = protocol_ipv4;
        p.payload = whole.front();
    }
    Bytes esp;
    context_.crypto.seal(set.suite, set.secret->keys, p, context_.random, esp);
    if (spoil_) {
        // The sequence number is not used up: it never was authentic.
        esp.back() ^= 0x01;
        --last;
    }
    ++context_.statistics.esp_sent;
    send_esp(set, esp);
    if (misbehaves(Misbehaviour::replay) && phase_ == Phase::registered) {
        recorded_ = std::make_unique<Bytes>(std::move(esp));
    }
}

void Phone::send_esp(const SaSet& set, std::span<const std::uint8_t> esp) {
    if (set.encapsulated) return context_.network.send_in_udp(set.local, pcscf().address, esp);
    context_.network.send_esp(set.local, pcscf().address, esp);
}

void Phone::keep_nat_open() {
    bool needed = false;
    for (const SaSet* s : {current_.get(), pending_.get(), old_.get()})
        needed = needed || (s != nullptr && s->encapsulated);
    if (!needed) {
        keepalive_.reset();
        return;
    }
    static constexpr std::array<std::uint8_t, 1> octet{0xFF};
    context_.network.send_in_udp(plan_.address, pcscf().address, octet);
    context_.timers.start(*keepalive_, context_.keepalive);
}

void Phone::send_udp_protected(SaSet& set, bool from_client_port, std::string_view payload) {
    if (set.host) return set.host->send(from_client_port, payload);
    const auto& n = set.numbers;
    Bytes inner;
    build_udp({set.local, from_client_port ? n.port_uc : n.port_us},
              {pcscf().address, from_client_port ? n.port_ps : n.port_pc}, as_bytes(payload),
              inner);
    send_protected(set, from_client_port, protocol_udp, inner);
}

TcpLink& Phone::client_link(SaSet& set) {
    if (set.client && set.client->open()) return *set.client;
    if (set.client) {
        set.client->forget();
        context_.retired_links.push_back(std::move(set.client));
    }
    if (set.host) {
        set.client = std::make_unique<HostTcpLink>(*this, set, *set.host);
        return *set.client;
    }
    TcpConnection::Options o;
    o.local_port = set.numbers.port_uc;
    o.remote_port = set.numbers.port_ps;
    o.mss = mss();
    o.initial_sequence = context_.random.u32();
    auto link = std::make_unique<OwnTcpLink>(*this, set, context_.timers, o, false);
    link->connection.connect();
    set.client = std::move(link);
    return *set.client;
}

std::uint16_t Phone::mss() const {
    // IP and TCP headers, and the worst of ESP: header 8, IV 16, padding 15 + 2, ICV 16.
    // Behind a NAT the outer IP and UDP headers besides.
    const std::size_t overhead =
        (plan_.address.is_v6() ? 40U : 20U) + 20U + 57U + (context_.nat ? 28U : 0U);
    return static_cast<std::uint16_t>(
        std::max<std::size_t>(536, context_.mtu - std::min(context_.mtu, overhead)));
}

// ---- receiving ----

void Phone::receive_udp(const Endpoint& from, std::string_view payload) {
    if (deaf_) return;
    Arrival a;
    a.from = from;
    a.to = {plan_.address, context_.clear_port};
    on_message(payload, a);
}

void Phone::receive_in_udp(const IpAddress& from, std::span<const std::uint8_t> payload) {
    // A keep-alive, or IKE's marker where ESP has its SPI.
    if (payload.size() < 8 || load_be32(payload.data()) == 0) return;
    receive_esp(from, payload, true);
}

void Phone::receive_esp(const IpAddress& from, std::span<const std::uint8_t> packet, bool in_udp) {
    auto& stats = context_.statistics;
    if (packet.size() < 8) {
        ++stats.esp_bad;
        return;
    }
    if (deaf_) return;
    const Spi spi = load_be32(packet.data());
    SaSet* set = nullptr;
    for (SaSet* s : {current_.get(), pending_.get(), old_.get()}) {
        if (s != nullptr && (s->numbers.spi_uc == spi || s->numbers.spi_us == spi)) set = s;
    }
    // A phone under a script still hears what comes on SAs that are gone: nothing should.
    if (set == nullptr && scripted_) {
        for (const auto& s : scripted_->gone) {
            if (s->numbers.spi_uc == spi || s->numbers.spi_us == spi) set = s.get();
        }
    }
    if (set == nullptr) {
        ++stats.esp_unknown_spi;
        return;
    }
    if (from != pcscf().address || set->encapsulated != in_udp) {
        ++stats.esp_selector;
        return;
    }
    const bool at_client_port = spi == set->numbers.spi_uc;
    ReplayWindow& window = at_client_port ? set->secret->in_uc : set->secret->in_us;
    const std::uint32_t sequence = load_be32(packet.data() + 4);
    if (!window.fresh(sequence)) {
        ++stats.esp_replayed;
        return;
    }
    const auto opened = context_.crypto.open(set->suite, set->secret->keys, packet);
    if (!opened) {
        ++stats.esp_bad;
        return;
    }
    window.mark(sequence);
    ++stats.esp_received;
    const auto& n = set->numbers;
    const Port expected_from = at_client_port ? n.port_ps : n.port_pc;
    const Port expected_to = at_client_port ? n.port_uc : n.port_us;
    std::uint8_t protocol = opened->next_header;
    std::span<const std::uint8_t> segment = opened->payload;
    if (in_udp) {
        const auto inner = protocol == protocol_ipv4 ? read_ipv4(segment) : std::nullopt;
        if (!inner || inner->from != from || inner->to != set->local) {
            ++stats.esp_selector;
            return;
        }
        protocol = inner->protocol;
        segment = inner->payload;
    }
    if (protocol == protocol_udp) {
        const auto udp = read_udp(from, set->local, segment);
        if (!udp) {
            ++stats.esp_bad;
            return;
        }
        if (udp->from_port != expected_from || udp->to_port != expected_to) {
            ++stats.esp_selector;
            return;
        }
        Arrival a;
        a.set = set;
        a.from = {from, udp->from_port};
        a.to = {set->local, udp->to_port};
        on_message(as_text(udp->payload), a);
    } else if (protocol == protocol_tcp) {
        const auto tcp = read_tcp(from, set->local, segment);
        if (!tcp) {
            ++stats.esp_bad;
            return;
        }
        if (tcp->from_port != expected_from || tcp->to_port != expected_to) {
            ++stats.esp_selector;
            return;
        }
        receive_tcp(*set, at_client_port, *tcp);
    } else {
        ++stats.esp_selector;
    }
}

void Phone::receive_tcp(SaSet& set, bool at_client_port, const TcpSegment& s) {
    std::unique_ptr<TcpLink>& slot = at_client_port ? set.client : set.server;
    // Without a HostSet every link is our own.
    auto* link = static_cast<OwnTcpLink*>(slot.get());
    const bool syn = (s.flags & tcp_flag::syn) != 0 && (s.flags & tcp_flag::ack) == 0;
    if (!at_client_port && syn) {
        const bool repeated = link != nullptr && !link->connection.done() &&
                              link->connection.peer_initial() == s.sequence;
        if (!repeated) {
            if (link != nullptr) {
                link->forget();
                context_.retired_links.push_back(std::move(slot));
            }
            TcpConnection::Options o;
            o.local_port = s.to_port;
            o.remote_port = s.from_port;
            o.mss = mss();
            o.initial_sequence = context_.random.u32();
            auto fresh = std::make_unique<OwnTcpLink>(*this, set, context_.timers, o, true);
            link = fresh.get();
            slot = std::move(fresh);
            link->connection.accept(s);
            return;
        }
    }
    if (link != nullptr && link->connection.state() != TcpConnection::State::closed) {
        link->connection.receive(s);
        return;
    }
    if ((s.flags & tcp_flag::rst) != 0) return;
    TcpSegment reset;
    reset.from_port = s.to_port;
    reset.to_port = s.from_port;
    reset.flags = tcp_flag::rst;
    if ((s.flags & tcp_flag::ack) != 0) {
        reset.sequence = s.acknowledgment;
    } else {
        reset.flags |= tcp_flag::ack;
        reset.acknowledgment =
            s.sequence + static_cast<std::uint32_t>(s.payload.size()) + (syn ? 1U : 0U);
    }
    Bytes bytes;
    build_tcp(set.local, pcscf().address, reset, bytes);
    send_protected(set, at_client_port, protocol_tcp, bytes);
}

void Phone::host_datagram(SaSet& set, bool at_client_port, const Endpoint& from,
                          std::string_view payload) {
    if (deaf_) return;
    Arrival a;
    a.set = &set;
    a.from = from;
    a.to = {set.local, at_client_port ? set.numbers.port_uc : set.numbers.port_us};
    on_message(payload, a);
}

void Phone::host_accepted(SaSet& set, std::unique_ptr<HostStream> stream) {
    if (set.server) context_.retired_links.push_back(std::move(set.server));
    set.server = std::make_unique<HostTcpLink>(*this, set, std::move(stream));
}

void Phone::link_data(TcpLink& link, SaSet& set, std::string_view data) {
    link.framer.feed(data);
    Arrival a;
    a.set = &set;
    a.link = &link;
    a.tcp = true;
    a.from = {pcscf().address, link.remote_port()};
    a.to = {set.local, link.local_port()};
    drain(link.framer, a);
}

void Phone::drain(sip::StreamFramer& framer, const Arrival& arrival) {
    for (;;) {
        const sip::Frame f = framer.next();
        if (f.kind == sip::FrameKind::none) return;
        if (f.kind == sip::FrameKind::message) {
            on_message(f.bytes, arrival);
        } else if (f.kind == sip::FrameKind::ping) {
            if (arrival.link != nullptr) arrival.link->send("\r\n");
        } else if (f.kind == sip::FrameKind::error) {
            violation("a TCP stream that is not SIP");
            if (arrival.link != nullptr) arrival.link->abort();
            return;
        }
    }
}

void Phone::link_closed(TcpLink& link, SaSet& set, bool reset) {
    if (script_ != nullptr && set.client.get() == &link) script_->stream_ended(set.serial, reset);
    if (!reset) {
        link.close();
        return;
    }
    const bool ours =
        transaction_ && transaction_->tcp && transaction_->set == &set && set.client.get() == &link;
    if (!ours || !misbehaves(Misbehaviour::none))
        return;  // a misbehaving phone waits for its silence
    fail(fmt::format("the TCP connection for {} was reset or not accepted", transaction_->step));
}

void Phone::stream_data(std::string_view data) {
    stream_framer_->feed(data);
    Arrival a;
    a.tcp = true;
    a.from = pcscf();
    a.to = {plan_.address, stream_ ? stream_->local_port() : std::uint16_t{0}};
    drain(*stream_framer_, a);
}

void Phone::stream_closed(std::string_view why) {
    close_clear_stream();
    if (transaction_ && transaction_->tcp && transaction_->set == nullptr) {
        fail(fmt::format("the TCP connection for {} failed: {}", transaction_->step, why));
    }
}

void Phone::close_clear_stream() {
    if (stream_) context_.retired_streams.push_back(std::move(stream_));
    stream_.reset();
}

}  // namespace gmgate::ue
