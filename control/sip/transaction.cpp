#include "control/sip/transaction.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "base/secret_text.h"
#include "base/seeded_hash.h"
#include "control/sip/edit.h"
#include "control/sip/transaction_key.h"
#include "control/sip/values.h"

namespace gmgate::sip {

namespace {

constexpr std::string_view branch_prefix = "z9hG4bKg";
constexpr std::size_t branch_length = 34;
constexpr std::size_t nonce_offset = 18;
constexpr std::size_t marked_length = branch_length + 16;

bool is_udp(const Flow& flow) {
    return flow.transport == Transport::udp;
}

void append_hex(char*& at, std::uint64_t value, unsigned digits) {
    static constexpr char table[] = "0123456789abcdef";
    for (unsigned i = digits; i-- > 0;) *at++ = table[(value >> (4 * i)) & 15U];
}

bool read_hex(std::string_view text, std::uint64_t& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    return error == std::errc{} && end == text.data() + text.size();
}

// Slots with generations: ids are 32 bits of generation above 32 bits of slot + 1.
template <class T>
class SlotTable {
  public:
    explicit SlotTable(std::size_t limit) : limit_(limit) {}

    // nullptr: full.
    T* add(std::uint64_t& id, TransactionLayer::Party party) {
        const bool stranger = party == TransactionLayer::Party::stranger;
        if (live_ >= limit_ || (stranger && strangers_ >= (limit_ + 1) / 2)) return nullptr;
        std::uint32_t slot = 0;
        if (free_.empty()) {
            slot = static_cast<std::uint32_t>(entries_.size());
            entries_.emplace_back();
        } else {
            slot = free_.back();
            free_.pop_back();
        }
        Entry& e = entries_[slot];
        ++e.generation;
        e.object = std::make_unique<T>();
        e.stranger = stranger;
        ++live_;
        strangers_ += stranger ? 1U : 0U;
        id = (static_cast<std::uint64_t>(e.generation) << 32U) | (slot + 1U);
        return e.object.get();
    }
    [[nodiscard]] T* find(std::uint64_t id) const {
        const auto slot = static_cast<std::uint32_t>(id) - 1U;
        if (id == 0 || slot >= entries_.size()) return nullptr;
        const Entry& e = entries_[slot];
        return e.generation == static_cast<std::uint32_t>(id >> 32U) ? e.object.get() : nullptr;
    }
    [[nodiscard]] T* find_slot(std::uint32_t slot) const {
        return slot < entries_.size() ? entries_[slot].object.get() : nullptr;
    }
    void remove(std::uint64_t id) {
        if (find(id) == nullptr) return;
        const auto slot = static_cast<std::uint32_t>(id) - 1U;
        entries_[slot].object.reset();
        free_.push_back(slot);
        --live_;
        strangers_ -= entries_[slot].stranger ? 1U : 0U;
    }
    [[nodiscard]] std::size_t size() const { return live_; }

  private:
    struct Entry {
        std::unique_ptr<T> object;
        std::uint32_t generation = 0;
        bool stranger = false;
    };
    std::vector<Entry> entries_;
    std::vector<std::uint32_t> free_;
    std::size_t live_ = 0;
    std::size_t strangers_ = 0;  // of the live ones
    std::size_t limit_;
};

}  // namespace

struct TransactionLayer::Impl {
    // Ordered: its iterators stay good when others come and go.
    using ByRemote = std::multimap<Endpoint, ClientTransactionId>;
    enum class ServerState : std::uint8_t { proceeding, accepted, completed, confirmed };
    struct Server {
        Impl* owner = nullptr;
        ServerTransactionId id = 0;
        std::string key;
        Flow reply;
        ServerState state = ServerState::proceeding;
        bool invite = false;
        WipedText last;  // the latest response, wiped: it may hold ck and ik; empty: none yet
        Duration interval{};
        Timer retransmit;  // G
        Timer end;         // H, I, J, or the guard of one that is never answered
    };

