#pragma once
// A SIP message as bytes, indexed once (RFC 3261 7, 25).
//
// Message is a view: it owns nothing, allocates nothing, and is valid as long as the caller's bytes
// are neither moved nor changed. About 5 KB; reuse one per event loop, or put it on the stack. Not
// thread-safe, as any value.

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include "control/sip/header_id.h"

namespace gmgate::sip {

// Limits of what we take (S2, S3). Offsets are 16 bits wide: max_message may not grow past 65535.
inline constexpr std::size_t max_message = 65535;  // octets, start line to end of body
inline constexpr std::size_t max_headers = 250;    // header lines
inline constexpr std::size_t max_header_line =
    16384;  // octets of one header with its continuation lines
inline constexpr std::size_t max_start_line = 8192;  // octets

enum class ParseStatus : std::uint8_t {
    ok,
    empty,                   // nothing but CRLFs (or nothing at all): a keepalive, not a message
    message_too_large,       // 513
    bad_start_line,          // 400: not "method SP URI SP version" nor a status line
    blanks_after_version,    // 400: blanks at the end of the request line (RFC 4475 3.1.2.10)
    bad_method,              // 400: not a token
    bad_request_uri,         // 400: blanks, controls, angle brackets or quotes in it (RFC
                             // 4475 3.1.2.7, 3.1.2.8)
    uri_too_long,            // 414
    bad_version,             // 505: SIP/ of another version
    bad_status_code,         // response, dropped: not 3 digits in 100–699
    bad_line_end,            // 400: CR without LF or LF without CR in the head
    bad_character,           // 400: NUL outside a quoted pair
    bad_header_name,         // 400: no colon, empty, or not a token
    header_too_long,         // 400
    too_many_headers,        // 400
    head_not_ended,          // 400: no empty line after the headers
    bad_content_length,      // 400: not a number
    content_length_twice,    // 400: two that differ (RFC 4475 3.3.9)
    content_length_missing,  // 400: on a stream only (RFC 3261 18.3)
    body_too_short,          // 400: the datagram ends before Content-Length says (RFC 3261 18.3)
    body_too_large,          // 413: Content-Length beyond max_message
};

// One line for a log, a Warning or a trace.
[[nodiscard]] std::string_view text(ParseStatus status);
// The status code the RFC suggests for a request with that fault; 0: ok, empty, or a response,
// which is dropped.
[[nodiscard]] int response_code(ParseStatus status);

// What ends the body.
enum class Framing : std::uint8_t {
    datagram,     // Content-Length if there, else the end of the datagram; octets beyond
                  // Content-Length are cut off
    stream,       // Content-Length is required, and the bytes hold the whole message
    stream_head,  // as stream, but the body may not be there yet (the framer's use)
};

// One header line, offsets from the start of Message::bytes(). Without initial values: a Message
// holds 250 of them, and setting them all would cost more than indexing a message.
struct Header {
    std::uint16_t line_begin;   // first octet of the name
    std::uint16_t line_end;     // behind the CRLF that ends it (behind the last continuation line)
    std::uint16_t value_begin;  // blanks and folds at both ends cut off
    std::uint16_t value_end;
    std::uint8_t name_size;  // 255 for longer names: use Message::name()
    HeaderId id;
    std::uint8_t next;  // the next line of the same id (not kept for unknown); 0xFF: none
    bool folded;        // the value goes over several lines: CRLF inside it are blanks
};
static_assert(std::is_trivially_default_constructible_v<Header>);

// One value of a comma-separated header.
struct Value {
    std::string_view text;     // trimmed; may hold folds (CRLF + blank), which are blanks
    std::uint8_t header = 0;   // index of the line it stands in
    std::uint8_t ordinal = 0;  // position in that line, from 0 (255 at most; later ones keep 255)
};

// Takes "a, b;x=\"1,2\", <sip:c,d>" apart: commas in quotes and angle brackets do not count. Empty
// elements ("a,,b") are given as empty texts: the grammar forbids them nearly everywhere, so the
// reader decides.
class ValueSplitter {
  public:
    explicit ValueSplitter(std::string_view text) : rest_(text) {}
    // nullopt: no more. A quote or bracket that swallows a comma and never ends makes balanced()
    // false; the rest is then one value.
    std::optional<std::string_view> next();
    [[nodiscard]] bool balanced() const { return balanced_; }

