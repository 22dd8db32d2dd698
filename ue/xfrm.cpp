#include "ue/xfrm.h"

#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>

#include "base/secret.h"

namespace gmgate::ue {

namespace {

constexpr std::uint32_t replay_bits = 64;
constexpr std::size_t answer_size = 32768;
constexpr int answer_seconds = 10;
constexpr std::size_t longest_key = 32;

xfrm_address_t address_of(const IpAddress& a) {
    xfrm_address_t out{};
    std::memcpy(&out, a.octets().data(), a.octets().size());
    return out;
}

std::optional<IpAddress> address_from(const xfrm_address_t& a, std::uint16_t family) {
    const auto* octets = reinterpret_cast<const std::uint8_t*>(&a);
    if (family == AF_INET) return IpAddress::v4(std::span<const std::uint8_t, 4>(octets, 4));
    if (family == AF_INET6) return IpAddress::v6(std::span<const std::uint8_t, 16>(octets, 16));
    return std::nullopt;
}

std::uint16_t family_of(const IpAddress& a) {
    return static_cast<std::uint16_t>(a.is_v6() ? AF_INET6 : AF_INET);
}

// UDP and TCP alike: protocol 0 is any, and the kernel compares ports of whatever has them (A3).
xfrm_selector selector_of(const XfrmSa& sa) {
    xfrm_selector s{};
    s.saddr = address_of(sa.from.address);
    s.daddr = address_of(sa.to.address);
    s.sport = htons(sa.from.port);
    s.dport = htons(sa.to.port);
    s.sport_mask = s.dport_mask = 0xFFFF;
    s.family = family_of(sa.from.address);
    s.prefixlen_s = s.prefixlen_d = static_cast<std::uint8_t>(sa.from.address.is_v6() ? 128 : 32);
    return s;
}

std::uint8_t direction_of(const XfrmSa& sa) {
    return sa.outbound ? XFRM_POLICY_OUT : XFRM_POLICY_IN;
}

// A1: no lifetime but SIP's.
xfrm_lifetime_cfg forever() {
    xfrm_lifetime_cfg l{};
    l.soft_byte_limit = l.hard_byte_limit = l.soft_packet_limit = l.hard_packet_limit = XFRM_INF;
    return l;
}

void put(nlmsghdr* m, std::uint16_t type, std::span<const std::uint8_t> bytes) {
    mnl_attr_put(m, type, bytes.size(), bytes.data());
}

template <class Header>
void put_algorithm(nlmsghdr* m, std::uint16_t type, const char* name,
                   std::span<const std::uint8_t> key, std::span<const std::uint8_t> salt,
                   unsigned icv_bits) {
    std::array<std::uint8_t, sizeof(Header) + longest_key> bytes{};
    Header h{};
    std::strncpy(h.alg_name, name, sizeof h.alg_name - 1);
    h.alg_key_len = static_cast<unsigned>((key.size() + salt.size()) * 8);
    if constexpr (requires { h.alg_trunc_len; }) h.alg_trunc_len = icv_bits;
    if constexpr (requires { h.alg_icv_len; }) h.alg_icv_len = icv_bits;
    std::memcpy(bytes.data(), &h, sizeof h);
    std::ranges::copy(key, bytes.data() + sizeof h);
    std::copy(salt.begin(), salt.end(), bytes.data() + sizeof h + key.size());
    put(m, type, std::span(bytes).first(sizeof h + key.size() + salt.size()));
    wipe(bytes);
}

const char* module_of(sa::Suite s) {
    if (s.encryption == sa::Encryption::aes_gcm || s.integrity == sa::Integrity::aes_gmac)
        return "gcm, seqiv";
    if (s.encryption == sa::Encryption::des_ede3_cbc) return "des_generic, cbc, authenc, echainiv";
    if (s.encryption == sa::Encryption::null) return "crypto_null, authenc";
    return "aes, cbc, authenc, echainiv";
}

// The fixed head of a message, if it is long enough to hold it.
template <class Head>
std::optional<Head> head_of(const nlmsghdr& m) {
    if (mnl_nlmsg_get_payload_len(&m) < sizeof(Head)) return std::nullopt;
    Head head{};
    std::memcpy(&head, mnl_nlmsg_get_payload(&m), sizeof head);
    return head;
}

}  // namespace

void read_xfrm_dump(const nlmsghdr& m, std::uint32_t first, std::uint32_t count,
                    XfrmLeavings& out) {
    const auto ours = [&](std::uint32_t reqid) { return reqid - first < count; };
    if (m.nlmsg_type == XFRM_MSG_NEWSA) {
        const auto state = head_of<xfrm_usersa_info>(m);
        if (!state || !ours(state->reqid) || state->id.proto != IPPROTO_ESP ||
            state->mode != XFRM_MODE_TRANSPORT)
            return;
        const auto from = address_from(state->saddr, state->family);
        const auto to = address_from(state->id.daddr, state->family);
        if (from && to) out.states.push_back({*from, *to, ntohl(state->id.spi)});
        return;
    }
    if (m.nlmsg_type != XFRM_MSG_NEWPOLICY) return;
    const auto policy = head_of<xfrm_userpolicy_info>(m);
    if (!policy) return;
    const auto* end = static_cast<const char*>(mnl_nlmsg_get_payload_tail(&m));
    const auto* a =
        static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(&m, sizeof(xfrm_userpolicy_info)));
    for (; mnl_attr_ok(a, static_cast<int>(end - reinterpret_cast<const char*>(a)));
         a = mnl_attr_next(a)) {
        // Ours have one template; another program's may have several.
        if (mnl_attr_get_type(a) != XFRMA_TMPL ||
            mnl_attr_get_payload_len(a) != sizeof(xfrm_user_tmpl))
            continue;
        xfrm_user_tmpl t{};
        std::memcpy(&t, mnl_attr_get_payload(a), sizeof t);
        if (ours(t.reqid) && t.id.proto == IPPROTO_ESP && t.mode == XFRM_MODE_TRANSPORT)
            out.policies.push_back({policy->sel, policy->dir});
    }
}

