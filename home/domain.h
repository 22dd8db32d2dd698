#pragma once
// Which names and addresses are the home network's own.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "control/sip/values.h"

namespace gmgate::home {

class Domain {
  public:
    // `server_name`: the S-CSCF's URI. `listen`: concrete addresses, at least one.
    Domain(std::string realm, std::string_view server_name, std::vector<Endpoint> listen);

    // The home domain, the S-CSCF's name, or an address we listen on. Port 0: none written.
    [[nodiscard]] bool is_ours(std::string_view host, std::uint16_t port) const;
    [[nodiscard]] bool is_ours(const sip::Uri& uri) const { return is_ours(uri.host, uri.port); }

    // The endpoint we listen on where a message came in: a connection of our own making has a port
    // that nobody can call.
    [[nodiscard]] Endpoint listening(const Endpoint& local) const;

    [[nodiscard]] std::string_view realm() const { return realm_; }
    [[nodiscard]] std::span<const Endpoint> listen() const { return listen_; }

  private:
    std::string realm_;
    std::string server_host_;
    std::vector<Endpoint> listen_;
};

}  // namespace gmgate::home
