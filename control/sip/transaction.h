#pragma once
// RFC 3261 clause 17: server transactions absorb retransmissions and repeat the last response,
// client transactions retransmit over UDP and time out. One thread. Tables are bounded: a full one
// refuses, it never evicts.
//
// Lifetime: transactions belong to the layer and vanish by their own timers. The user holds ids,
// never pointers.

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/metrics.h"
#include "base/random.h"
#include "base/timer_wheel.h"
#include "control/sip/message.h"
#include "control/sip/transport.h"

namespace gmgate::sip {

// Slot and generation: a stale id finds nothing. 0: none.
using ServerTransactionId = std::uint64_t;
using ClientTransactionId = std::uint64_t;

struct TransactionTimers {
    Duration t1 = std::chrono::milliseconds(500);
    Duration t2 = std::chrono::seconds(4);
    Duration t4 = std::chrono::seconds(5);
    // An INVITE that has had a provisional answer ends after this without another one. RFC 3261 has
    // no such timer for a client; a proxy cancels by its timer C, earlier than this.
    Duration proceeding = std::chrono::seconds(250);
};

enum class ClientFailure : std::uint8_t {
    timeout,    // timer B or F: nobody answered
    transport,  // the connection failed or the send was refused
};

// What a client transaction reports. `context` is the user's own number, given at send_request.
class TransactionUser {
  public:
    virtual ~TransactionUser() = default;
    // Each provisional response, and the first final one; retransmissions are absorbed. For INVITE
    // further 2xx come through too. `bytes` is the message the view points into, writable (keys are
    // wiped in place).
    virtual void on_response(ClientTransactionId id, std::uint64_t context, const Flow& flow,
                             const Message& response, std::span<char> bytes) = 0;
    virtual void on_failure(ClientTransactionId id, std::uint64_t context,
                            ClientFailure failure) = 0;
    // May this one go to another destination when its own fails? Only a request that no Route and
    // no dialog ties to one element may.
    [[nodiscard]] virtual bool may_move(std::uint64_t /*context*/) const { return false; }
    // It went again, to `flow`, under the same id with another branch.
    virtual void on_moved(ClientTransactionId /*id*/, std::uint64_t /*context*/,
                          const Flow& /*flow*/, std::string_view /*request*/) {}
};

// Told how destinations behave, and asked where else a request can go (RFC 3263 4.3). Calls come
// from inside the transaction layer: it must not be called back.
class Destinations {
  public:
    virtual ~Destinations() = default;
    struct Other {
        Flow flow;
        std::string sent_by;  // of our Via there: host:port
    };
    // A response came for a request sent to `flow`. retry_after: of a 503.
    virtual void heard(const Flow& flow, int status, std::optional<std::uint32_t> retry_after) = 0;
    // A request to `flow` was not answered, or could not be sent.
    virtual void lost(const Flow& flow, ClientFailure why) = 0;
    // Another one, if there is one worth trying; `tried` begins with the first.
    [[nodiscard]] virtual std::optional<Other> another(std::span<const Endpoint> tried) = 0;
};

class TransactionLayer {
  public:
    struct Limits {
        std::size_t server = 200'000;
        std::size_t client = 200'000;
    };
    // Whose a transaction is. Strangers get at most half of each table, so that a flood of theirs
    // leaves the other half to those who have shown who they are (S3).
    enum class Party : std::uint8_t { known, stranger };

    TransactionLayer(TransportLayer& transport, TimerWheel& timers, Random& random,
                     TransactionTimers times, Limits limits);
    ~TransactionLayer();
    TransactionLayer(const TransactionLayer&) = delete;
    TransactionLayer& operator=(const TransactionLayer&) = delete;