Error explain_xfrm_error(int error, sa::Suite suite, bool v6, const std::string& kernel_words) {
    const std::string words = kernel_words.empty() ? "" : " (\"" + kernel_words + "\")";
    switch (error) {
        case EPERM:
        case EACCES:
            return {ErrorKind::denied,
                    "SAs in the kernel need CAP_NET_ADMIN: run as root, or 'setcap "
                    "cap_net_raw,cap_net_admin+ep gmue'"};
        case EPROTONOSUPPORT:
            return {
                ErrorKind::unsupported,
                fmt::format("this kernel has no ESP for {}{}: load module {} (CONFIG_INET{}_ESP), "
                            "or use --esp own",
                            v6 ? "IPv6" : "IPv4", words, v6 ? "esp6" : "esp4", v6 ? "6" : "")};
        case ENOSYS:
        case ENOENT:
            return {
                ErrorKind::unsupported,
                fmt::format("this kernel lacks an algorithm of {}{}: load modules {}, or leave it "
                            "out of --suites",
                            sa::to_string(suite), words, module_of(suite))};
        case EEXIST:
            return {
                ErrorKind::conflict,
                "the kernel already holds such an SA or policy, another program's ('ip xfrm state' "
                "and 'ip xfrm policy' show it)"};
        case ENOMEM:
        case ENOBUFS:
            return {ErrorKind::exhausted, fmt::format("the kernel has no room for the SA{}: {}",
                                                      words, std::strerror(error))};
        default:
            return {ErrorKind::io, fmt::format("the kernel refuses the SA of {}{}: {}",
                                               sa::to_string(suite), words, std::strerror(error))};
    }
}

Result<Xfrm> Xfrm::open() {
    UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM));
    if (!fd.valid()) {
        if (errno == EPROTONOSUPPORT || errno == EAFNOSUPPORT)
            return fail(
                ErrorKind::unsupported,
                "this kernel has no IPsec (module xfrm_user, CONFIG_XFRM_USER): use --esp own");
        return fail(ErrorKind::io, fmt::format("netlink socket: {}", std::strerror(errno)));
    }
    // The kernel says why in words, and does not send our keys back with the error.
    const int on = 1;
    ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
    ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
    const timeval limit{answer_seconds, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return Xfrm(std::move(fd));
}

