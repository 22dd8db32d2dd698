// A phone lends its SAs to its agent (ue/agent.h).
#include <fmt/format.h>

#include <utility>

#include "ue/agent.h"
#include "ue/application.h"
#include "ue/phone.h"

namespace gmgate::ue {

Agent& Phone::agent() {
    if (!agent_) {
        agent_ = std::make_unique<Agent>(
            AgentContext{context_.timers, context_.random, context_.times, context_.calls,
                         context_.reg_profile, context_.statistics.calls,
                         context_.statistics.retransmissions},
            static_cast<AgentHost&>(*this));
    }
    return *agent_;
}

std::optional<Flow> Phone::flow() const {
    if (!registered_ || !current_ || phase_ == Phase::over) return std::nullopt;
    Flow f;
    f.set = current_->serial;
    f.contact = {current_->local, current_->numbers.port_us};
    f.tcp = plan_.tcp;
    f.style = plan_.style;
    f.identity = identity();
    if (service_route_) f.route = *service_route_;
    if (verify_) f.verify = expand_verify(plan_.style, *verify_, current_->numbers);
    return f;
}

SaSet* Phone::usable_set(std::uint32_t serial) {
    SaSet* set = set_of(serial, false);
    return set != nullptr && set != pending_.get() ? set : current_.get();
}

void Phone::narrate_sent(const SaSet& set, bool tcp, std::string_view bytes) const {
    if (context_.observer == nullptr) return;
    Arrival a;
    a.set = const_cast<SaSet*>(&set);  // only looked at
    a.tcp = tcp;
    a.from = {pcscf().address, set.numbers.port_ps};
    a.to = {set.local, set.numbers.port_uc};
    const std::string where = route_text(a, true);
    std::string_view line = bytes.substr(0, bytes.find('\r'));
    line = line.starts_with("SIP/2.0 ") ? line.substr(8) : line.substr(0, line.find(' '));
    say(fmt::format("     → {:<24} {}", line, where));
    context_.observer->message(*this, true, where, bytes);
}

bool Phone::send_request(std::uint32_t serial, bool tcp, std::string_view bytes) {
    SaSet* set = usable_set(serial);
    if (set == nullptr) return false;
    narrate_sent(*set, tcp, bytes);
    if (tcp) {
        client_link(*set).send(bytes);
    } else {
        send_udp_protected(*set, true, bytes);
    }
    return true;
}

bool Phone::send_response(const ReplyPath& path, std::string_view bytes) {
    SaSet* set = usable_set(path.set);
    if (set == nullptr) return false;
    narrate_sent(*set, path.tcp, bytes);
    if (!path.tcp) {
        send_udp_protected(*set, !path.rport, bytes);
        return true;
    }
    TcpLink* link = path.our_connection ? set->client.get() : set->server.get();
    // RFC 3261 18.2.2: the connection is gone, so another to where the Via says: port_ps.
    if (link == nullptr || !link->open()) link = &client_link(*set);
    link->send(bytes);
    return true;
}

void Phone::call_event(Call& call, CallEvent event) {
    if (context_.on_call) context_.on_call(*this, call, event);
}

void Phone::message_came(std::string_view from, std::string_view text) {
    if (context_.on_text) context_.on_text(*this, from, text);
}

void Phone::registration_news(const RegistrationNews& news) {
    if (context_.on_news) context_.on_news(*this, news);
    if (news.reauthenticate) {
        reauthenticate_ = true;
        obeying_ = false;
    }
    if (news.gone) {
        say("      the network ended the registration");
        told_gone_ = true;
        may_return_ = news.may_return;
    }
    // Once its 200 is out.
    if ((news.gone || news.reauthenticate) && phase_ == Phase::registered)
        context_.timers.start(periodic_, context_.times.t1);
}

// The network ended the registration (TS 24.229 5.1.1.7): SAs and calls go; it registers anew if it
// was told to.
void Phone::leave_as_told() {
    told_gone_ = false;
    reauthenticate_ = false;
    if (agent_) agent_->registration_over("the network ended the registration");
    discard(pending_);
    discard(old_);
    discard(current_);
    registered_ = false;
    ++context_.statistics.ended_by_network;
    if (script_ != nullptr) {
        phase_ = Phase::idle;
        return;
    }
    if (!may_return_) return finish();
    call_token_ = context_.random.u64();
    restarts_ = 0;
    begin(Purpose::initial);
}

bool Phone::agent_response(const sip::Message& m, const Arrival& arrival) {
    if (!agent_ && application_ == nullptr) return false;
    if (context_.observer != nullptr) {
        const std::string where = route_text(arrival, false);
        say(fmt::format("     ← {:<24} {}", status_text(m), where));
        context_.observer->message(*this, false, where, m.bytes());
    }
    if (application_ != nullptr && application_->phone_response(m)) return true;
    return agent_ && agent_->on_response(m);
}

// Requests the agent deals with; false: the phone answers it.
bool Phone::agent_request(const sip::Message& m, const Arrival& arrival) {
    if (!registered_ || arrival.set == pending_.get()) return false;
    const auto via = sip::top_via(m);
    ReplyPath path;
    path.set = arrival.set->serial;
    path.tcp = arrival.tcp;
    path.our_connection = arrival.link != nullptr && arrival.link == arrival.set->client.get();
    path.rport = via && via->rport_present;
    const bool taken =
        application_ != nullptr && !asks_for_register(m) && application_->phone_request(m, path);
    if (!taken && !agent().on_request(m, path)) return false;
    if (!m.is_method("ACK")) ++context_.statistics.network_requests;
    return true;
}

}  // namespace gmgate::ue