  private:
    std::string_view rest_;
    bool done_ = false;
    bool balanced_ = true;
};

class Message;

// Range of the values of all lines of one header, in message order.
class ValueRange {
  public:
    class Iterator {
      public:
        using value_type = Value;
        using difference_type = std::ptrdiff_t;
        using iterator_category = std::input_iterator_tag;
        Iterator() = default;
        Iterator(const Message* message, std::uint8_t header);
        const Value& operator*() const { return value_; }
        const Value* operator->() const { return &value_; }
        Iterator& operator++();
        void operator++(int) { ++*this; }
        bool operator==(std::default_sentinel_t) const { return message_ == nullptr; }

      private:
        void open(std::uint8_t header);
        const Message* message_ = nullptr;
        ValueSplitter splitter_{{}};
        Value value_;
    };

    ValueRange(const Message& message, HeaderId id) : message_(&message), id_(id) {}
    [[nodiscard]] Iterator begin() const;
    [[nodiscard]] std::default_sentinel_t end() const { return {}; }

  private:
    const Message* message_;
    HeaderId id_;
};

class Message {
  public:
    static constexpr std::uint8_t none = 0xFF;

    // Not initialised beyond what parse() sets: look at nothing before it.
    Message() = default;  // NOLINT: the index is filled by parse()

    // Indexes `bytes`, which must outlive this object's use. CRLFs before the start line are
    // skipped (RFC 3261 7.5). The first fault is the status; the headers around it are indexed all
    // the same where that is possible, so that an error response can be built (see answerable()).
    // CRLF is demanded: a lone CR or LF in the head is an error, because two elements that disagree
    // about where a line ends can be made to see different headers, and a P-CSCF strips headers for
    // others' safety.
    ParseStatus parse(std::string_view bytes, Framing framing = Framing::datagram);
    // The same from a span; a template, so that strings and literals are not ambiguous.
    template <std::same_as<std::span<const char>> Span>
    ParseStatus parse(Span bytes, Framing framing = Framing::datagram) {
        return parse(std::string_view(bytes.data(), bytes.size()), framing);
    }

    [[nodiscard]] ParseStatus status() const { return status_; }
    [[nodiscard]] bool is_request() const { return is_request_; }

    // Start line. Request: method and request_uri; response: status_code and reason (may be empty).
    [[nodiscard]] std::string_view method() const { return view(method_begin_, method_end_); }
    [[nodiscard]] std::string_view request_uri() const { return view(uri_begin_, uri_end_); }
    [[nodiscard]] int status_code() const { return status_code_; }
    [[nodiscard]] std::string_view reason() const { return view(uri_begin_, uri_end_); }
    [[nodiscard]] bool is_method(std::string_view m) const { return is_request_ && method() == m; }

    // The whole message without leading CRLFs and without octets beyond Content-Length.
    [[nodiscard]] std::string_view bytes() const { return bytes_; }
    // Start line and headers with the empty line that ends them.
    [[nodiscard]] std::string_view head() const { return bytes_.substr(0, head_size_); }
    [[nodiscard]] std::string_view body() const { return bytes_.substr(head_size_); }
    // Content-Length as written; nullopt: none.
    [[nodiscard]] std::optional<std::uint32_t> content_length() const {
        return has_content_length_ ? std::optional(content_length_) : std::nullopt;
    }
    // Octets before the start line that were skipped.
    [[nodiscard]] std::size_t skipped() const { return skipped_; }
    // Size of the message on a stream, from the start line: head and Content-Length.
    [[nodiscard]] std::size_t total_size() const {
        return head_size_ + std::size_t{content_length_};
    }

