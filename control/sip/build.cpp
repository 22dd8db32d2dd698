#include "control/sip/build.h"

#include <array>
#include <charconv>

#include "base/bytes.h"
#include "control/sip/characters.h"
#include "control/sip/values.h"

namespace gmgate::sip {
namespace {

void append_number(std::string& out, std::size_t n) {
    std::array<char, 20> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), n).ptr;
    out.append(digits.data(), end);
}

void append_line(std::string& out, std::string_view name, std::string_view value) {
    out.append(name).append(": ").append(value).append("\r\n");
}

// The top Via with received and rport as RFC 3261 18.2.1 and RFC 3581 want them; `value` is its
// line's whole value.
void append_stamped_via(std::string& out, std::string_view value, const Endpoint& source) {
    ValueSplitter splitter(value);
    const auto top = *splitter.next();
    const auto via = parse_via(top);
    if (!via) {
        append_line(out, "Via", value);
        return;
    }
    out.append("Via: ");
    const auto params_at = static_cast<std::size_t>(via->params.data() - top.data());
    out.append(trim_lws(top.substr(0, params_at)));
    ParamReader reader(via->params);
    while (const auto p = reader.next()) {
        if (is_name(p->name, "received")) continue;
        if (is_name(p->name, "rport")) continue;
        out.append(";").append(p->whole);
    }
    if (via->rport_present || IpAddress::parse(via->host) != source.address) {
        out.append(";received=").append(source.address.to_string());
    }
    if (via->rport_present) {
        out.append(";rport=");
        append_number(out, source.port);
    }
    out.append(value.substr(static_cast<std::size_t>(top.data() + top.size() - value.data())));
    out.append("\r\n");
}

}  // namespace

std::string_view reason_phrase(int code) {
    switch (code) {
        case 100:
            return "Trying";
        case 180:
            return "Ringing";
        case 181:
            return "Call Is Being Forwarded";
        case 182:
            return "Queued";
        case 183:
            return "Session Progress";
        case 200:
            return "OK";
        case 202:
            return "Accepted";
        case 300:
            return "Multiple Choices";
        case 301:
            return "Moved Permanently";
        case 302:
            return "Moved Temporarily";
        case 305:
            return "Use Proxy";
        case 380:
            return "Alternative Service";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 402:
            return "Payment Required";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 406:
            return "Not Acceptable";
        case 407:
            return "Proxy Authentication Required";
        case 408:
            return "Request Timeout";
        case 410:
            return "Gone";
        case 412:
            return "Conditional Request Failed";
        case 413:
            return "Request Entity Too Large";
        case 414:
            return "Request-URI Too Long";
        case 415:
            return "Unsupported Media Type";
        case 416:
            return "Unsupported URI Scheme";
        case 420:
            return "Bad Extension";
        case 421:
            return "Extension Required";
        case 423:
            return "Interval Too Brief";
        case 439:
            return "First Hop Lacks Outbound Support";
        case 480:
            return "Temporarily Unavailable";
        case 481:
            return "Call/Transaction Does Not Exist";
        case 482:
            return "Loop Detected";
        case 483:
            return "Too Many Hops";
        case 484:
            return "Address Incomplete";
        case 485:
            return "Ambiguous";
        case 486:
            return "Busy Here";
        case 487:
            return "Request Terminated";
        case 488:
            return "Not Acceptable Here";
        case 489:
            return "Bad Event";
        case 491:
            return "Request Pending";
        case 493:
            return "Undecipherable";
        case 494:
            return "Security Agreement Required";
        case 500:
            return "Server Internal Error";
        case 501:
            return "Not Implemented";
        case 502:
            return "Bad Gateway";
        case 503:
            return "Service Unavailable";
        case 504:
            return "Server Time-out";
        case 505:
            return "Version Not Supported";
        case 513:
            return "Message Too Large";
        case 580:
            return "Precondition Failure";
        case 600:
            return "Busy Everywhere";
        case 603:
            return "Decline";
        case 604:
            return "Does Not Exist Anywhere";
        case 606:
            return "Not Acceptable";
        default:
            return "Unknown";
    }
}