    enum class ClientState : std::uint8_t { reserved, calling, proceeding, accepted, completed };
    struct Client {
        Impl* owner = nullptr;
        ClientTransactionId id = 0;
        std::uint64_t nonce = 0;
        ClientState state = ClientState::reserved;
        bool invite = false;
        bool resent = false;  // once more, on a new connection
        Flow flow;
        std::vector<Endpoint> tried;  // before it was moved
        TimePoint started{};
        std::string method;
        std::string request;  // kept while it may be sent again, or an ACK be built from it
        std::string ack;
        std::optional<ByRemote::iterator> at_remote;  // over a stream, while it is under way
        TransactionUser* user = nullptr;
        std::uint64_t context = 0;
        Duration interval{};
        Timer retransmit;  // A, E
        Timer end;         // B, C, D, F, K, M
    };

    Impl(TransportLayer& t, TimerWheel& w, Random& r, TransactionTimers x, Limits l)
        : transport(t),
          timers(w),
          random(r),
          times(x),
          servers(l.server),
          clients(l.client),
          keys(16, SeededStringHash{SeededHash(r)}) {}

    // --- server side

    void end_server(Server& s) {
        keys.erase(s.key);
        servers.remove(s.id);
    }
    static void server_end(void* p) {
        auto* s = static_cast<Server*>(p);
        s->owner->end_server(*s);
    }
    static void server_retransmit(void* p) {
        auto* s = static_cast<Server*>(p);
        Impl& i = *s->owner;
        ++i.retransmissions;
        i.transport.send(s->reply, s->last);
        s->interval = std::min(s->interval * 2, i.times.t2);
        i.timers.start(s->retransmit, s->interval);
    }

    // --- client side

    void end_client(Client& c) {
        leave_remote(c);
        clients.remove(c.id);
    }
    static void client_retransmit(void* p) {
        auto* c = static_cast<Client*>(p);
        Impl& i = *c->owner;
        ++i.retransmissions;
        i.transport.send(c->flow, c->request);
        if (c->invite)
            c->interval *= 2;
        else
            c->interval = c->state == ClientState::proceeding
                              ? i.times.t2
                              : std::min(c->interval * 2, i.times.t2);
        i.timers.start(c->retransmit, c->interval);
    }
    static void client_end(void* p) {
        auto* c = static_cast<Client*>(p);
        Impl& i = *c->owner;
        if (c->state == ClientState::calling || c->state == ClientState::proceeding) {
            i.fail_client(*c, ClientFailure::timeout);
        } else {
            i.end_client(*c);
        }
    }
    void fail_client(Client& c, ClientFailure failure) {
        TransactionUser* user = c.user;
        const ClientTransactionId id = c.id;
        const std::uint64_t context = c.context;
        if (destinations != nullptr && c.state == ClientState::calling) {
            destinations->lost(c.flow, failure);
            if (move(c)) return;
        }
        end_client(c);
        if (user != nullptr) user->on_failure(id, context, failure);
    }