nlmsghdr* Xfrm::begin(std::uint16_t type, std::uint16_t flags) {
    nlmsghdr* m = mnl_nlmsg_put_header(batch_.data() + used_);
    m->nlmsg_type = type;
    m->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
    m->nlmsg_seq = sequence_ + requests_;
    return m;
}

void Xfrm::end(const nlmsghdr* m) {
    used_ += NLMSG_ALIGN(m->nlmsg_len);
    ++requests_;
}

void Xfrm::add_state(const XfrmSet& set, const XfrmSa& sa, const sa::EspKeys& keys) {
    nlmsghdr* m = begin(XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL);
    auto* info =
        static_cast<xfrm_usersa_info*>(mnl_nlmsg_put_extra_header(m, sizeof(xfrm_usersa_info)));
    info->sel = selector_of(sa);
    info->id.daddr = address_of(sa.to.address);
    info->id.spi = htonl(sa.spi);
    info->id.proto = IPPROTO_ESP;
    info->saddr = address_of(sa.from.address);
    info->lft = forever();
    info->reqid = set.reqid;
    info->family = family_of(sa.from.address);
    info->mode = XFRM_MODE_TRANSPORT;

    using sa::Encryption;
    using sa::Integrity;
    const unsigned icv = static_cast<unsigned>(sa::icv_size(set.suite)) * 8;
    if (set.suite.encryption == Encryption::aes_gcm) {
        put_algorithm<xfrm_algo_aead>(m, XFRMA_ALG_AEAD, "rfc4106(gcm(aes))", keys.encryption(),
                                      keys.salt.reveal(), icv);
    } else if (set.suite.integrity == Integrity::aes_gmac) {
        put_algorithm<xfrm_algo_aead>(m, XFRMA_ALG_AEAD, "rfc4543(gcm(aes))", keys.integrity(),
                                      keys.salt.reveal(), icv);
    } else {
        put_algorithm<xfrm_algo_auth>(
            m, XFRMA_ALG_AUTH_TRUNC,
            set.suite.integrity == Integrity::hmac_md5_96 ? "hmac(md5)" : "hmac(sha1)",
            keys.integrity(), {}, icv);
        const char* cipher = set.suite.encryption == Encryption::aes_cbc ? "cbc(aes)"
                             : set.suite.encryption == Encryption::des_ede3_cbc
                                 ? "cbc(des3_ede)"
                                 : "ecb(cipher_null)";
        put_algorithm<xfrm_algo>(m, XFRMA_ALG_CRYPT, cipher, keys.encryption(), {}, 0);
    }
    // The attribute is the way to a window of more than 32; no XFRM_STATE_ESN: 32-bit numbers (A1).
    xfrm_replay_state_esn head{};
    head.bmp_len = replay_bits / 32;
    head.replay_window = replay_bits;
    std::array<std::uint8_t, sizeof head + replay_bits / 8> replay{};
    std::memcpy(replay.data(), &head, sizeof head);
    put(m, XFRMA_REPLAY_ESN_VAL, replay);
    end(m);
}

void Xfrm::add_policy(const XfrmSet& set, const XfrmSa& sa) {
    nlmsghdr* m = begin(XFRM_MSG_NEWPOLICY, NLM_F_CREATE | NLM_F_EXCL);
    auto* info = static_cast<xfrm_userpolicy_info*>(
        mnl_nlmsg_put_extra_header(m, sizeof(xfrm_userpolicy_info)));
    info->sel = selector_of(sa);
    info->lft = forever();
    info->dir = direction_of(sa);
    info->action = XFRM_POLICY_ALLOW;
    info->share = XFRM_SHARE_ANY;
    xfrm_user_tmpl t{};
    t.id.daddr = address_of(sa.to.address);
    t.id.spi = htonl(sa.spi);
    t.id.proto = IPPROTO_ESP;
    t.family = family_of(sa.from.address);
    t.saddr = address_of(sa.from.address);
    t.reqid = set.reqid;
    t.mode = XFRM_MODE_TRANSPORT;
    t.aalgos = t.ealgos = t.calgos = std::numeric_limits<std::uint32_t>::max();
    mnl_attr_put(m, XFRMA_TMPL, sizeof t, &t);
    end(m);
}

