#include "control/app/packet_layer.h"

#include <fmt/format.h>

#include <utility>

#include "base/log.h"
#include "control/app/wiring.h"
#include "dataplane/dpdk/dpdk_backend.h"
#include "sa/kernel/kernel_backend.h"

namespace gmgate::app {

namespace {

class DpdkLayer final : public PacketLayer {
  public:
    explicit DpdkLayer(std::unique_ptr<dataplane::DpdkBackend> backend)
        : backend_(std::move(backend)) {}

    sa::Backend& backend() override { return *backend_; }
    std::string device() const override { return backend_->host_device_name(); }
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
        std::vector<ops::DropCount> out;
        for (const auto& d : backend_->drops())
            out.push_back({"dataplane", std::string(d.name), std::string(d.help), d.total});
        return out;
    }
    ops::HealthItem health() const override {
        const auto d = backend_->health();
        return {"dataplane", d.ok, d.text};
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
        std::vector<ops::DropCount> out;
        for (const auto& d : kernel::KernelBackend::drops())
            out.push_back({"kernel", std::string(d.name), std::string(d.help), d.total});
        return out;
    }
    ops::HealthItem health() const override {
        const auto h = backend_->health();
        return {"kernel", h.ok, h.text};
    }

  private:
    std::unique_ptr<kernel::KernelBackend> backend_;
    std::string device_;
};

}  // namespace

Result<std::unique_ptr<PacketLayer>> start_packet_layer(const config::Config& c,
                                                        const Clock& clock) {
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
