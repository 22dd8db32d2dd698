#include "control/sip/message.h"

#include <cstring>

#include "base/bytes.h"
#include "control/sip/characters.h"

namespace gmgate::sip {
namespace {

constexpr bool is_wsp(char c) {
    return c == ' ' || c == '\t';
}

// Faults of the start line leave the framing known; any fault behind it outranks them, because
// whoever reads a stream must hear of it.
bool is_soft(ParseStatus s) {
    switch (s) {
        case ParseStatus::ok:
        case ParseStatus::blanks_after_version:
        case ParseStatus::bad_method:
        case ParseStatus::bad_request_uri:
        case ParseStatus::uri_too_long:
        case ParseStatus::bad_version:
        case ParseStatus::bad_status_code:
            return true;
        default:
            return false;
    }
}

bool is_version(std::string_view v) {  // SIP/digits.digits, any case
    if (v.size() < 7 || !iequals(v.substr(0, 4), "SIP/")) return false;
    const auto dot = v.find('.');
    if (dot == std::string_view::npos) return false;
    const auto major = v.substr(4, dot - 4);
    const auto minor = v.substr(dot + 1);
    return !major.empty() && !minor.empty() && all_of_class(major, char_digit) &&
           all_of_class(minor, char_digit);
}

}  // namespace

// The single pass; a class of its own so that message.h shows no more than a reader needs.
class Indexer {
  public:
    Indexer(Message& m, const char* begin, const char* end)
        : m_(m), begin_(begin), p_(begin), end_(end) {}

    // Leaves p_ behind the head.
    void run() {
        if (!start_line()) return;
        while (true) {
            if (p_ == end_) return fault(ParseStatus::head_not_ended);
            if (*p_ == '\r') {
                if (end_ - p_ < 2) return fault(ParseStatus::head_not_ended);
                if (p_[1] != '\n') return fault(ParseStatus::bad_line_end);
                p_ += 2;
                complete_ = true;
                return;
            }
            if (!header_line()) return;
        }
    }

    [[nodiscard]] const char* position() const { return p_; }
    [[nodiscard]] bool complete() const { return complete_; }

    void fault(ParseStatus status) {
        if (m_.status_ == ParseStatus::ok || (is_soft(m_.status_) && !is_soft(status)))
            m_.status_ = status;
    }

  private:
    [[nodiscard]] std::uint16_t offset(const char* p) const {
        return static_cast<std::uint16_t>(p - begin_);
    }

    // Moves p_ behind the line; its end without CRLF in line_end_. False: nothing more can be read.
    bool start_line() {
        const char* s = find_special(p_, end_);
        if (s == end_) {
            // A start line without an end: long ones are a URI too long, all others no SIP at all.
            fault(s - p_ > static_cast<std::ptrdiff_t>(max_start_line)
                      ? ParseStatus::uri_too_long
                      : ParseStatus::bad_start_line);
            return false;
        }
        if (*s != '\r' || end_ - s < 2 || s[1] != '\n') {
            fault(*s == '\0' ? ParseStatus::bad_character : ParseStatus::bad_line_end);
            return false;
        }
        const std::string_view line(p_, static_cast<std::size_t>(s - p_));
        if (line.size() >= 4 && iequals(line.substr(0, 4), "SIP/")) {
            status_line(line);
        } else if (!request_line(line)) {
            return false;
        }
        if (line.size() > max_start_line) fault(ParseStatus::uri_too_long);
        p_ = s + 2;
        m_.start_line_size_ = static_cast<std::size_t>(p_ - begin_);
        return true;
    }

    bool request_line(std::string_view line) {
        while (line.ends_with(' ') || line.ends_with('\t')) {
            fault(ParseStatus::blanks_after_version);
            line.remove_suffix(1);
        }
        const auto first = line.find(' ');
        const auto last = line.rfind(' ');
        if (first == std::string_view::npos || first == last || first == 0) {
            fault(ParseStatus::bad_start_line);
            return false;
        }
        m_.is_request_ = true;
        const auto method = line.substr(0, first);
        const auto uri = line.substr(first + 1, last - first - 1);
        const auto version = line.substr(last + 1);
        m_.method_begin_ = 0;
        m_.method_end_ = static_cast<std::uint16_t>(first);
        m_.uri_begin_ = static_cast<std::uint16_t>(first + 1);
        m_.uri_end_ = static_cast<std::uint16_t>(last);
        if (!is_version(version)) {
            fault(ParseStatus::bad_start_line);
        } else if (version.substr(4) != "2.0") {
            fault(ParseStatus::bad_version);
        }
        if (!all_of_class(method, char_token)) fault(ParseStatus::bad_method);
        if (uri.empty() || !all_of_class(uri, char_uri)) fault(ParseStatus::bad_request_uri);
        return true;
    }

