#pragma once
// One TCP connection of the kernel's, on the event loop.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/ip.h"
#include "base/unique_fd.h"
#include "ue/network.h"

namespace gmgate::ue {

// Destroying it closes the connection as the kernel does: with FIN, or with nothing where `vanish`.
class SocketStream final : public HostStream {
  public:
    // `handler` may be nullptr until start().
    SocketStream(EventLoop& loop, ClearStreamHandler* handler) : loop_(loop), handler_(handler) {}
    ~SocketStream() override;

    // Active open; port 0 of `from`: any. What goes wrong comes as stream_closed().
    void connect(const Endpoint& from, const Endpoint& to);
    // Takes over an accepted connection; nothing is read before start().
    void adopt(UniqueFd fd, const Endpoint& local, const Endpoint& remote);

    void start(ClearStreamHandler& handler) override;
    void send(std::string_view data) override;
    [[nodiscard]] std::uint16_t local_port() const override { return local_.port; }
    [[nodiscard]] std::uint16_t remote_port() const override { return remote_.port; }
    [[nodiscard]] bool open() const override { return !over_ && !finishing_; }
    void finish() override;
    void abort() override;
    // At the end no FIN and no RST: the SAs it rode are gone, so it would leave in clear (A6).
    // Needs CAP_NET_ADMIN.
    void vanish_at_end() { vanish_ = true; }

  private:
    void fail_later(int error);
    void on_ready(unsigned ready);
    void write();
    void stop();

    EventLoop& loop_;
    ClearStreamHandler* handler_;
    UniqueFd fd_;
    std::string queue_;
    Endpoint local_;
    Endpoint remote_;
    bool connected_ = false;
    bool watched_ = false;
    bool finishing_ = false;  // FIN after what is queued
    bool over_ = false;
    bool vanish_ = false;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace gmgate::ue