    // The same request under a new branch, on its way to another destination. False: there is none.
    bool move(Client& c) {
        if (destinations == nullptr || c.user == nullptr || c.request.empty() ||
            !c.user->may_move(c.context) || timers.now() - c.started >= times.t1 * 108)
            return false;
        const Flow from = c.flow;
        const std::uint64_t nonce = c.nonce;
        std::string request = c.request;
        const bool was_on_stream = leave_remote(c);
        for (;;) {
            c.tried.push_back(c.flow.remote);
            const auto other = destinations->another(c.tried);
            if (!other || !readdress(c, *other)) {
                c.flow = from;
                c.nonce = nonce;
                c.request = std::move(request);
                if (was_on_stream) enter_remote(c);
                return false;
            }
            c.flow = other->flow;
            if (transport.send(c.flow, c.request)) break;
            destinations->lost(c.flow, ClientFailure::transport);
        }
        c.state = ClientState::calling;
        c.resent = false;
        c.retransmit.stop();
        supervise(c);
        TransactionUser& user = *c.user;
        user.on_moved(c.id, c.context, c.flow, c.request);
        return true;
    }
    // Top Via for `other`, with a nonce of its own in the branch, so that what the first
    // destination may still say is not taken for the second's.
    bool readdress(Client& c, const Destinations::Other& other) {
        Message message;
        if (message.parse(std::string_view(c.request)) != ParseStatus::ok) return false;
        const auto* line = message.first(HeaderId::via);
        if (line == nullptr) return false;
        const std::string_view value = message.value(*line);
        const std::size_t params = value.find(';');
        const std::size_t branch = value.find(branch_prefix);
        if (params == std::string_view::npos || branch == std::string_view::npos ||
            value.size() - branch < branch_length || branch < params)
            return false;
        c.nonce = random.u64();
        std::string rest(value.substr(params));
        char* at = rest.data() + (branch - params) + nonce_offset;
        append_hex(at, c.nonce, 16);
        Edit edit(message);
        edit.replace(*line, {"SIP/2.0/", name(other.flow.transport), " ", other.sent_by, rest});
        if (other.flow.transport == Transport::tcp) edit.ensure_content_length();
        std::string out;
        if (!edit.apply(out)) return false;
        c.request = std::move(out);
        return true;
    }
    void supervise(Client& c) {
        if (is_udp(c.flow)) {
            c.interval = times.t1;
            timers.start(c.retransmit, c.interval);
        } else {
            enter_remote(c);
        }
        timers.start(c.end, patience(c));
    }
    // Timer B or F. All destinations together have less than the server transaction behind this one
    // lives (128·T1), so that whoever asked hears how it ended.
    [[nodiscard]] Duration patience(const Client& c) const {
        const Duration left = c.started + times.t1 * 112 - timers.now();
        return c.tried.empty() ? times.t1 * 64 : std::min<Duration>(times.t1 * 32, left);
    }
    void enter_remote(Client& c) { c.at_remote = by_remote.emplace(c.flow.remote, c.id); }
    // In constant time: one connection to the core carries tens of thousands. False: was not there.
    bool leave_remote(Client& c) {
        const auto at = std::exchange(c.at_remote, std::nullopt);
        if (at) by_remote.erase(*at);
        return at.has_value();
    }

