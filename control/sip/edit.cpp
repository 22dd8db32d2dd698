#include "control/sip/edit.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "base/bytes.h"
#include "control/sip/characters.h"
#include "control/sip/values.h"

namespace gmgate::sip {
namespace {

// Decimal without a heap.
struct Decimal {
    explicit Decimal(std::size_t n) {
        size = static_cast<std::size_t>(
            std::to_chars(digits.data(), digits.data() + digits.size(), n).ptr - digits.data());
    }
    [[nodiscard]] std::string_view view() const { return {digits.data(), size}; }
    std::array<char, 20> digits{};
    std::size_t size = 0;
};

// "name" and '=' anywhere in the text: reason enough to distrust a header we do not take apart.
bool mentions(std::string_view text, std::string_view name) {
    for (std::size_t at = 0; at + name.size() <= text.size(); ++at) {
        if (!iequals(text.substr(at, name.size()), name)) continue;
        if (at != 0 && is_class(text[at - 1], char_token)) continue;
        auto behind = text.substr(at + name.size());
        while (!behind.empty() && is_class(behind.front(), char_lws)) behind.remove_prefix(1);
        if (!behind.empty() && behind.front() == '=') return true;
    }
    return false;
}

}  // namespace

void Edit::put(std::string_view piece) {
    if (piece.size() > max_text - text_used_) return fault("more text inserted than an edit holds");
    if (piece.empty()) return;
    std::memcpy(text_.data() + text_used_, piece.data(), piece.size());
    text_used_ = static_cast<std::uint16_t>(text_used_ + piece.size());
}

void Edit::put_value(Pieces value) {
    const auto begin = text_used_;
    for (const auto piece : value) put(piece);
    if (text_used_ != begin &&
        !keeps_its_line({text_.data() + begin, static_cast<std::size_t>(text_used_ - begin)})) {
        fault("line break in inserted text");
    }
}

void Edit::put_line(std::string_view name, Pieces value) {
    put_value({name});
    put(": ");
    put_value(value);
    put("\r\n");
}

void Edit::splice(std::size_t begin, std::size_t end, std::uint16_t text_begin) {
    if (count_ == max_splices) return fault("more changes than an edit holds");
    splices_[count_++] = {static_cast<std::uint16_t>(begin), static_cast<std::uint16_t>(end),
                          text_begin, text_used_};
}

std::size_t Edit::offset(std::string_view part) const {
    return static_cast<std::size_t>(part.data() - message_->bytes().data());
}

std::size_t Edit::end_of_headers() const {
    const auto headers = message_->headers();
    return headers.empty() ? message_->start_line_size() : headers.back().line_end;
}

std::size_t Edit::behind_vias() const {
    std::size_t at = message_->start_line_size();
    for (const auto* v = message_->first(HeaderId::via); v != nullptr; v = message_->next(*v))
        at = v->line_end;
    return at;
}

void Edit::insert(std::size_t at, std::string_view name, Pieces value) {
    const auto begin = mark();
    put_line(name, value);
    splice(at, at, begin);
}

void Edit::push_header(HeaderId id, Pieces value) {
    const auto* first = message_->first(id);
    const auto at = first != nullptr      ? first->line_begin
                    : id == HeaderId::via ? message_->start_line_size()
                                          : behind_vias();
    insert(at, header_name(id), value);
}

void Edit::add_header(HeaderId id, Pieces value) {
    std::size_t at = end_of_headers();
    for (const auto* h = message_->first(id); h != nullptr; h = message_->next(*h))
        at = h->line_end;
    insert(at, header_name(id), value);
}

void Edit::append_header(std::string_view name, Pieces value) {
    insert(end_of_headers(), name, value);
}
void Edit::insert_before(const Header& where, std::string_view name, Pieces value) {
    insert(where.line_begin, name, value);
}
void Edit::insert_after(const Header& where, std::string_view name, Pieces value) {
    insert(where.line_end, name, value);
}

void Edit::remove(const Header& line) {
    splice(line.line_begin, line.line_end, mark());
}

void Edit::remove_all(HeaderId id) {
    for (const auto* h = message_->first(id); h != nullptr; h = message_->next(*h)) remove(*h);
}

void Edit::remove_all(std::string_view name) {
    const auto id = header_id(name);
    if (id != HeaderId::unknown) return remove_all(id);
    remove_unnumbered({&name, 1});
}

void Edit::remove_unnumbered(std::span<const std::string_view> names) {
    for (const auto& h : message_->headers()) {
        if (h.id != HeaderId::unknown) continue;
        const auto name = message_->name(h);
        for (const auto& doomed : names) {
            if (iequals(name, doomed)) remove(h);
        }
    }
}

void Edit::replace(const Header& line, Pieces value) {
    const auto begin = mark();
    // An empty value may follow the colon directly; the blank keeps "Name:value" apart for the eye
    // only.
    if (line.value_begin == line.value_end) put(" ");
    put_value(value);
    splice(line.value_begin, line.value_end, begin);
}

void Edit::set_header(HeaderId id, Pieces value) {
    const auto* first = message_->first(id);
    if (first == nullptr) return add_header(id, value);
    replace(*first, value);
    for (const auto* h = message_->next(*first); h != nullptr; h = message_->next(*h)) remove(*h);
}

void Edit::remove_values_of(HeaderId id, const Doomed& doomed) {
    for (const auto* h = message_->first(id); h != nullptr; h = message_->next(*h)) {
        const auto value = message_->value(*h);
        Value v;
        v.header = static_cast<std::uint8_t>(h - message_->headers().data());
        std::size_t kept = 0;
        std::size_t gone = 0;
        // First look: a line that loses everything goes whole, one that loses nothing is left
        // alone.
        const auto each = [&](auto&& what) {
            ValueSplitter splitter(value);
            v.ordinal = 0;
            while (const auto t = splitter.next()) {
                v.text = *t;
                what();
                if (v.ordinal != 0xFF) ++v.ordinal;
            }
            return splitter.balanced();
        };
        if (!each([&] { doomed.call(doomed.context, v) ? ++gone : ++kept; })) {
            fault("unbalanced quotes or brackets in a header to be edited");
            return;
        }
        if (gone == 0) continue;
        if (kept == 0) {
            remove(*h);
            continue;
        }
        // A run of doomed values goes up to the next kept one, a run at the end from the last kept
        // one.
        std::size_t run = 0;
        bool running = false;
        std::size_t kept_end = 0;
        std::size_t end = 0;
        each([&] {
            const auto begin = offset(v.text);
            end = begin + v.text.size();
            if (doomed.call(doomed.context, v)) {
                if (!running) run = begin;
                running = true;
            } else {
                if (running) splice(run, begin, mark());
                running = false;
                kept_end = end;
            }
        });
        if (running) splice(kept_end, end, mark());
    }
}

void Edit::remove_first_value(HeaderId id) {
    const auto first = message_->first_index(id);
    remove_values(id, [first](const Value& v) { return v.header == first && v.ordinal == 0; });
}

void Edit::remove_option_tag(std::string_view tag) {
    for (const auto id : {HeaderId::require, HeaderId::proxy_require, HeaderId::supported}) {
        remove_values(id, [tag](const Value& v) { return iequals(v.text, tag); });
    }
}

void Edit::replace_request_uri(Pieces uri) {
    if (!message_->is_request()) return fault("a response has no Request-URI");
    const auto begin = mark();
    put_value(uri);
    const std::string_view text(text_.data() + begin, static_cast<std::size_t>(text_used_ - begin));
    if (text.empty() || text.find_first_of(" \t\r\n<>\"") != std::string_view::npos) {
        return fault("blank, bracket or line break in a new Request-URI");
    }
    const auto at = offset(message_->request_uri());
    splice(at, at + message_->request_uri().size(), begin);
}

void Edit::set_max_forwards(unsigned value) {
    const Decimal digits(value);
    if (const auto* h = message_->first(HeaderId::max_forwards))
        return replace(*h, {digits.view()});
    insert(behind_vias(), header_name(HeaderId::max_forwards), {digits.view()});
}

void Edit::set_content_length(std::size_t value) {
    const Decimal digits(value);
    set_header(HeaderId::content_length, {digits.view()});
}

void Edit::ensure_content_length() {
    if (!message_->has(HeaderId::content_length)) set_content_length(message_->body().size());
}

void Edit::stamp_top_via(const Endpoint& source) {
    const auto top = message_->first_value(HeaderId::via);
    const auto via = top ? top_via(*message_) : std::nullopt;
    if (!via) return fault("no top Via that can be read");
    const IpAddress::Text address = source.address.text();
    const Decimal port(source.port);
    // The same text is the same address; another text may be, too.
    const bool need_received =
        via->rport_present ||
        (via->host != address.view() && IpAddress::parse(via->host) != source.address);

    bool received_done = false;
    bool rport_done = false;
    std::size_t before = static_cast<std::size_t>(via->params.data() - message_->bytes().data());
    ParamReader reader(via->params);
    while (const auto p = reader.next()) {
        const auto at = offset(p->whole);
        const auto end = at + p->whole.size();
        const bool is_received = is_name(p->name, "received");
        const bool is_rport = is_name(p->name, "rport");
        if ((is_received && need_received && !received_done) || (is_rport && !rport_done)) {
            const auto begin = mark();
            put(is_rport ? "rport=" : "received=");
            put(is_rport ? port.view() : address.view());
            splice(at, end, begin);
            (is_rport ? rport_done : received_done) = true;
        } else if (is_received || is_rport) {
            splice(before, end, mark());
        }
        before = end;
    }
    if (need_received && !received_done) {
        const auto end = offset(*top) + top->size();
        const auto begin = mark();
        put(";received=");
        put(address.view());
        splice(end, end, begin);
    }
}

void Edit::remove_auth_params(HeaderId id, std::initializer_list<std::string_view> names) {
    const auto doomed = [names](std::string_view name) {
        return std::ranges::any_of(names, [name](std::string_view n) {
            return n.size() == name.size() && iequals(n, name);
        });
    };
    for (const auto* h = message_->first(id); h != nullptr; h = message_->next(*h)) {
        const auto value = message_->value(*h);
        if (!is_name(auth_scheme(value), "digest")) {
            // Two challenges in one line, or no scheme at all: what we cannot read must not hide a
            // key.
            for (const auto n : names) {
                if (mentions(value, n))
                    return fault("parameter to be removed stands outside Digest");
            }
            continue;
        }
        std::size_t run = 0;
        std::size_t kept_end = 0;
        std::size_t end = 0;
        bool running = false;
        AuthParamReader reader(value);
        while (const auto p = reader.next()) {
            const auto begin = offset(p->whole);
            end = begin + p->whole.size();
            if (doomed(p->name)) {
                if (!running) run = begin;
                running = true;
            } else {
                if (running) splice(run, begin, mark());
                running = false;
                kept_end = end;
            }
        }
        if (reader.bad()) return fault("authentication header that cannot be taken apart");
        if (running) splice(kept_end == 0 ? run : kept_end, end, mark());
    }
}

void Edit::set_auth_param(HeaderId id, std::string_view name, std::string_view value) {
    if (value.find_first_of("\"\\\r\n") != std::string_view::npos)
        return fault("quote in a parameter to be set");
    for (const auto* h = message_->first(id); h != nullptr; h = message_->next(*h)) {
        const auto text = message_->value(*h);
        if (!is_name(auth_scheme(text), "digest")) {
            if (mentions(text, name)) return fault("parameter to be set stands outside Digest");
            continue;
        }
        bool done = false;
        bool any = false;
        std::size_t end = h->value_end;
        AuthParamReader reader(text);
        while (const auto p = reader.next()) {
            const auto before = end;
            const auto at = offset(p->whole);
            end = at + p->whole.size();
            if (iequals(p->name, name)) {
                const auto begin = mark();
                if (done) {
                    splice(before, end, begin);
                } else {
                    put_param(name, value);
                    splice(at, end, begin);
                    done = true;
                }
            }
            any = true;
        }
        if (reader.bad()) return fault("authentication header that cannot be taken apart");
        if (!done) {
            const auto begin = mark();
            put(any ? ", " : " ");
            put_param(name, value);
            splice(end, end, begin);
        }
    }
}

void Edit::put_param(std::string_view name, std::string_view value) {
    put(name);
    put("=\"");
    put(value);
    put("\"");
}

Result<std::size_t> Edit::prepare() {
    if (fault_ != nullptr) return fail(ErrorKind::invalid, fault_);
    // Few, and nearly in order already. Pure insertions go before what begins at the same octet,
    // and keep their order.
    const auto before = [](const Splice& a, const Splice& b) {
        if (a.begin != b.begin) return a.begin < b.begin;
        const bool a_inserts = a.begin == a.end;
        const bool b_inserts = b.begin == b.end;
        return a_inserts && !b_inserts;
    };
    for (std::size_t i = 1; i < count_; ++i) {
        const Splice moved = splices_[i];
        std::size_t j = i;
        for (; j > 0 && before(moved, splices_[j - 1]); --j) splices_[j] = splices_[j - 1];
        splices_[j] = moved;
    }
    std::size_t size = message_->bytes().size();
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count_; ++i) {
        const Splice s = splices_[i];
        if (kept != 0 && s.begin < splices_[kept - 1].end) {
            Splice& last = splices_[kept - 1];
            // What is cut out twice is cut out once; text must not land in, nor be replaced within,
            // what goes.
            const bool pure =
                s.begin < s.end && s.text_begin == s.text_end && last.text_begin == last.text_end;
            if (!pure) {
                fault("two changes overlap");
                return fail(ErrorKind::invalid, fault_);
            }
            if (s.end > last.end) {
                size -= static_cast<std::size_t>(s.end - last.end);
                last.end = s.end;
            }
            continue;
        }
        size -= static_cast<std::size_t>(s.end - s.begin);
        size += static_cast<std::size_t>(s.text_end - s.text_begin);
        splices_[kept++] = s;
    }
    count_ = static_cast<std::uint16_t>(kept);
    if (size > max_message)
        return fail(ErrorKind::exhausted, "edited message larger than 65535 octets");
    return size;
}

void Edit::write(char* out) const {
    const char* const in = message_->bytes().data();
    std::size_t at = 0;
    for (std::size_t i = 0; i < count_; ++i) {
        const Splice& s = splices_[i];
        std::memcpy(out, in + at, s.begin - at);
        out += s.begin - at;
        const auto text = static_cast<std::size_t>(s.text_end - s.text_begin);
        std::memcpy(out, text_.data() + s.text_begin, text);
        out += text;
        at = s.end;
    }
    std::memcpy(out, in + at, message_->bytes().size() - at);
}

Result<void> Edit::apply(std::string& out) {
    const auto size = prepare();
    if (!size) return std::unexpected(size.error());
    out.resize(*size);
    write(out.data());
    return {};
}

Result<std::size_t> Edit::apply(std::span<char> out) {
    const auto size = prepare();
    if (!size) return std::unexpected(size.error());
    if (*size > out.size())
        return fail(ErrorKind::exhausted, "edited message does not fit the buffer");
    write(out.data());
    return *size;
}

}  // namespace gmgate::sip
