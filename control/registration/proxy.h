#pragma once
// Requests of registered users other than REGISTER, both ways on their SAs (E2, E3): one Exchange
// for each that is under way.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/seeded_hash.h"
#include "base/slot_map.h"
#include "base/timer_wheel.h"
#include "control/registration/context.h"
#include "control/registration/registrations.h"

namespace gmgate::registration {

class Proxy final : public sip::TransactionUser {
  public:
    Proxy(Context& context, const Registrations& registrations);
    ~Proxy() override;

    // A request on a protected port, its SA set in `arrival.carrier`. Not REGISTER. transaction 0:
    // an ACK to pass on.
    void on_ue_request(const Arrival& arrival, const sip::Message& request);
    // A request from the core.
    void on_core_request(const Arrival& arrival, const sip::Message& request);

    [[nodiscard]] std::size_t size() const { return exchanges_.size(); }
    // What counts exchanges by user, and finds INVITEs for their CANCEL.
    [[nodiscard]] std::size_t index_entries() const { return from_user_.size() + invites_.size(); }

    // Both sides; `context` is the exchange's id.
    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;

  private:
    struct Exchange {
        Exchange(SlotId i, Proxy& p) : id(i), proxy(p) {
            timer.bind([](void* e) { static_cast<Exchange*>(e)->on_timer(); }, this);
        }
        void on_timer();

        SlotId id;
        Proxy& proxy;
        bool from_ue = false;
        bool invite = false;
        bool provisional = false;  // one has come: a CANCEL may be sent (RFC 3261 9.1)
        bool answered = false;     // finally
        bool cancelled = false;
        bool chose_tcp_for_size = false;
        sa::UserId user = 0;
        std::uint64_t trace_user = 0;
        std::array<char, 14> method{};
        sip::ServerTransactionId server = 0;
        sip::ClientTransactionId client = 0;
        sip::Flow reply;  // where its responses go
        sip::Flow sent_to;
        Endpoint source;
        Carrier carrier;   // of the side that is Gm
        std::string head;  // to answer it ourselves
        std::string key;   // of an INVITE, for its CANCEL
        std::string
            sent;  // an INVITE as it was forwarded, or a request that may have to go again over UDP
        Duration cancel_interval{};
        Duration cancel_waited{};
        Timer timer;  // CANCEL's retransmission, or the wait for further 2xx

        [[nodiscard]] std::string_view method_name() const;
    };

    Side& inner(const Exchange& e) {
        return e.from_ue ? ctx_.gm : ctx_.core;
    }  // where the request came from
    Side& outer(const Exchange& e) { return e.from_ue ? ctx_.core : ctx_.gm; }  // where it went
    Exchange* open(const Arrival& arrival, const sip::Message& request, bool from_ue);
    void close(SlotId id);
    // Puts the message in the context's scratch on its way; answers for failures.
    void launch(const Arrival& arrival, const sip::Message& request, Exchange& e,
                const sip::TransactionLayer::Branch& branch, const sip::Flow& flow);
    void on_cancel(Side& side, const Arrival& arrival, const sip::Message& request);
    void send_cancel(Exchange& e);
    [[nodiscard]] std::string cancel_key(const sip::Message& request, const Side& side,
                                         sa::UserId user) const;
    // A keyed hash of all that decides where a request goes, and of no Via, so the same again means
    // that it came back unchanged (RFC 3261 16.6 step 8, RFC 5393 4.2). It travels in our branch.
    [[nodiscard]] std::uint64_t loop_mark(const sip::Message& request, bool from_ue,
                                          sa::UserId user) const;
    // RFC 3261 16.3 step 4: it went through here before, as it is.
    [[nodiscard]] static bool has_looped(const sip::Message& request, std::uint64_t mark);
    [[nodiscard]] std::optional<sip::Flow> flow_to(std::string_view route_value) const;
    // The message claims another user than its SA's (B7).
    [[nodiscard]] bool claims_other_user(const sip::Message& request, const sa::User& user) const;
    [[nodiscard]] std::string asserted_identity(const sip::Message& message,
                                                const sa::User& user) const;
    [[nodiscard]] bool is_ue_side_route(const sip::Uri& uri) const;
    [[nodiscard]] std::string ue_side_uri(const IpAddress& ours, sa::Port port_ps) const;
    void note(const Exchange& e, int status, bool to_ue, const sip::Flow* gm_flow, Reason reason);

    Context& ctx_;
    const Registrations& registrations_;
    SeededHash loop_hash_;
    SlotMap<Exchange> exchanges_;
    // Exchanges from each UE; no more entries than there are exchanges.
    std::unordered_map<sa::UserId, std::size_t> from_user_;
    std::unordered_map<std::string, SlotId, SeededStringHash, std::equal_to<>> invites_;
};

}  // namespace gmgate::registration