Result<void> build_response(const Message& request, int code, const ResponseOptions& options,
                            std::string& out) {
    out.clear();
    if (!request.answerable()) {
        return fail(ErrorKind::invalid,
                    "request lacks Via, From, To, Call-ID or CSeq: no response possible");
    }
    if (code < 100 || code > 699) return fail(ErrorKind::invalid, "status code is not in 100-699");
    const auto reason = options.reason.empty() ? reason_phrase(code) : options.reason;
    if (reason.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) {
        return fail(ErrorKind::invalid, "line break in a reason phrase");
    }
    out.append("SIP/2.0 ");
    append_number(out, static_cast<std::size_t>(code));
    out.append(" ").append(reason).append("\r\n");

    bool top = true;
    for (const auto* via = request.first(HeaderId::via); via != nullptr; via = request.next(*via)) {
        if (top && options.source) {
            append_stamped_via(out, request.value(*via), *options.source);
        } else {
            append_line(out, "Via", request.value(*via));
        }
        top = false;
    }
    if (options.copy_record_route) {
        for (const auto* r = request.first(HeaderId::record_route); r != nullptr;
             r = request.next(*r)) {
            append_line(out, "Record-Route", request.value(*r));
        }
    }
    append_line(out, "From", *request.value(HeaderId::from));
    const auto to_value = *request.value(HeaderId::to);
    out.append("To: ").append(to_value);
    if (code > 100 && !options.to_tag.empty()) {
        const auto parsed = parse_name_addr(to_value);
        if (parsed && parsed->tag().empty()) out.append(";tag=").append(options.to_tag);
    }
    out.append("\r\n");
    append_line(out, "Call-ID", *request.value(HeaderId::call_id));
    append_line(out, "CSeq", *request.value(HeaderId::cseq));
    if (code == 100) {
        if (const auto t = request.value(HeaderId::timestamp)) append_line(out, "Timestamp", *t);
    }
    for (const auto& h : options.headers) {
        if (!keeps_its_line(h.name) || !keeps_its_line(h.value)) {
            out.clear();
            return fail(ErrorKind::invalid, "line break in a header of a response");
        }
        append_line(out, h.name, h.value);
    }
    if (!options.body.empty()) append_line(out, "Content-Type", options.content_type);
    out.append("Content-Length: ");
    append_number(out, options.body.size());
    out.append("\r\n\r\n").append(options.body);
    return {};
}

RequestBuilder::RequestBuilder(std::string_view method, std::string_view uri) {
    out_.reserve(1024);
    bad_ = method.empty() || uri.empty() ||
           method.find_first_of(" \r\n") != std::string_view::npos ||
           uri.find_first_of(" \r\n") != std::string_view::npos;
    out_.append(method).append(" ").append(uri).append(" SIP/2.0\r\n");
}

RequestBuilder& RequestBuilder::header(std::string_view name,
                                       std::initializer_list<std::string_view> value) {
    out_.append(name).append(": ");
    const auto begin = out_.size();
    for (const auto piece : value) out_.append(piece);
    bad_ = bad_ || !keeps_its_line(name) || !keeps_its_line(std::string_view(out_).substr(begin));
    out_.append("\r\n");
    return *this;
}

RequestBuilder& RequestBuilder::body(std::string_view content_type, std::string_view text) {
    if (!text.empty()) header("Content-Type", {content_type});
    body_.assign(text);
    return *this;
}

Result<std::string> RequestBuilder::finish() {
    if (bad_)
        return fail(ErrorKind::invalid, "blank or line break where a request may not have one");
    out_.append("Content-Length: ");
    append_number(out_, body_.size());
    out_.append("\r\n\r\n").append(body_);
    if (out_.size() > max_message)
        return fail(ErrorKind::exhausted, "request larger than 65535 octets");
    return std::move(out_);
}

}  // namespace gmgate::sip