void Xfrm::delete_state(const IpAddress& from, const IpAddress& to, std::uint32_t spi) {
    nlmsghdr* m = begin(XFRM_MSG_DELSA, 0);
    auto* id = static_cast<xfrm_usersa_id*>(mnl_nlmsg_put_extra_header(m, sizeof(xfrm_usersa_id)));
    id->daddr = address_of(to);
    id->spi = htonl(spi);
    id->family = family_of(to);
    id->proto = IPPROTO_ESP;
    const xfrm_address_t source = address_of(from);
    mnl_attr_put(m, XFRMA_SRCADDR, sizeof source, &source);
    end(m);
}

void Xfrm::delete_policy(const XfrmSa& sa) {
    delete_policy(selector_of(sa), direction_of(sa));
}

void Xfrm::delete_policy(const xfrm_selector& selector, std::uint8_t direction) {
    nlmsghdr* m = begin(XFRM_MSG_DELPOLICY, 0);
    auto* id =
        static_cast<xfrm_userpolicy_id*>(mnl_nlmsg_put_extra_header(m, sizeof(xfrm_userpolicy_id)));
    id->sel = selector;
    id->dir = direction;
    end(m);
}

Result<void> Xfrm::exchange(std::vector<int>& answers) {
    const unsigned requests = requests_;
    const std::uint32_t first = sequence_;
    answers.assign(requests, -1);
    sequence_ += requests;
    const ssize_t sent = ::send(fd_.get(), batch_.data(), used_, 0);
    const int error = errno;
    wipe(std::span(batch_).first(used_));
    used_ = 0;
    requests_ = 0;
    if (sent < 0) {
        if (error == EPERM || error == EACCES) {
            std::ranges::fill(answers, EPERM);
            return {};
        }
        return fail(ErrorKind::io, fmt::format("netlink: {}", std::strerror(error)));
    }
    alignas(nlmsghdr) std::array<std::uint8_t, answer_size> buffer{};
    unsigned missing = requests;
    while (missing > 0) {
        const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
        if (n < 0) {
            if (errno == EINTR) continue;
            return fail(ErrorKind::io,
                        fmt::format("netlink: no answer of the kernel: {}", std::strerror(errno)));
        }
        int left = static_cast<int>(n);
        for (const auto* m = reinterpret_cast<const nlmsghdr*>(buffer.data());
             mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
            const std::uint32_t i = m->nlmsg_seq - first;
            if (m->nlmsg_type != NLMSG_ERROR || i >= requests || answers[i] != -1) continue;
            nlmsgerr e{};
            std::memcpy(&e, mnl_nlmsg_get_payload(m), sizeof e);
            answers[i] = -e.error;
            --missing;
            if (e.error != 0 && (m->nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
                note_words(*m, e);
            }
        }
    }
    return {};
}

// The kernel's own words stand in an attribute behind the error and what it quotes of the request.
void Xfrm::note_words(const nlmsghdr& m, const nlmsgerr& e) {
    if (!why_.empty()) return;
    std::size_t at = NLMSG_HDRLEN + sizeof(nlmsgerr);
    if ((m.nlmsg_flags & NLM_F_CAPPED) == 0) at += NLMSG_ALIGN(e.msg.nlmsg_len) - NLMSG_HDRLEN;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&m);
    while (at + NLA_HDRLEN <= m.nlmsg_len) {
        nlattr a{};
        std::memcpy(&a, bytes + at, sizeof a);
        if (a.nla_len < NLA_HDRLEN || at + a.nla_len > m.nlmsg_len) return;
        if (a.nla_type == NLMSGERR_ATTR_MSG) {
            const auto* text = reinterpret_cast<const char*>(bytes + at + NLA_HDRLEN);
            why_.assign(text, ::strnlen(text, a.nla_len - std::size_t{NLA_HDRLEN}));
            return;
        }
        at += NLA_ALIGN(a.nla_len);
    }
}

