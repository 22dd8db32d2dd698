#pragma once
// A kernel for tests: keeps XFRM's tables, answers requests as the real one does, and fails where
// told. Messages are built and taken apart here with <linux/xfrm.h> alone, not with the code under
// test.

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "sa/kernel/channel.h"

namespace gmgate::kernel::test {

using Octets = std::vector<std::uint8_t>;

template <class T>
void append(Octets& out, const T& value) {
    const auto* p = reinterpret_cast<const std::uint8_t*>(&value);
    out.insert(out.end(), p, p + sizeof value);
    out.resize((out.size() + 3) & ~std::size_t{3});
}
inline void append_attribute(Octets& out, std::uint16_t type, const Octets& value) {
    const nlattr header{static_cast<std::uint16_t>(sizeof(nlattr) + value.size()), type};
    append(out, header);
    out.insert(out.end(), value.begin(), value.end());
    out.resize((out.size() + 3) & ~std::size_t{3});
}
template <class T>
void append_attribute(Octets& out, std::uint16_t type, const T& value) {
    Octets v;
    v.resize(sizeof value);
    std::memcpy(v.data(), &value, sizeof value);
    append_attribute(out, type, v);
}
inline Octets message(std::uint16_t type, std::uint16_t flags, std::uint32_t sequence,
                      const Octets& payload) {
    Octets out;
    append(out, nlmsghdr{static_cast<std::uint32_t>(sizeof(nlmsghdr) + payload.size()), type, flags,
                         sequence, 0});
    out.insert(out.end(), payload.begin(), payload.end());
    return out;
}

struct KernelTables {
    // The whole payload of the NEWSA, by (destination, SPI); of policies by (direction, selector).
    using StateKey = std::pair<std::string, std::uint32_t>;
    std::map<StateKey, Octets> states;
    std::map<std::string, Octets> policies;

    // Asked for each request before it is done: (type, how many of this type came before). 0: do
    // it; otherwise errno.
    std::function<int(std::uint16_t, unsigned)> refuse;
    std::string refusal_text;        // in the acknowledgement
    std::vector<unsigned> lose;      // answers to the n-th requests of all get lost: ENOBUFS
    int send_error = 0;              // of the next send
    unsigned interrupted_dumps = 0;  // so many dumps tell NLM_F_DUMP_INTR
    std::size_t dump_messages = 7;   // in one datagram
    bool strip_offload = false;      // the driver has no offload: done in software, without a word
    std::function<void()> during_dump;

    std::map<std::uint16_t, unsigned> seen;
    unsigned requests = 0;
    std::deque<std::variant<Octets, int>> queue;  // datagrams or errno

    static std::string key_of(const xfrm_selector& s, unsigned direction) {
        std::string k(reinterpret_cast<const char*>(&s), sizeof s);
        return k + static_cast<char>('0' + direction);
    }
    [[nodiscard]] static std::string address(const xfrm_address_t& a, std::uint16_t family) {
        return {reinterpret_cast<const char*>(&a), family == AF_INET6 ? 16U : 4U};
    }
    [[nodiscard]] xfrm_usersa_info info(const StateKey& key) const {
        xfrm_usersa_info i{};
        std::memcpy(&i, states.at(key).data(), sizeof i);
        return i;
    }
    // Changes what the kernel knows of a state.
    void change(const StateKey& key, const std::function<void(xfrm_usersa_info&)>& edit) {
        xfrm_usersa_info i = info(key);
        edit(i);
        std::memcpy(states.at(key).data(), &i, sizeof i);
    }