    // Header lines in order.
    [[nodiscard]] std::span<const Header> headers() const {
        return {headers_.data(), header_count_};
    }
    [[nodiscard]] const Header& header(std::uint8_t index) const { return headers_[index]; }
    [[nodiscard]] std::string_view name(const Header& h) const;
    [[nodiscard]] std::string_view value(const Header& h) const {
        return view(h.value_begin, h.value_end);
    }
    // The whole line with its CRLF, as it came.
    [[nodiscard]] std::string_view line(const Header& h) const {
        return view(h.line_begin, h.line_end);
    }
    [[nodiscard]] std::size_t start_line_size() const { return start_line_size_; }  // with its CRLF

    // Lookup by id, O(1). nullptr / none / empty: not there.
    [[nodiscard]] bool has(HeaderId id) const {
        return first_[static_cast<std::size_t>(id)] != none;
    }
    [[nodiscard]] std::uint8_t first_index(HeaderId id) const {
        return first_[static_cast<std::size_t>(id)];
    }
    [[nodiscard]] const Header* first(HeaderId id) const {
        const auto i = first_index(id);
        return i == none ? nullptr : &headers_[i];
    }
    [[nodiscard]] const Header* next(const Header& h) const {
        return h.next == none ? nullptr : &headers_[h.next];
    }
    // Raw value of the first line of it; nullopt: no such header.
    [[nodiscard]] std::optional<std::string_view> value(HeaderId id) const {
        const auto* h = first(id);
        return h == nullptr ? std::nullopt : std::optional(value(*h));
    }
    // The first value of a comma-separated header (topmost Via, first Route); nullopt: no such
    // header.
    [[nodiscard]] std::optional<std::string_view> first_value(HeaderId id) const;
    // Number of lines.
    [[nodiscard]] std::size_t count(HeaderId id) const;
    // All values of a comma-separated header over all its lines; see is_comma_list().
    [[nodiscard]] ValueRange values(HeaderId id) const { return {*this, id}; }
    // The first line of any name, known or not, any case; nullptr: none. O(headers).
    [[nodiscard]] const Header* find(std::string_view name) const;

    // True if an option tag stands in Require, Proxy-Require or Supported (id), any case.
    [[nodiscard]] bool has_token(HeaderId id, std::string_view token) const;

    // A request with the five headers a response copies (RFC 3261 8.2.6.2): an error can be
    // answered.
    [[nodiscard]] bool answerable() const {
        return is_request_ && has(HeaderId::via) && has(HeaderId::from) && has(HeaderId::to) &&
               has(HeaderId::call_id) && has(HeaderId::cseq);
    }

  private:
    friend class Indexer;
    friend class ReadOnce;

    // What values.h has read of this message and is asked for again and again: the top Via and the
    // tags of From and To. Offsets, so that the message stays a value.
    struct Part {
        std::uint16_t begin, end;
    };
    enum class Read : std::uint8_t { not_yet, bad, good };
    struct Memo {
        Read via, from, to;
        bool rport_present;
        std::uint16_t port, rport;
        Part transport, host, params, branch, received, maddr;
        Part from_tag, to_tag;
    };

    [[nodiscard]] std::string_view view(std::size_t begin, std::size_t end) const {
        return {bytes_.data() + begin, end - begin};
    }

    std::string_view bytes_;
    std::size_t skipped_;
    std::size_t head_size_;
    std::size_t start_line_size_;
    std::uint32_t content_length_;
    std::uint16_t method_begin_, method_end_, uri_begin_, uri_end_;
    std::uint16_t status_code_;
    std::uint8_t header_count_;
    ParseStatus status_;
    bool is_request_;
    bool has_content_length_;
    std::array<std::uint8_t, header_id_count> first_;
    std::array<std::uint8_t, header_id_count> last_;
    mutable Memo memo_;  // its Read members are set by parse()
    std::array<Header, max_headers> headers_;
};

}  // namespace gmgate::sip
