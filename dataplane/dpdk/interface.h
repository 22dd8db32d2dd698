#pragma once
// What we ask of the host's network interfaces: by ioctl, rtnetlink and /proc/sys, never by running
// a program.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace gmgate::dataplane {

using MacAddress = std::array<std::uint8_t, 6>;

struct InterfaceInfo {
    int index = 0;
    MacAddress mac{};
    unsigned flags = 0;  // IFF_…
    unsigned mtu = 0;
    bool ethernet = false;
    bool carrier = false;  // up and running
};

// All of them look in the calling thread's network namespace.
[[nodiscard]] Result<InterfaceInfo> interface_info(const std::string& name);  // not_found
[[nodiscard]] std::vector<std::string> interface_names();
// "lo, eth0, eth1", for error texts.
[[nodiscard]] std::string interface_list();
// Without IPv6 link-local.
[[nodiscard]] std::vector<std::string> interface_addresses(const std::string& name);

[[nodiscard]] Result<void> change_flags(const std::string& name, unsigned on, unsigned off);
[[nodiscard]] Result<void> set_mtu(const std::string& name, unsigned mtu);
[[nodiscard]] Result<void> set_mac(const std::string& name, const MacAddress& mac);
// No duplicate address detection: the address is usable when this returns.
[[nodiscard]] Result<void> add_address(const std::string& name, const IpAddress& address,
                                       unsigned prefix);
[[nodiscard]] Result<void> add_route(const std::string& name, const IpAddress& to, unsigned prefix,
                                     const IpAddress& via);
// One value below /proc/sys/net, e.g. {"ipv4", "eth0", "rp_filter"}.
[[nodiscard]] Result<std::string> read_sysctl(const std::string& family, const std::string& name,
                                              const std::string& key);
[[nodiscard]] Result<void> write_sysctl(const std::string& family, const std::string& name,
                                        const std::string& key, const std::string& value);

// Drops every frame that comes in on an interface after packet sockets have seen it and before the
// host's IP stack does: the fast path alone decides what the host gets (A6). By a two-instruction
// BPF program: as a tcx link (Linux 6.6 and later, gone with the process, however it ends), or on a
// clsact qdisc (older; stays after kill -9, the next start replaces it).
class IngressDrop {
  public:
    [[nodiscard]] static Result<IngressDrop> attach(int interface_index);
    ~IngressDrop();
    IngressDrop(IngressDrop&& other) noexcept;
    IngressDrop& operator=(IngressDrop&&) = delete;
    IngressDrop(const IngressDrop&) = delete;
    IngressDrop& operator=(const IngressDrop&) = delete;

    [[nodiscard]] const char* method() const { return link_.valid() ? "tcx" : "clsact"; }

  private:
    IngressDrop() = default;
    UniqueFd program_;
    UniqueFd link_;
    int clsact_index_ = 0;  // filter to delete; 0: none
    bool own_qdisc_ = false;
};

// The Gm interface while it is ours: up, taking all multicast (ND), silent (no ARP, no IPv6, no
// receive merging), and its frames kept from the host's stack. What was changed is put back when
// this goes.
class TakenInterface {
  public:
    // not_found, conflict (a second copy, or addresses still on it), denied.
    [[nodiscard]] static Result<std::unique_ptr<TakenInterface>> take(const std::string& name);
    ~TakenInterface();
    TakenInterface(const TakenInterface&) = delete;
    TakenInterface& operator=(const TakenInterface&) = delete;

    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] const InterfaceInfo& info() const { return info_; }
    [[nodiscard]] const char* guard() const { return drop_ ? drop_->method() : "none"; }

  private:
    TakenInterface() = default;
    void set_and_remember(const char* family, const char* key, const char* value);
    void feature_off(std::uint32_t get, std::uint32_t set, std::uint32_t mask);

    // After kill -9 the next start puts back what the dead run changed, before it takes the
    // interface itself: a small file under /run/gmgate, named by network namespace and interface,
    // says what that was. MAC and index guard against mistaking another.
    [[nodiscard]] std::string record_path() const;
    void write_record() const;
    bool read_record();
    void put_back();

    struct OldSysctl {
        std::string family;
        std::string key;
        std::string value;
    };
    struct OldFeature {
        std::uint32_t set;
        std::uint32_t value;
    };
    std::string name_;
    InterfaceInfo info_;
    UniqueFd lock_;
    std::unique_ptr<IngressDrop> drop_;
    std::vector<OldSysctl> sysctls_;
    std::vector<OldFeature> features_;
    bool recorded_ = false;
    unsigned flags_on_ = 0;  // bits of IFF_… that we set and that were not set
};

}  // namespace gmgate::dataplane