    void handle(const nlmsghdr& header, const Octets& payload) {
        const unsigned before = seen[header.nlmsg_type]++;
        const unsigned number = requests++;
        int error = refuse ? refuse(header.nlmsg_type, before) : 0;
        const std::uint32_t sequence = header.nlmsg_seq;
        Octets reply;
        bool acknowledge = (header.nlmsg_flags & NLM_F_ACK) != 0;
        if (error == 0 && (header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP) {
            dump(header);
            return;
        }
        if (error == 0) {
            switch (header.nlmsg_type) {
                case XFRM_MSG_NEWSA:
                    error = add(payload);
                    break;
                case XFRM_MSG_UPDSA:
                    error = states.erase(state_of(payload)) != 0 ? add(payload) : ESRCH;
                    break;
                case XFRM_MSG_DELSA:
                    error = states.erase(name_of(payload)) != 0 ? 0 : ESRCH;
                    break;
                case XFRM_MSG_GETSA: {
                    const auto it = states.find(name_of(payload));
                    if (it == states.end()) {
                        error = ESRCH;
                    } else {
                        reply = message(XFRM_MSG_NEWSA, 0, sequence, it->second);
                        acknowledge = false;
                    }
                    break;
                }
                case XFRM_MSG_UPDPOLICY: {
                    xfrm_userpolicy_info p{};
                    std::memcpy(&p, payload.data(), sizeof p);
                    policies[key_of(p.sel, p.dir)] = payload;
                    break;
                }
                case XFRM_MSG_DELPOLICY: {
                    xfrm_userpolicy_id p{};
                    std::memcpy(&p, payload.data(), sizeof p);
                    error = policies.erase(key_of(p.sel, p.dir)) != 0 ? 0 : ENOENT;
                    break;
                }
                default:
                    error = EINVAL;
            }
        }
        for (const unsigned n : lose) {
            if (n == number) {
                queue.emplace_back(ENOBUFS);
                return;
            }
        }
        if (!reply.empty()) queue.emplace_back(reply);
        if (error != 0 || acknowledge) queue.emplace_back(answer(error, header));
    }

    [[nodiscard]] Octets answer(int error, const nlmsghdr& original) const {
        Octets p;
        append(p, std::int32_t{-error});
        append(p, original);
        std::uint16_t flags = NLM_F_CAPPED;
        if (error != 0 && !refusal_text.empty()) {
            flags |= NLM_F_ACK_TLVS;
            Octets text(refusal_text.begin(), refusal_text.end());
            text.push_back(0);
            append_attribute(p, NLMSGERR_ATTR_MSG, text);
        }
        return message(NLMSG_ERROR, flags, original.nlmsg_seq, p);
    }

    static StateKey name_of(const Octets& payload) {
        xfrm_usersa_id id{};
        std::memcpy(&id, payload.data(), sizeof id);
        return {address(id.daddr, id.family), ntohl(id.spi)};
    }

    static StateKey state_of(const Octets& payload) {
        xfrm_usersa_info i{};
        std::memcpy(&i, payload.data(), sizeof i);
        return {address(i.id.daddr, i.family), ntohl(i.id.spi)};
    }
    int add(Octets payload) {
        const StateKey key = state_of(payload);
        if (states.contains(key)) return EEXIST;
        if (strip_offload) payload = without(payload, XFRMA_OFFLOAD_DEV);
        states[key] = std::move(payload);
        return 0;
    }

    static Octets without(const Octets& payload, std::uint16_t type) {
        const std::size_t head = (sizeof(xfrm_usersa_info) + 3) & ~std::size_t{3};
        Octets out(payload.begin(), payload.begin() + static_cast<std::ptrdiff_t>(head));
        for (std::size_t at = head; at + sizeof(nlattr) <= payload.size();) {
            nlattr a{};
            std::memcpy(&a, &payload[at], sizeof a);
            const std::size_t size = (a.nla_len + 3U) & ~3U;
            if (a.nla_type != type)
                out.insert(out.end(), payload.begin() + static_cast<std::ptrdiff_t>(at),
                           payload.begin() + static_cast<std::ptrdiff_t>(at + size));
            at += size;
        }
        return out;
    }

    void dump(const nlmsghdr& header) {
        std::uint16_t flags = NLM_F_MULTI;
        if (interrupted_dumps > 0) {
            --interrupted_dumps;
            flags |= NLM_F_DUMP_INTR;
        }
        const bool of_states = header.nlmsg_type == XFRM_MSG_GETSA;
        Octets datagram;
        std::size_t count = 0;
        const auto put = [&](const Octets& payload) {
            const Octets m = message(of_states ? XFRM_MSG_NEWSA : XFRM_MSG_NEWPOLICY, flags,
                                     header.nlmsg_seq, payload);
            datagram.insert(datagram.end(), m.begin(), m.end());
            if (++count % dump_messages == 0) {
                queue.emplace_back(std::move(datagram));
                datagram.clear();
            }
        };
        if (of_states)
            for (const auto& [key, payload] : states) put(payload);
        else
            for (const auto& [key, payload] : policies) put(payload);
        Octets zero;
        append(zero, std::int32_t{0});
        const Octets done = message(NLMSG_DONE, flags, header.nlmsg_seq, zero);
        datagram.insert(datagram.end(), done.begin(), done.end());
        queue.emplace_back(std::move(datagram));
        if (during_dump) during_dump();
    }
};

class ScriptedChannel final : public Channel {
  public:
    explicit ScriptedChannel(KernelTables& tables) : tables_(tables) {}

    int send(std::span<const std::uint8_t> messages) override {
        if (tables_.send_error != 0) return std::exchange(tables_.send_error, 0);
        while (messages.size() >= sizeof(nlmsghdr)) {
            nlmsghdr h{};
            std::memcpy(&h, messages.data(), sizeof h);
            const auto payload = messages.subspan(sizeof h, h.nlmsg_len - sizeof h);
            tables_.handle(h, Octets(payload.begin(), payload.end()));
            messages = messages.subspan((h.nlmsg_len + 3U) & ~3U);
        }
        return 0;
    }
    Received receive(std::span<std::uint8_t> buffer) override {
        if (tables_.queue.empty()) return {};
        const auto next = std::move(tables_.queue.front());
        tables_.queue.pop_front();
        if (const int* error = std::get_if<int>(&next)) return {0, *error};
        const auto& octets = std::get<Octets>(next);
        if (octets.size() > buffer.size()) return {0, EMSGSIZE};
        std::memcpy(buffer.data(), octets.data(), octets.size());
        return {octets.size(), 0};
    }
    int fd() const override { return -1; }

  private:
    KernelTables& tables_;
};

// What the multicast groups bring: the test puts datagrams in.
class ScriptedEvents final : public Channel {
  public:
    explicit ScriptedEvents(std::deque<std::variant<Octets, int>>& queue) : queue_(queue) {}
    int send(std::span<const std::uint8_t> /*messages*/) override { return EOPNOTSUPP; }
    Received receive(std::span<std::uint8_t> buffer) override {
        if (queue_.empty()) return {};
        const auto next = std::move(queue_.front());
        queue_.pop_front();
        if (const int* error = std::get_if<int>(&next)) return {0, *error};
        const auto& octets = std::get<Octets>(next);
        std::memcpy(buffer.data(), octets.data(), octets.size());
        return {octets.size(), 0};
    }
    int fd() const override { return -1; }

  private:
    std::deque<std::variant<Octets, int>>& queue_;
};

}  // namespace gmgate::kernel::test