    enum class Arrival : std::uint8_t {
        fresh,           // a new transaction: `id` is set, answer it with respond()
        retransmission,  // absorbed; the last response, if any, was sent again
        ack,             // the ACK of a non-2xx, absorbed
        stateless,       // an ACK of a 2xx: no transaction, forward it
        refused,         // the table is full, or the request has no usable Via/CSeq: drop it
    };
    struct Received {
        Arrival arrival = Arrival::refused;
        ServerTransactionId id = 0;
    };
    // A parsed request that arrived on `flow`. Responses go to `reply` (where A2 or RFC 3261 18.2.2
    // sends them: the caller knows).
    Received receive_request(const Flow& flow, const Flow& reply, const Message& request,
                             Party party = Party::known);
    // receive_request() would absorb it: it is a retransmission, or the ACK of an answer of ours.
    [[nodiscard]] bool knows(const Flow& flow, const Message& request) const;

    // Sends a response and remembers it for retransmissions; status >= 200 completes the
    // transaction. False: the id is stale, nothing was sent.
    bool respond(ServerTransactionId id, int status, std::span<const char> response);
    // As respond(), on another path than the request asked for (C2, D6: the SA that must carry it).
    // False also if that path takes nothing (its connection is closed); then respond() still works.
    bool respond_via(ServerTransactionId id, const Flow& reply, int status,
                     std::span<const char> response);
    // Forgets a transaction without an answer: a discarded message is never answered (B7).
    void forget(ServerTransactionId id);
    [[nodiscard]] bool alive(ServerTransactionId id) const;

    // Our Via branch for a request about to be sent: put it into the message, then call
    // send_request with the same. "z9hG4bK…", 34 characters, with a loop mark 50.
    struct Branch {
        char text[51] = {};
        ClientTransactionId id = 0;
        [[nodiscard]] std::string_view view() const { return text; }
    };
    // id == 0: the table is full. `loop_mark`: what loop_mark_of() will read from it, for a request
    // that is forwarded (RFC 3261 16.6 step 8).
    Branch new_branch(Party party = Party::known, std::optional<std::uint64_t> loop_mark = {});
    // The mark in a branch of our making; nullopt: there is none.
    [[nodiscard]] static std::optional<std::uint64_t> loop_mark_of(std::string_view branch);
    // False: no branch in this Via, not taken apart yet, has one.
    [[nodiscard]] static bool may_hold_loop_mark(std::string_view via);
    // Sends `request` (whose top Via carries `branch`) and supervises it. `method` as in its CSeq.
    // Bytes are kept for retransmission over UDP. Always reports through `user`, never from inside
    // this call. False: not sent, branch released, no report.
    bool send_request(const Branch& branch, const Flow& flow, std::string_view method,
                      std::span<const char> request, TransactionUser& user, std::uint64_t context);
    // No more reports for this one; it finishes silently (absorbing responses) or, if nothing was
    // sent yet, releases the branch.
    void abandon(ClientTransactionId id);

    enum class Match : std::uint8_t { delivered, absorbed, unknown };
    // A parsed response. unknown: no transaction of ours (late, forged, or a 2xx retransmission
    // after the end). absorbed: nobody need know, such as the answer to the CANCEL of an INVITE of
    // ours, which whoever cancelled it hears past this layer.
    Match receive_response(const Flow& flow, const Message& response, std::span<char> bytes);

    // The transport lost a connection: client transactions on it fail. One that has heard nothing
    // on a connection that stood goes once more, on a new one: the peer may have lost that
    // connection long ago (it slept, it was restarted), and a stale one tells so only when used.
    void connection_closed(const Flow& flow, bool was_established = false);

    // Who knows other destinations; outlives the layer. Requests of users that may_move() are sent
    // there when theirs does not answer, cannot be reached, or answers 503.
    void use(Destinations& destinations);

    [[nodiscard]] std::size_t server_count() const;
    [[nodiscard]] std::size_t client_count() const;
    [[nodiscard]] std::uint64_t retransmissions_absorbed() const;
    [[nodiscard]] std::uint64_t retransmissions_sent() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate::sip
