#include "control/sip/transaction_key.h"

#include "base/bytes.h"
#include "control/sip/values.h"

namespace gmgate::sip {

namespace {
constexpr char separator = '\x1f';

void add(std::string& key, std::string_view part) {
    key.append(part);
    key.push_back(separator);
}
}  // namespace

std::optional<TransactionParts> transaction_parts(const Message& message) {
    const auto cseq_text = message.value(HeaderId::cseq);
    if (!cseq_text) return std::nullopt;
    const auto via = top_via(message);
    const auto number = parse_cseq(*cseq_text);
    const auto id = call_id(message);
    if (!via || !number || id.empty()) return std::nullopt;
    TransactionParts parts;
    if (via->has_rfc3261_branch()) parts.branch = via->branch;
    // host[:port] as written: from the host to the end of the port, or the host alone.
    parts.sent_by = via->host;
    if (via->port != 0) {
        parts.sent_by = trim_lws(
            {via->host.data(), static_cast<std::size_t>(via->params.data() - via->host.data())});
    }
    parts.method = number->method;
    parts.call_id = id;
    parts.cseq = *cseq_text;
    if (parts.branch.empty())
        parts.from = message.value(HeaderId::from).value_or(std::string_view{});
    return parts;
}

void server_key(const TransactionParts& parts, const Flow& flow, std::string& key) {
    key.clear();
    key.append(reinterpret_cast<const char*>(flow.remote.address.raw().data()),
               flow.remote.address.octets().size());
    key.push_back(static_cast<char>(flow.local.port >> 8U));
    key.push_back(static_cast<char>(flow.local.port & 0xFFU));
    const std::string_view method =
        parts.method == "ACK" ? std::string_view("INVITE") : parts.method;
    if (!parts.branch.empty()) {
        add(key, parts.branch);
        for (const char c : parts.sent_by) key.push_back(ascii_lower(c));
        key.push_back(separator);
        add(key, method);
        return;
    }
    // RFC 2543 peers: everything that tells two requests apart. The CSeq number stands before its
    // method.
    add(key, parts.sent_by);
    add(key, parts.call_id);
    add(key, parts.from);
    add(key, parts.cseq.substr(0, parts.cseq.find_first_of(" \t\r\n")));
    add(key, method);
}

std::string build_ack(std::string_view invite, const Message& response) {
    Message request;
    if (request.parse(invite) != ParseStatus::ok) return {};
    const auto via = request.first_value(HeaderId::via);
    const auto number = cseq(request);
    const auto to_value = response.value(HeaderId::to);
    const auto from_value = request.value(HeaderId::from);
    if (!via || !number || !to_value || !from_value) return {};
    std::string ack;
    ack.reserve(invite.size());
    const auto line = [&ack](std::string_view name, std::string_view value) {
        ack.append(name).append(": ").append(value).append("\r\n");
    };
    ack.append("ACK ").append(request.request_uri()).append(" SIP/2.0\r\n");
    line("Via", *via);
    for (const Header* h = request.first(HeaderId::route); h != nullptr; h = request.next(*h))
        line("Route", request.value(*h));
    line("Max-Forwards", "70");
    line("From", *from_value);
    line("To", *to_value);
    line("Call-ID", call_id(request));
    line("CSeq", std::to_string(number->number) + " ACK");
    line("Content-Length", "0");
    ack.append("\r\n");
    return ack;
}

}  // namespace gmgate::sip
