#pragma once
// From the configuration to the plain values each part asks for.

#include "config/config.h"
#include "control/ops/api.h"
#include "control/registration/policy.h"
#include "control/sip/socket_transport.h"
#include "dataplane/dpdk/dpdk_backend.h"
#include "sa/database.h"
#include "sa/kernel/kernel_backend.h"

namespace gmgate::app {

[[nodiscard]] dataplane::DpdkOptions dpdk_options(const config::Config& c);
[[nodiscard]] kernel::KernelOptions kernel_options(const config::Config& c);
[[nodiscard]] sa::DatabaseConfig database_config(const config::Config& c);
[[nodiscard]] registration::Policy policy(const config::Config& c);
// `device`: what the sockets of the Gm side are bound to.
[[nodiscard]] sip::SocketTransportOptions gm_transport(const config::Config& c,
                                                       const std::string& device);
[[nodiscard]] sip::SocketTransportOptions core_transport(const config::Config& c);

// Opens the sockets of each side; the error names the endpoint.
Result<void> open_gm(sip::SocketTransport& transport, const config::Config& c);
Result<void> open_core(sip::SocketTransport& transport, const config::Config& c);

}  // namespace gmgate::app
