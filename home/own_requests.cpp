#include "home/own_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "home/identity.h"
#include "home/next_hop.h"

namespace gmgate::home {

namespace {
constexpr std::size_t tag_octets = 6;
constexpr std::size_t call_id_octets = 12;
}  // namespace

Result<void> OwnRequests::send(std::string_view method, std::string_view from, std::string_view to,
                               std::string_view text, std::span<const sip::HeaderField> more,
                               Done done) {
    const auto sender = canonical_impu(from);
    if (!sender)
        return fail(ErrorKind::invalid,
                    fmt::format("'{}' is not an identity: write sip:user@domain", from));
    const auto* binding = registrar_.find_user(to);
    if (binding == nullptr) binding = registrar_.find(to);
    if (binding == nullptr)
        return fail(ErrorKind::not_found, fmt::format("'{}' is not registered", to));
    return send_to(*binding, method, *sender, text, more, std::move(done));
}

Result<void> OwnRequests::send_to(const Binding& binding, std::string_view method,
                                  std::string_view sender, std::string_view text,
                                  std::span<const sip::HeaderField> more, Done done) {
    const auto hop = next_hop(binding.path, binding.contact, domain_.listen());
    if (!hop) return std::unexpected(hop.error());
    const auto branch = transactions_->new_branch();
    if (branch.id == 0)
        return fail(ErrorKind::exhausted, "the transaction table is full: try again later");

    sip::RequestBuilder request(method, binding.contact);
    request.header("Via", via_for(*hop, branch.view())).header("Max-Forwards", "70");
    if (!binding.path.empty()) request.header("Route", binding.path);
    request.header("From", {"<", sender, ">;tag=", random_.token(tag_octets)})
        .header("To", {"<", binding.default_impu, ">"})
        .header("Call-ID", random_.token(call_id_octets))
        .header("CSeq", {"1 ", method})
        .header("P-Asserted-Identity", {"<", sender, ">"})
        .header("P-Called-Party-ID", {"<", binding.default_impu, ">"});
    for (const auto& h : more) request.header(h.name, h.value);
    if (!text.empty()) request.body("text/plain", text);
    auto bytes = request.finish();
    if (!bytes) {
        transactions_->abandon(branch.id);
        return std::unexpected(bytes.error());
    }
    const auto context = ++next_context_;
    pending_.emplace(context, std::move(done));
    ++counters_.originated;
    if (!transactions_->send_request(branch, sent_on(*hop), method, *bytes, *this, context)) {
        pending_.erase(context);
        return fail(ErrorKind::io, fmt::format("cannot send to {}", hop->remote.to_string()));
    }
    return {};
}

bool OwnRequests::refer(std::string_view impi, std::string_view impu,
                        std::move_only_function<void(bool)> done) {
    // Its views are the registration's: nothing is sent from within find_sets().
    std::optional<Binding> binding;
    registrar_.find_sets(impi, [&](const Binding& b) {
        if (std::ranges::find(*b.impus, impu) != b.impus->end()) binding = b;
    });
    if (!binding) return false;
    const std::string us = fmt::format("sip:{}", domain_.realm());
    const std::string refer_to = "<" + us + ";method=REGISTER>";
    const std::string contact = "<sip:" + domain_.listen().front().to_string() + ">";
    // No subscription to what comes of it: the REGISTER itself tells (RFC 4488).
    const std::array more = {
        sip::HeaderField{"Refer-To", refer_to}, sip::HeaderField{"Refer-Sub", "false"},
        sip::HeaderField{"Supported", "norefersub"}, sip::HeaderField{"Contact", contact}};
    const auto sent = send_to(
        *binding, "REFER", us, {}, more,
        [done = std::move(done)](int status, std::string_view) mutable { done(status < 300); });
    return sent.has_value();
}

OwnRequests::Done OwnRequests::take(std::uint64_t context) {
    const auto found = pending_.find(context);
    if (found == pending_.end()) return {};
    auto done = std::move(found->second);
    pending_.erase(found);
    return done;
}

void OwnRequests::on_response(sip::ClientTransactionId, std::uint64_t context, const sip::Flow&,
                              const sip::Message& response, std::span<char>) {
    if (response.status_code() < 200) return;
    if (auto done = take(context)) done(response.status_code(), response.reason());
}

void OwnRequests::on_failure(sip::ClientTransactionId, std::uint64_t context,
                             sip::ClientFailure failure) {
    const bool timeout = failure == sip::ClientFailure::timeout;
    if (auto done = take(context))
        done(timeout ? 408 : 503, timeout ? "No Answer" : "No Connection");
}

}  // namespace gmgate::home
