#include "home/domain.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"

namespace gmgate::home {

namespace {
constexpr std::uint16_t default_port = 5060;
}

Domain::Domain(std::string realm, std::string_view server_name, std::vector<Endpoint> listen)
    : realm_(std::move(realm)), listen_(std::move(listen)) {
    if (const auto uri = sip::parse_uri(server_name)) server_host_ = uri->host;
}

bool Domain::is_ours(std::string_view host, std::uint16_t port) const {
    if (iequals(host, realm_) || (!server_host_.empty() && iequals(host, server_host_)))
        return true;
    const auto address = IpAddress::parse(host);
    if (!address) return false;
    const Endpoint there{*address, port != 0 ? port : default_port};
    return std::ranges::find(listen_, there) != listen_.end();
}

Endpoint Domain::listening(const Endpoint& local) const {
    if (std::ranges::find(listen_, local) != listen_.end()) return local;
    const auto same = std::ranges::find(listen_, local.address, &Endpoint::address);
    return same != listen_.end() ? *same : local;
}

}  // namespace gmgate::home
