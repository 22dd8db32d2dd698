#include "control/sip/socket_transport.h"

#include "control/sip/tcp_connections.h"
#include "control/sip/udp_sockets.h"

namespace gmgate::sip {

namespace {

metrics::Counter& counter(metrics::Registry& registry, const std::string& side, const char* name,
                          const char* help, const char* transport) {
    return registry.counter(std::string("gmgate_sip_") + name, help,
                            {{"side", side}, {"transport", transport}});
}

UdpSockets::Counters udp_counters(metrics::Registry& r, const std::string& side) {
    return {counter(r, side, "received_messages_total", "SIP messages received.", "udp"),
            counter(r, side, "sent_messages_total", "SIP messages handed to the kernel.", "udp"),
            counter(r, side, "truncated_datagrams_total", "Datagrams larger than 64 KiB, dropped.",
                    "udp"),
            counter(r, side, "send_drops_total", "Messages the kernel did not take.", "udp")};
}

TcpConnections::Counters tcp_counters(metrics::Registry& r, const std::string& side) {
    return {
        counter(r, side, "received_messages_total", "SIP messages received.", "tcp"),
        counter(r, side, "sent_messages_total", "SIP messages handed to the kernel.", "tcp"),
        counter(r, side, "connections_accepted_total", "TCP connections accepted.", "tcp"),
        counter(r, side, "connections_made_total", "TCP connections opened by us.", "tcp"),
        counter(r, side, "connections_refused_total",
                "TCP connections closed at once: over a limit.", "tcp"),
        counter(r, side, "framing_errors_total", "Streams that broke SIP framing, closed.", "tcp"),
        counter(r, side, "connection_timeouts_total", "Connections closed for silence.", "tcp"),
        counter(r, side, "connection_overflows_total",
                "Connections closed because the peer does not read.", "tcp"),
        r.gauge("gmgate_sip_connections", "Open TCP connections.", {{"side", side}})};
}

}  // namespace

struct SocketTransport::Impl {
    Impl(EventLoop& loop, MessageSink& sink, SocketTransportOptions o, metrics::Registry& registry,
         const std::string& side)
        : options(std::move(o)),
          udp(loop, sink, udp_counters(registry, side)),
          tcp(loop, sink, options, tcp_counters(registry, side)) {
        loop.on_idle([alive = std::weak_ptr<bool>(life), this] {
            if (!alive.expired()) udp.flush();
        });
    }
    SocketTransportOptions options;
    UdpSockets udp;
    TcpConnections tcp;
    // The loop may outlive us; its idle callback asks this first.
    std::shared_ptr<bool> life = std::make_shared<bool>(true);
};

SocketTransport::SocketTransport(EventLoop& loop, MessageSink& sink, SocketTransportOptions options,
                                 metrics::Registry& registry, const std::string& side)
    : impl_(std::make_unique<Impl>(loop, sink, std::move(options), registry, side)) {}
SocketTransport::~SocketTransport() = default;

Result<void> SocketTransport::add_udp(const Endpoint& local) {
    return impl_->udp.add(local, impl_->options.device, impl_->options.receive_buffer);
}
Result<void> SocketTransport::add_tcp_listener(const Endpoint& local) {
    return impl_->tcp.listen(local);
}

bool SocketTransport::send(const Flow& flow, std::span<const char> bytes) {
    return flow.transport == Transport::udp ? impl_->udp.send(flow, bytes)
                                            : impl_->tcp.send(flow, bytes);
}
void SocketTransport::close(ConnectionId connection) {
    impl_->tcp.close(connection);
}
void SocketTransport::cut(const Endpoint& local, const Endpoint& remote) {
    impl_->tcp.cut(local, remote);
}
void SocketTransport::flush() {
    impl_->udp.flush();
}
std::size_t SocketTransport::connections() const {
    return impl_->tcp.size();
}

}  // namespace gmgate::sip
