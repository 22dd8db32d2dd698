#pragma once
// A proxy's changes to a message, as splices on its original bytes: what we do not understand
// passes unchanged, and nothing is serialised anew (docs/decisions/0001). Collect the changes, then
// apply() copies the message once.
//
//   Edit edit(request);
//   edit.push_via({"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK", branch});
//   edit.set_max_forwards(69);
//   edit.remove_all(HeaderId::security_client);
//   edit.remove_option_tag("sec-agree");
//   if (auto done = edit.apply(out); !done) …
//
// Texts handed in are copied (8 KiB in all); the Message and its bytes must live until apply(). A
// fault (no room, changes that overlap, a header that cannot be taken apart) sticks: the first one
// is what apply() returns, and nothing is written. A message whose edit failed must not be
// forwarded. No allocation but for an error's text and the caller's string. About 11 KB, on the
// stack; one per message. One thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/ip.h"
#include "base/result.h"
#include "control/sip/message.h"

namespace gmgate::sip {

class Edit {
  public:
    static constexpr std::size_t max_splices = 96;
    static constexpr std::size_t max_text = 8192;  // octets of inserted text
    using Pieces = std::initializer_list<std::string_view>;

    // `message` parsed (status ok, or an error that left what the caller edits intact).
    explicit Edit(const Message& message) : message_(&message) {}
    Edit(const Edit&) = delete;
    Edit& operator=(const Edit&) = delete;

    // ---- whole header lines; a value is given without name and CRLF ----
    // Before the first line of the same id, so that it is the topmost value (Via, Record-Route,
    // Route, Path); if there is none, a Via right behind the start line, others behind the Vias. Of
    // two pushes the first stays on top.
    void push_header(HeaderId id, Pieces value);
    void push_via(Pieces value) { push_header(HeaderId::via, value); }
    // Behind the last line of the same id; behind the last header if there is none.
    void add_header(HeaderId id, Pieces value);
    // Any name; behind the last header.
    void append_header(std::string_view name, Pieces value);
    // Before / behind a given line of the message.
    void insert_before(const Header& where, std::string_view name, Pieces value);
    void insert_after(const Header& where, std::string_view name, Pieces value);
    void remove(const Header& line);
    void remove_all(HeaderId id);
    // Also headers we have no number for; any case.
    void remove_all(std::string_view name);
    // Headers that HeaderId does not know, of these names (any case; none twice), in one pass.
    void remove_unnumbered(std::span<const std::string_view> names);
    // Replaces the value of a line, keeps the name as it came.
    void replace(const Header& line, Pieces value);
    // Replaces the first line's value and removes the other lines of that id; adds the header if it
    // is not there.
    void set_header(HeaderId id, Pieces value);

    // ---- values of comma-separated headers ----
    // Removes each value `doomed` says true for; a line that loses all its values goes. One call
    // per header id. `doomed` may be asked twice about the same value.
    template <class Predicate>
    void remove_values(HeaderId id, Predicate&& doomed) {
        remove_values_of(id, {&doomed, [](void* p, const Value& v) -> bool {
                                  return (*static_cast<std::remove_reference_t<Predicate>*>(p))(v);
                              }});
    }
    // The topmost value: our own Via of a response, the Route that named us.
    void remove_first_value(HeaderId id);
    // Takes an option tag out of Require, Proxy-Require and Supported, any case (B4).
    void remove_option_tag(std::string_view tag);

    // ---- the start line and the small fields ----
    void replace_request_uri(Pieces uri);
    // Replaces, or adds behind the Vias.
    void set_max_forwards(unsigned value);
    void set_content_length(std::size_t value);
    // Adds Content-Length if there is none (a datagram that goes on over a stream).
    void ensure_content_length();

    // RFC 3261 18.2.1, RFC 3581: received on the top Via when its sent-by is not the source address
    // or when it has rport; the value of rport when it asks for one. What the sender wrote there
    // itself is replaced.
    void stamp_top_via(const Endpoint& source);

    // ---- Authorization, WWW-Authenticate and their kin ----
    // In every Digest line of that id. Any case, quoted or not, also when a parameter stands there
    // twice. A line of another scheme is left alone, and is a fault if it mentions one of the
    // names: what we cannot read must not carry a key past us.
    void remove_auth_params(HeaderId id, std::initializer_list<std::string_view> names);
    // integrity-protected (A11): name="value", likewise; what stood there under that name goes.
    void set_auth_param(HeaderId id, std::string_view name, std::string_view value);

    // ---- out ----
    [[nodiscard]] bool ok() const { return fault_ == nullptr; }
    // Size apply() will write (upper bound before it ran).
    [[nodiscard]] std::size_t size_hint() const { return message_->bytes().size() + text_used_; }
    // Writes the edited message; the string's capacity is reused. invalid: fault or overlap.
    Result<void> apply(std::string& out);
    // Same into a caller's buffer; returns the octets written. exhausted: it does not fit.
    Result<std::size_t> apply(std::span<char> out);

  private:
    struct Splice {
        std::uint16_t begin, end;            // octets of the message it takes away
        std::uint16_t text_begin, text_end;  // in text_
    };
    struct Doomed {
        void* context;
        bool (*call)(void*, const Value&);
    };
    void remove_values_of(HeaderId id, const Doomed& doomed);
    void splice(std::size_t begin, std::size_t end, std::uint16_t text_begin);
    void insert(std::size_t at, std::string_view name, Pieces value);
    [[nodiscard]] std::uint16_t mark() const { return text_used_; }
    void put(std::string_view piece);
    void put_value(Pieces value);
    void put_line(std::string_view name, Pieces value);
    void put_param(std::string_view name, std::string_view value);
    void fault(const char* text) {
        if (fault_ == nullptr) fault_ = text;
    }
    // Sorts, checks for overlaps, and tells the size of the result.
    Result<std::size_t> prepare();
    void write(char* out) const;
    [[nodiscard]] std::size_t offset(std::string_view part) const;
    [[nodiscard]] std::size_t end_of_headers() const;
    [[nodiscard]] std::size_t behind_vias() const;

    const Message* message_;
    const char* fault_ = nullptr;
    std::uint16_t text_used_ = 0;
    std::uint16_t count_ = 0;
    std::array<Splice, max_splices> splices_;  // NOLINT: filled as used
    std::array<char, max_text> text_;          // NOLINT
};

}  // namespace gmgate::sip