    TransportLayer& transport;
    TimerWheel& timers;
    Random& random;
    Destinations* destinations = nullptr;
    TransactionTimers times;
    SlotTable<Server> servers;
    SlotTable<Client> clients;
    std::unordered_map<std::string, ServerTransactionId, SeededStringHash, std::equal_to<>> keys;
    ByRemote by_remote;  // TCP only
    std::string scratch_key;
    std::uint64_t absorbed = 0;
    std::uint64_t retransmissions = 0;
};

TransactionLayer::TransactionLayer(TransportLayer& transport, TimerWheel& timers, Random& random,
                                   TransactionTimers times, Limits limits)
    : impl_(std::make_unique<Impl>(transport, timers, random, times, limits)) {}
TransactionLayer::~TransactionLayer() = default;

TransactionLayer::Received TransactionLayer::receive_request(const Flow& flow, const Flow& reply,
                                                             const Message& request, Party party) {
    Impl& i = *impl_;
    const auto parts = transaction_parts(request);
    if (!parts) return {Arrival::refused, 0};
    const bool is_ack = parts->method == "ACK";
    server_key(*parts, flow, i.scratch_key);
    if (const auto it = i.keys.find(std::string_view(i.scratch_key)); it != i.keys.end()) {
        Impl::Server& s = *i.servers.find(it->second);
        if (is_ack) {
            if (s.state == Impl::ServerState::accepted) return {Arrival::stateless, 0};
            if (s.state == Impl::ServerState::completed) {
                s.state = Impl::ServerState::confirmed;
                s.retransmit.stop();
                if (is_udp(flow))
                    i.timers.start(s.end, i.times.t4);
                else
                    i.end_server(s);
            }
            return {Arrival::ack, 0};
        }
        ++i.absorbed;
        if (!s.last.empty() && s.state != Impl::ServerState::accepted &&
            s.state != Impl::ServerState::confirmed) {
            i.transport.send(s.reply, s.last);
        }
        return {Arrival::retransmission, it->second};
    }
    if (is_ack) return {Arrival::stateless, 0};
    ServerTransactionId id = 0;
    Impl::Server* s = i.servers.add(id, party);
    if (s == nullptr) return {Arrival::refused, 0};
    s->owner = &i;
    s->id = id;
    s->key = i.scratch_key;
    s->reply = reply;
    s->invite = parts->method == "INVITE";
    s->retransmit.bind(&Impl::server_retransmit, s);
    s->end.bind(&Impl::server_end, s);
    // Never answered: it goes some time after every client transaction behind it has timed out.
    i.timers.start(s->end, s->invite ? i.times.proceeding + i.times.t1 * 128 : i.times.t1 * 128);
    i.keys.emplace(s->key, id);
    return {Arrival::fresh, id};
}

bool TransactionLayer::knows(const Flow& flow, const Message& request) const {
    const auto parts = transaction_parts(request);
    if (!parts) return false;
    server_key(*parts, flow, impl_->scratch_key);
    return impl_->keys.contains(std::string_view(impl_->scratch_key));
}

bool TransactionLayer::respond(ServerTransactionId id, int status, std::span<const char> response) {
    const Impl::Server* s = impl_->servers.find(id);
    return s != nullptr && respond_via(id, s->reply, status, response);
}

bool TransactionLayer::respond_via(ServerTransactionId id, const Flow& reply, int status,
                                   std::span<const char> response) {
    Impl& i = *impl_;
    Impl::Server* s = i.servers.find(id);
    if (s == nullptr) return false;
    const Flow own = std::exchange(s->reply, reply);
    const bool elsewhere = own.local != reply.local || own.remote != reply.remote ||
                           own.connection != reply.connection;
    if (!i.transport.send(reply, response) && elsewhere) {
        s->reply = own;  // its own way is still open
        return false;
    }
    if (s->state != Impl::ServerState::proceeding) return true;  // a further 2xx to an INVITE
    const Duration t64 = i.times.t1 * 64;
    if (status < 200) {
        s->last.assign(response.data(), response.size());
        // The client transaction behind it lives on with each provisional answer, too.
        if (s->invite) i.timers.start(s->end, i.times.proceeding + i.times.t1 * 128);
    } else if (s->invite && status < 300) {
        s->state = Impl::ServerState::accepted;  // RFC 6026: the 2xx is repeated by whoever made it
        s->last = {};
        i.timers.start(s->end, t64);
    } else {
        s->state = Impl::ServerState::completed;
        if (!is_udp(reply) && !s->invite) {
            i.end_server(*s);  // timer J is 0: nothing is retransmitted over a stream
            return true;
        }
        s->last.assign(response.data(), response.size());
        s->last.shrink_to_fit();
        i.timers.start(s->end, t64);
        if (s->invite && is_udp(reply)) {
            s->interval = i.times.t1;
            i.timers.start(s->retransmit, s->interval);
        }
    }
    return true;
}

void TransactionLayer::forget(ServerTransactionId id) {
    if (Impl::Server* s = impl_->servers.find(id)) impl_->end_server(*s);
}

bool TransactionLayer::alive(ServerTransactionId id) const {
    return impl_->servers.find(id) != nullptr;
}

TransactionLayer::Branch TransactionLayer::new_branch(Party party,
                                                      std::optional<std::uint64_t> loop_mark) {
    Impl& i = *impl_;
    Branch branch;
    Impl::Client* c = i.clients.add(branch.id, party);
    if (c == nullptr) return branch;
    c->owner = &i;
    c->id = branch.id;
    c->nonce = i.random.u64();
    c->retransmit.bind(&Impl::client_retransmit, c);
    c->end.bind(&Impl::client_end, c);
    i.timers.start(c->end, i.times.t1 * 64);  // reserved and never used
    char* at = branch.text;
    std::memcpy(at, branch_prefix.data(), branch_prefix.size());
    at += branch_prefix.size();
    append_hex(at, static_cast<std::uint32_t>(branch.id), 8);
    append_hex(at, branch.id >> 32U, 2);
    append_hex(at, c->nonce, 16);
    if (loop_mark) append_hex(at, *loop_mark, 16);
    *at = '\0';
    return branch;
}

bool TransactionLayer::may_hold_loop_mark(std::string_view via) {
    return via.find(branch_prefix) != std::string_view::npos;
}

std::optional<std::uint64_t> TransactionLayer::loop_mark_of(std::string_view branch) {
    std::uint64_t mark = 0;
    if (branch.size() != marked_length || !branch.starts_with(branch_prefix) ||
        !read_hex(branch.substr(branch_length), mark))
        return std::nullopt;
    return mark;
}

bool TransactionLayer::send_request(const Branch& branch, const Flow& flow, std::string_view method,
                                    std::span<const char> request, TransactionUser& user,
                                    std::uint64_t context) {
    Impl& i = *impl_;
    Impl::Client* c = i.clients.find(branch.id);
    if (c == nullptr || c->state != Impl::ClientState::reserved) return false;
    c->flow = flow;
    c->started = i.timers.now();
    c->invite = method == "INVITE";
    c->method = method;
    c->user = &user;
    c->context = context;
    // Over TCP too, for as long as nothing was heard: see connection_closed().
    c->request.assign(request.data(), request.size());
    if (!i.transport.send(flow, request)) {
        if (i.destinations != nullptr) {
            i.destinations->lost(flow, ClientFailure::transport);
            if (i.move(*c)) return true;
        }
        i.end_client(*c);
        return false;
    }
    c->state = Impl::ClientState::calling;
    i.supervise(*c);
    return true;
}

void TransactionLayer::abandon(ClientTransactionId id) {
    Impl& i = *impl_;
    Impl::Client* c = i.clients.find(id);
    if (c == nullptr) return;
    c->user = nullptr;
    if (c->state == Impl::ClientState::reserved)
        i.end_client(*c);
    else
        c->retransmit.stop();
}

TransactionLayer::Match TransactionLayer::receive_response(const Flow& flow,
                                                           const Message& response,
                                                           std::span<char> bytes) {
    Impl& i = *impl_;
    const auto parts = transaction_parts(response);
    if (!parts) return Match::unknown;
    const std::string_view branch = parts->branch;
    if ((branch.size() != branch_length && branch.size() != marked_length) ||
        !branch.starts_with(branch_prefix))
        return Match::unknown;
    std::uint64_t slot = 0;
    std::uint64_t generation = 0;
    std::uint64_t nonce = 0;
    if (!read_hex(branch.substr(8, 8), slot) || !read_hex(branch.substr(16, 2), generation) ||
        !read_hex(branch.substr(nonce_offset, 16), nonce) || slot == 0) {
        return Match::unknown;
    }
    Impl::Client* c = i.clients.find_slot(static_cast<std::uint32_t>(slot - 1));
    if (c == nullptr || c->nonce != nonce || c->state == Impl::ClientState::reserved)
        return Match::unknown;
    const int status = response.status_code();
    // Whoever sent the INVITE sends its CANCEL past us, under the same branch (RFC 3261 9.1).
    if (c->invite && parts->method == "CANCEL") return Match::absorbed;
    if (c->method != parts->method) return Match::unknown;
    const Duration t64 = i.times.t1 * 64;
    const bool under_way =
        c->state == Impl::ClientState::calling || c->state == Impl::ClientState::proceeding;
    if (i.destinations != nullptr && under_way) {
        std::optional<std::uint32_t> retry_after;
        if (status == 503) {
            if (const auto value = response.value(HeaderId::retry_after)) {
                const std::string_view digits = value->substr(0, value->find_first_of(" ;("));
                retry_after = parse_number(digits).value_or(0);
            }
        }
        i.destinations->heard(c->flow, status, retry_after);
        if (status == 503 && c->user != nullptr && c->user->may_move(c->context)) {
            const std::string ack = c->invite ? build_ack(c->request, response) : std::string();
            const Flow refused = c->flow;
            if (i.move(*c)) {
                if (!ack.empty()) i.transport.send(refused, ack);
                return Match::absorbed;
            }
        }
    }
    switch (c->state) {
        case Impl::ClientState::reserved:
            return Match::unknown;
        case Impl::ClientState::completed:
            ++i.absorbed;
            if (c->invite && status >= 300 && !c->ack.empty()) i.transport.send(c->flow, c->ack);
            return Match::absorbed;
        case Impl::ClientState::accepted:
            if (status < 200 || status >= 300) return Match::absorbed;
            break;  // each 2xx of a forked or repeated answer goes through
        case Impl::ClientState::calling:
        case Impl::ClientState::proceeding:
            if (status < 200) {
                c->state = Impl::ClientState::proceeding;
                if (!is_udp(c->flow) && !c->invite && i.destinations == nullptr) c->request = {};
                if (c->invite) {
                    c->retransmit.stop();
                    i.timers.start(c->end, i.times.proceeding);
                }
            } else if (c->invite && status < 300) {
                c->state = Impl::ClientState::accepted;
                c->retransmit.stop();
                i.timers.start(c->end, t64);
            } else {
                c->state = Impl::ClientState::completed;
                c->retransmit.stop();
                if (c->invite) {
                    c->ack = build_ack(c->request, response);
                    if (!c->ack.empty()) i.transport.send(c->flow, c->ack);
                }
            }
            break;
    }
    TransactionUser* user = c->user;
    const ClientTransactionId id = c->id;
    const std::uint64_t context = c->context;
    if (c->state == Impl::ClientState::completed) {
        // Timers D and K: late retransmissions are absorbed; over a stream there are none.
        if (!is_udp(c->flow)) {
            i.end_client(*c);
        } else {
            if (!c->invite) {
                c->request.clear();
                c->request.shrink_to_fit();
            }
            i.timers.start(
                c->end, c->invite ? std::max<Duration>(t64, std::chrono::seconds(32)) : i.times.t4);
        }
    }
    if (user == nullptr) return Match::absorbed;
    user->on_response(id, context, flow, response, bytes);
    return Match::delivered;
}

void TransactionLayer::connection_closed(const Flow& flow, bool was_established) {
    Impl& i = *impl_;
    if (flow.transport != Transport::tcp) return;
    std::vector<ClientTransactionId> ids;
    const auto [first, last] = i.by_remote.equal_range(flow.remote);
    for (auto it = first; it != last; ++it) {
        const Impl::Client* c = i.clients.find(it->second);
        const bool same = c != nullptr &&
                          (c->flow.connection == 0 || c->flow.connection == flow.connection) &&
                          c->flow.local.address == flow.local.address &&
                          (c->flow.local.port == 0 || c->flow.local.port == flow.local.port);
        if (same &&
            (c->state == Impl::ClientState::calling || c->state == Impl::ClientState::proceeding))
            ids.push_back(it->second);
    }
    for (const auto id : ids) {
        Impl::Client* c = i.clients.find(id);
        if (c == nullptr) continue;
        if (was_established && c->state == Impl::ClientState::calling && c->flow.connection == 0 &&
            !c->resent) {
            c->resent = true;
            if (i.transport.send(c->flow, c->request)) continue;
        }
        i.fail_client(*c, ClientFailure::transport);
    }
}

void TransactionLayer::use(Destinations& destinations) {
    impl_->destinations = &destinations;
}

std::size_t TransactionLayer::server_count() const {
    return impl_->servers.size();
}
std::size_t TransactionLayer::client_count() const {
    return impl_->clients.size();
}
std::uint64_t TransactionLayer::retransmissions_absorbed() const {
    return impl_->absorbed;
}
std::uint64_t TransactionLayer::retransmissions_sent() const {
    return impl_->retransmissions;
}

}  // namespace gmgate::sip