Result<void> Xfrm::install(const XfrmSet& set, const sa::EspKeys& keys) {
    why_.clear();
    // States first: a kernel that looks for a module meanwhile may take its time, or us be ended.
    for (const auto& sa : set.sas) add_state(set, sa, keys);
    std::vector<int> states;
    std::vector<int> policies(set.sas.size(), -1);
    const auto good = [](int answer) { return answer == 0; };
    auto done = exchange(states);
    if (done && std::ranges::all_of(states, good)) {
        for (const auto& sa : set.sas) add_policy(set, sa);
        done = exchange(policies);
        if (done && std::ranges::all_of(policies, good)) return {};
    }

    // All or nothing: what went in comes out again; what was another's stays.
    Error error = done ? Error{} : done.error();
    if (done) {
        auto bad = std::ranges::find_if(states, [](int a) { return a > 0; });
        if (bad == states.end()) bad = std::ranges::find_if(policies, [](int a) { return a > 0; });
        error = explain_xfrm_error(*bad, set.suite, set.sas[0].from.address.is_v6(), why_);
    }
    for (std::size_t i = 0; i < set.sas.size(); ++i) {
        if (policies[i] == 0) delete_policy(set.sas[i]);
        if (states[i] == 0) delete_state(set.sas[i]);
    }
    if (requests_ > 0) {
        std::vector<int> ignored;
        (void)exchange(ignored);
    }
    return std::unexpected(std::move(error));
}

void Xfrm::remove(const XfrmSet& set) {
    // States before the policies that demand them: nothing leaves in clear in between.
    for (const auto& sa : set.sas) delete_state(sa);
    for (const auto& sa : set.sas) delete_policy(sa);
    std::vector<int> ignored;
    (void)exchange(ignored);
}

Result<void> Xfrm::dump(std::uint16_t type, std::uint32_t first, std::uint32_t count,
                        XfrmLeavings& out) {
    nlmsghdr* request = mnl_nlmsg_put_header(batch_.data());
    request->nlmsg_type = type;
    request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request->nlmsg_seq = sequence_++;
    const std::uint32_t mine = request->nlmsg_seq;
    const auto failed = [](int error) -> Error {
        if (error == EPERM || error == EACCES) return explain_xfrm_error(error, {}, false, {});
        return {ErrorKind::io, fmt::format("netlink: listing SAs: {}", std::strerror(error))};
    };
    if (::send(fd_.get(), batch_.data(), request->nlmsg_len, 0) < 0)
        return std::unexpected(failed(errno));
    // The dump shows keys.
    auto buffer = make_secret<std::array<std::uint8_t, answer_size>>();
    for (;;) {
        const ssize_t n = ::recv(fd_.get(), buffer->data(), buffer->size(), 0);
        if (n < 0) {
            if (errno == EINTR) continue;
            return std::unexpected(failed(errno));
        }
        int left = static_cast<int>(n);
        for (const auto* m = reinterpret_cast<const nlmsghdr*>(buffer->data());
             mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
            if (m->nlmsg_seq != mine) continue;
            if (m->nlmsg_type == NLMSG_DONE) return {};
            if (m->nlmsg_type == NLMSG_ERROR) {
                const auto e = head_of<nlmsgerr>(*m);
                return std::unexpected(failed(e ? -e->error : EIO));
            }
            read_xfrm_dump(*m, first, count, out);
        }
    }
}

Result<std::size_t> Xfrm::remove_all(std::uint32_t first_reqid, std::uint32_t count) {
    // A table that changes while it is dumped may hide something: again until nothing is seen.
    constexpr unsigned passes = 5;
    constexpr unsigned batch = 64;
    std::size_t removed = 0;
    std::vector<int> answers;
    const auto flush = [&]() -> Result<void> {
        if (requests_ == 0) return {};
        if (auto done = exchange(answers); !done) return done;
        removed += static_cast<std::size_t>(std::ranges::count(answers, 0));
        return {};
    };
    for (unsigned pass = 0; pass < passes; ++pass) {
        XfrmLeavings found;
        for (const std::uint16_t type : {XFRM_MSG_GETSA, XFRM_MSG_GETPOLICY}) {
            if (auto done = dump(type, first_reqid, count, found); !done)
                return std::unexpected(done.error());
        }
        if (found.size() == 0) break;
        for (const auto& s : found.states) {
            delete_state(s.from, s.to, s.spi);
            if (requests_ == batch)
                if (auto done = flush(); !done) return std::unexpected(done.error());
        }
        for (const auto& p : found.policies) {
            delete_policy(p.selector, p.direction);
            if (requests_ == batch)
                if (auto done = flush(); !done) return std::unexpected(done.error());
        }
        if (auto done = flush(); !done) return std::unexpected(done.error());
    }
    return removed;
}

}  // namespace gmgate::ue
