#include "control/app/packet_layer.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>
#include <utility>

#include "base/log.h"
#include "control/app/wiring.h"
#include "dataplane/core/screen_backend.h"
#include "dataplane/dpdk/dpdk_backend.h"
#include "sa/kernel/kernel_backend.h"

namespace gmgate::app {

namespace {

template <class Drops>
std::vector<ops::DropCount> drops_of(const char* layer, const Drops& drops) {
    std::vector<ops::DropCount> out;
    for (const sa::DropCount& d : drops)
        out.push_back({layer, std::string(d.name), std::string(d.help), d.total});
    return out;
}
ops::HealthItem health_of(const char* layer, const sa::LayerHealth& health) {
    return {layer, health.ok, health.text};
}

// The workers take from the host port by themselves, within microseconds when they are not
// overloaded, and nothing tells how much still lies there: best effort.
void let_workers_send() {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

class DpdkLayer final : public PacketLayer {
  public:
    explicit DpdkLayer(std::unique_ptr<dataplane::DpdkBackend> backend)
        : backend_(std::move(backend)) {}

    sa::Backend& backend() override { return *backend_; }
    std::string device() const override { return backend_->host_device_name(); }
    void let_out() override { let_workers_send(); }
    std::string name() const override { return "dpdk"; }
    std::string description() const override {
        return fmt::format("dpdk, {} worker(s), crypto {}", backend_->workers(),
                           backend_->crypto_engine());
    }
    std::string capacity_key() const override { return "dpdk.max_sets"; }
    void register_metrics(metrics::Registry& registry) const override {
        backend_->register_metrics(registry);
    }
    std::vector<ops::DropCount> drops() const override {
        return drops_of("dataplane", backend_->drops());
    }
    std::vector<ops::HealthItem> health() const override {
        return {health_of("dataplane", backend_->health())};
    }

  private:
    std::unique_ptr<dataplane::DpdkBackend> backend_;
};

class KernelLayer final : public PacketLayer {
  public:
    KernelLayer(std::unique_ptr<kernel::KernelBackend> backend, std::string device)
        : backend_(std::move(backend)), device_(std::move(device)) {}

    sa::Backend& backend() override { return *backend_; }
    std::string device() const override { return device_; }
    void ready() override { backend_->finish_reconciliation(); }
    std::string name() const override { return "kernel"; }
    std::string description() const override {
        const auto offload = backend_->offload();
        return fmt::format("kernel, offload {}", offload == kernel::Offload::packet   ? "packet"
                                                 : offload == kernel::Offload::crypto ? "crypto"
                                                                                      : "none");
    }
    std::string capacity_key() const override { return "kernel.max_sets"; }
    void register_metrics(metrics::Registry& registry) const override {
        backend_->register_metrics(registry);
    }
    std::vector<ops::DropCount> drops() const override {
        return drops_of("kernel", backend_->drops());
    }
    std::vector<ops::HealthItem> health() const override {
        return {health_of("kernel", backend_->health())};
    }

  private:
    std::unique_ptr<kernel::KernelBackend> backend_;
    std::string device_;
};

// The kernel behind, DPDK in front of it. The front goes first, so that nothing passes it any more
// when the kernel's states and policies go.
class ScreenLayer final : public PacketLayer {
  public:
    ScreenLayer(std::unique_ptr<kernel::KernelBackend> behind,
                std::unique_ptr<dataplane::DpdkBackend> front,
                std::unique_ptr<dataplane::ScreenBackend> both, std::string capacity_key)
        : behind_(std::move(behind)),
          front_(std::move(front)),
          both_(std::move(both)),
          capacity_key_(std::move(capacity_key)) {}

    sa::Backend& backend() override { return *both_; }
    std::string device() const override { return front_->host_device_name(); }
    void ready() override { behind_->finish_reconciliation(); }
    void let_out() override { let_workers_send(); }
    std::string name() const override { return "screen"; }
    std::string description() const override {
        return fmt::format("screen, {} worker(s), crypto {}, in front of the kernel",
                           front_->workers(), front_->crypto_engine());
    }
    std::string capacity_key() const override { return capacity_key_; }
    void register_metrics(metrics::Registry& registry) const override {
        front_->register_metrics(registry);
        behind_->register_metrics(registry);
        both_->register_metrics(registry);
    }
    std::vector<ops::DropCount> drops() const override {
        auto out = drops_of("dataplane", front_->drops());
        for (auto& d : drops_of("kernel", behind_->drops())) out.push_back(std::move(d));
        return out;
    }
    std::vector<ops::HealthItem> health() const override {
        const std::uint64_t n = both_->disagreements();
        return {health_of("dataplane", front_->health()),
                health_of("kernel", behind_->health()),
                {"screen", n == 0,
                 n == 0 ? std::string("ok")
                        : fmt::format("{} times the kernel refused what the screen had verified; "
                                      "the layers hold different keys: report it",
                                      n)}};
    }

  private:
    std::unique_ptr<kernel::KernelBackend> behind_;
    std::unique_ptr<dataplane::DpdkBackend> front_;
    std::unique_ptr<dataplane::ScreenBackend> both_;
    std::string capacity_key_;
};

// The kernel first: what it lacks is known before the interface is taken from the host.
Result<std::unique_ptr<PacketLayer>> start_screen(const config::Config& c, const Clock& clock) {
    auto behind = kernel::KernelBackend::create(kernel_options(c), clock);
    if (!behind) return std::unexpected(std::move(behind.error()));
    auto front = dataplane::DpdkBackend::create(dpdk_options(c), clock);
    if (!front) return std::unexpected(std::move(front.error()));
    auto both = dataplane::ScreenBackend::create(**front, **behind);
    if (!both) return std::unexpected(std::move(both.error()));
    return std::make_unique<ScreenLayer>(std::move(*behind), std::move(*front), std::move(*both),
                                         std::string(c.max_sets_key()));
}

}  // namespace

Result<std::unique_ptr<PacketLayer>> start_packet_layer(const config::Config& c,
                                                        const Clock& clock) {
    if (c.backend == config::Backend::screen) return start_screen(c, clock);
    if (c.security.nat == config::Nat::automatic && c.has_ipv4() && c.holds_nat_port()) {
        log::warn("gmgated",
                  "phones behind a NAT are refused: gm.port_ps or gm.port_pc holds 4500, the port "
                  "of ESP in UDP; choose others, or write security.nat: off");
    }
    if (c.backend == config::Backend::kernel) {
        if (!c.gm.routes.empty())
            log::info("gmgated",
                      "gm.routes is not used: with backend: kernel the host's own routes "
                      "lead to the phones");
        auto backend = kernel::KernelBackend::create(kernel_options(c), clock);
        if (!backend) return std::unexpected(std::move(backend.error()));
        return std::make_unique<KernelLayer>(std::move(*backend), c.gm.interface);
    }
    auto backend = dataplane::DpdkBackend::create(dpdk_options(c), clock);
    if (!backend) return std::unexpected(std::move(backend.error()));
    return std::make_unique<DpdkLayer>(std::move(*backend));
}

}  // namespace gmgate::app