    void status_line(std::string_view line) {
        m_.is_request_ = false;
        const auto first = line.find(' ');
        const auto version = line.substr(0, first);
        if (!is_version(version) || first == std::string_view::npos)
            return fault(ParseStatus::bad_start_line);
        if (version.substr(4) != "2.0") fault(ParseStatus::bad_version);
        const auto rest = line.substr(first + 1);
        // The blank behind the code may be missing when there is no reason.
        const bool code_ends = rest.size() == 3 || (rest.size() > 3 && rest[3] == ' ');
        if (!code_ends || !all_of_class(rest.substr(0, 3), char_digit) || rest[0] < '1' ||
            rest[0] > '6') {
            return fault(ParseStatus::bad_status_code);
        }
        m_.status_code_ = static_cast<std::uint16_t>((rest[0] - '0') * 100 + (rest[1] - '0') * 10 +
                                                     (rest[2] - '0'));
        const auto reason = first + 1 + (rest.size() == 3 ? 3 : 4);
        m_.uri_begin_ = static_cast<std::uint16_t>(reason);
        m_.uri_end_ = static_cast<std::uint16_t>(line.size());
    }

    bool header_line() {
        const char* const line = p_;
        const char* name_end = p_;
        while (name_end != end_ && is_class(*name_end, char_token)) ++name_end;
        const char* colon = name_end;
        while (colon != end_ && is_wsp(*colon)) ++colon;
        const bool named = name_end != line && colon != end_ && *colon == ':';
        if (!named) fault(ParseStatus::bad_header_name);

        // To the CRLF that no blank follows.
        const char* s = named ? colon + 1 : line;
        bool folded = false;
        while (true) {
            s = find_special(s, end_);
            if (s == end_) return fault(ParseStatus::head_not_ended), false;
            if (*s == '\r') {
                if (end_ - s < 2) return fault(ParseStatus::head_not_ended), false;
                if (s[1] != '\n') {
                    fault(ParseStatus::bad_line_end);
                    ++s;
                    continue;
                }
                if (end_ - s < 3 || !is_wsp(s[2])) break;
                folded = true;
                s += 3;
                continue;
            }
            // LF alone, or NUL: only a quoted pair may hold the latter (RFC 3261 25.1, RFC
            // 4475 3.1.1.2).
            if (*s == '\n') {
                fault(ParseStatus::bad_line_end);
            } else if (s[-1] != '\\') {
                fault(ParseStatus::bad_character);
            }
            ++s;
        }
        p_ = s + 2;
        if (p_ - line > static_cast<std::ptrdiff_t>(max_header_line))
            fault(ParseStatus::header_too_long);
        if (!named) return true;
        if (m_.header_count_ == max_headers) return fault(ParseStatus::too_many_headers), false;

        const char* value = colon + 1;
        const char* value_end = s;
        while (value != value_end && is_class(*value, char_lws)) ++value;
        while (value_end != value && is_class(value_end[-1], char_lws)) --value_end;

        const std::string_view name(line, static_cast<std::size_t>(name_end - line));
        const auto index = m_.header_count_++;
        Header& h = m_.headers_[index];
        h.line_begin = offset(line);
        h.line_end = offset(p_);
        h.value_begin = offset(value);
        h.value_end = offset(value_end);
        h.name_size = static_cast<std::uint8_t>(name.size() < 255 ? name.size() : 255);
        h.id = header_id(name);
        h.next = Message::none;
        h.folded = folded;
        if (h.id != HeaderId::unknown) {
            const auto id = static_cast<std::size_t>(h.id);
            if (m_.first_[id] == Message::none) {
                m_.first_[id] = index;
            } else {
                m_.headers_[m_.last_[id]].next = index;
            }
            m_.last_[id] = index;
            if (h.id == HeaderId::content_length)
                content_length({value, static_cast<std::size_t>(value_end - value)});
        }
        return true;
    }

