#pragma once
// DPDK's environment: started once per process, before any other thread of ours, cleaned up at
// exit.

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace gmgate::dataplane {

struct EalOptions {
    unsigned memory_mb = 512;  // MiB
    bool hugepages = false;
    bool pci = false;                       // probe PCI devices
    std::vector<std::string> devices;       // allowed PCI addresses
    std::string runtime_prefix = "gmgate";  // its files lie in <runtime dir>/<runtime_prefix>-<pid>
};

// DPDK's own messages go to our log (area "dpdk"): errors at warn, the rest at debug.
class Eal {
  public:
    // The calling thread keeps its CPU affinity. Removes what copies of ours that are dead left
    // behind.
    [[nodiscard]] static Result<std::unique_ptr<Eal>> start(const EalOptions& options);
    ~Eal();
    Eal(const Eal&) = delete;
    Eal& operator=(const Eal&) = delete;

  private:
    Eal() = default;
    std::string runtime_dir_;
};

// What DPDK said last at level error: the reason behind a failed call, for one line to the
// operator. Empty: nothing.
[[nodiscard]] std::string last_dpdk_error();

// Where DPDK keeps runtime files for this user.
[[nodiscard]] std::string dpdk_runtime_root();
// Removes "<prefix>-<pid>" folders under `root` whose process is gone. Returns how many.
std::size_t remove_stale_runtime_dirs(const std::string& root, const std::string& prefix);

}  // namespace gmgate::dataplane