    void content_length(std::string_view digits) {
        if (digits.empty() || !all_of_class(digits, char_digit))
            return fault(ParseStatus::bad_content_length);
        std::uint32_t n = 0;
        for (const char c : digits) {
            n = n * 10 + static_cast<std::uint32_t>(c - '0');
            if (n > max_message) {
                n = max_message + 1;  // stays there: no more digits can make it fit
                break;
            }
        }
        if (m_.has_content_length_ && n != m_.content_length_)
            return fault(ParseStatus::content_length_twice);
        m_.has_content_length_ = true;
        m_.content_length_ = n;
        if (n > max_message) fault(ParseStatus::body_too_large);
    }

    Message& m_;
    const char* begin_;
    const char* p_;
    const char* end_;
    bool complete_ = false;
};

ParseStatus Message::parse(std::string_view bytes, Framing framing) {
    const char* begin = bytes.data();
    const char* end = begin + bytes.size();
    while (end - begin >= 2 && begin[0] == '\r' && begin[1] == '\n') begin += 2;

    skipped_ = static_cast<std::size_t>(begin - bytes.data());
    bytes_ = {begin, static_cast<std::size_t>(end - begin)};
    head_size_ = bytes_.size();
    start_line_size_ = 0;
    content_length_ = 0;
    method_begin_ = method_end_ = uri_begin_ = uri_end_ = 0;
    status_code_ = 0;
    header_count_ = 0;
    status_ = ParseStatus::ok;
    is_request_ = false;
    has_content_length_ = false;
    memo_.via = memo_.from = memo_.to = Read::not_yet;
    first_.fill(none);

    if (begin == end) return status_ = ParseStatus::empty;
    if (bytes_.size() > max_message) {
        // Indexed as far as offsets reach, for the 513.
        status_ = ParseStatus::message_too_large;
        bytes_ = bytes_.substr(0, max_message);
        head_size_ = bytes_.size();
        end = begin + max_message;
    }

    Indexer indexer(*this, begin, end);
    indexer.run();
    if (!indexer.complete()) return status_;
    head_size_ = static_cast<std::size_t>(indexer.position() - begin);

    const std::size_t available = bytes_.size() - head_size_;
    if (!has_content_length_) {
        if (framing != Framing::datagram) indexer.fault(ParseStatus::content_length_missing);
    } else if (content_length_ <= available) {
        bytes_ = bytes_.substr(0, head_size_ + content_length_);
    } else if (framing != Framing::stream_head) {
        indexer.fault(ParseStatus::body_too_short);
    } else if (total_size() > max_message) {
        indexer.fault(ParseStatus::body_too_large);
    }
    return status_;
}

std::string_view Message::name(const Header& h) const {
    if (h.name_size < 255) return view(h.line_begin, std::size_t{h.line_begin} + h.name_size);
    std::size_t end = h.line_begin;
    while (is_class(bytes_[end], char_token)) ++end;
    return view(h.line_begin, end);
}

std::optional<std::string_view> Message::first_value(HeaderId id) const {
    const auto* h = first(id);
    if (h == nullptr) return std::nullopt;
    ValueSplitter splitter(value(*h));
    return splitter.next();
}

std::size_t Message::count(HeaderId id) const {
    std::size_t n = 0;
    for (const auto* h = first(id); h != nullptr; h = next(*h)) ++n;
    return n;
}

const Header* Message::find(std::string_view wanted) const {
    const auto id = header_id(wanted);
    if (id != HeaderId::unknown) return first(id);
    for (const auto& h : headers()) {
        if (h.id == HeaderId::unknown && iequals(name(h), wanted)) return &h;
    }
    return nullptr;
}

bool Message::has_token(HeaderId id, std::string_view token) const {
    for (const auto& v : values(id)) {
        if (iequals(v.text, token)) return true;
    }
    return false;
}

std::optional<std::string_view> ValueSplitter::next() {
    if (done_) return std::nullopt;
    const auto trimmed = [](std::string_view t) {
        while (!t.empty() && is_class(t.front(), char_lws)) t.remove_prefix(1);
        while (!t.empty() && is_class(t.back(), char_lws)) t.remove_suffix(1);
        return t;
    };
    const char* const begin = rest_.data();
    const char* const end = begin + rest_.size();
    // Most headers hold one value: no comma, nothing to look for.
    const void* comma = rest_.empty() ? nullptr : std::memchr(begin, ',', rest_.size());
    if (comma == nullptr) {
        done_ = true;
        return trimmed(rest_);
    }
    const char* p = begin;
    while (true) {
        p = find_any<',', '"', '<'>(p, end);
        if (p == end) break;
        const char c = *p;
        if (c == ',') {
            rest_ = {p + 1, static_cast<std::size_t>(end - p - 1)};
            return trimmed({begin, static_cast<std::size_t>(p - begin)});
        }
        if (c == '"') {
            ++p;
            while (p != end && *p != '"') {
                if (*p == '\\' && p + 1 != end) ++p;
                ++p;
            }
            if (p == end) {
                balanced_ = false;
                break;
            }
        } else {
            p = static_cast<const char*>(std::memchr(p, '>', static_cast<std::size_t>(end - p)));
            if (p == nullptr) {
                balanced_ = false;
                break;
            }
        }
        ++p;
    }
    done_ = true;
    return trimmed({begin, static_cast<std::size_t>(end - begin)});
}

ValueRange::Iterator::Iterator(const Message* message, std::uint8_t header) : message_(message) {
    open(header);
}

void ValueRange::Iterator::open(std::uint8_t header) {
    if (header == Message::none) {
        message_ = nullptr;
        return;
    }
    value_.header = header;
    value_.ordinal = 0;
    splitter_ = ValueSplitter(message_->value(message_->header(header)));
    value_.text = *splitter_.next();  // there is always a first one, if only an empty text
}

ValueRange::Iterator& ValueRange::Iterator::operator++() {
    if (const auto more = splitter_.next()) {
        value_.text = *more;
        if (value_.ordinal != 0xFF) ++value_.ordinal;
    } else {
        open(message_->header(value_.header).next);
    }
    return *this;
}

ValueRange::Iterator ValueRange::begin() const {
    const auto header = message_->first_index(id_);
    return header == Message::none ? Iterator() : Iterator(message_, header);
}

std::string_view text(ParseStatus status) {
    switch (status) {
        case ParseStatus::ok:
            return "ok";
        case ParseStatus::empty:
            return "no message, only line ends";
        case ParseStatus::message_too_large:
            return "message larger than 65535 octets";
        case ParseStatus::bad_start_line:
            return "start line is neither a request line nor a status line";
        case ParseStatus::blanks_after_version:
            return "blanks at the end of the request line";
        case ParseStatus::bad_method:
            return "method is not a token";
        case ParseStatus::bad_request_uri:
            return "Request-URI holds characters no URI may have";
        case ParseStatus::uri_too_long:
            return "start line longer than 8192 octets";
        case ParseStatus::bad_version:
            return "SIP version is not 2.0";
        case ParseStatus::bad_status_code:
            return "status code is not in 100-699";
        case ParseStatus::bad_line_end:
            return "CR without LF, or LF without CR, in the headers";
        case ParseStatus::bad_character:
            return "NUL in the headers";
        case ParseStatus::bad_header_name:
            return "header line without a valid name and colon";
        case ParseStatus::header_too_long:
            return "header longer than 16384 octets";
        case ParseStatus::too_many_headers:
            return "more than 250 header lines";
        case ParseStatus::head_not_ended:
            return "no empty line behind the headers";
        case ParseStatus::bad_content_length:
            return "Content-Length is not a number";
        case ParseStatus::content_length_twice:
            return "two Content-Length headers that differ";
        case ParseStatus::content_length_missing:
            return "Content-Length missing on a stream";
        case ParseStatus::body_too_short:
            return "datagram shorter than Content-Length says";
        case ParseStatus::body_too_large:
            return "Content-Length beyond what is taken";
    }
    return "unknown";
}

int response_code(ParseStatus status) {
    switch (status) {
        case ParseStatus::ok:
        case ParseStatus::empty:
        case ParseStatus::bad_status_code:
            return 0;
        case ParseStatus::message_too_large:
            return 513;
        case ParseStatus::uri_too_long:
            return 414;
        case ParseStatus::bad_version:
            return 505;
        case ParseStatus::body_too_large:
            return 413;
        default:
            return 400;
    }
}

}  // namespace gmgate::sip
