#include "control/secagree/mechanism.h"

#include <algorithm>
#include <numeric>

#include "base/bytes.h"
#include "control/sip/characters.h"
#include "control/sip/values.h"

namespace gmgate::secagree {
namespace {

// FNV-1a over case-folded text. Not keyed: it only tells apart what we would ignore anyway.
class Hash {
  public:
    Hash& add(std::string_view text) {
        for (const char c : text) octet(static_cast<std::uint8_t>(ascii_lower(c)));
        octet(0);
        return *this;
    }
    [[nodiscard]] std::uint64_t value() const { return hash_; }

  private:
    void octet(std::uint8_t o) { hash_ = (hash_ ^ o) * 0x100000001B3ULL; }
    std::uint64_t hash_ = 0xCBF29CE484222325ULL;
};

// Without leading zeros: "0012" and "12" say the same.
std::string_view plain_number(std::string_view text) {
    if (text.empty() || !sip::all_of_class(text, sip::char_digit)) return text;
    const auto at = text.find_first_not_of('0');
    return at == std::string_view::npos ? text.substr(text.size() - 1) : text.substr(at);
}

// What the parameters of one mechanism said, before judgement.
struct Raw {
    std::optional<std::string_view> alg, ealg, prot, mod, spi_c, spi_s, port_c, port_s, q;
};

// The slot of a parameter we know; nullptr: unknown.
std::optional<std::string_view>* slot(Raw& raw, std::string_view name) {
    switch (name.size()) {
        case 1:
            return iequals(name, "q") ? &raw.q : nullptr;
        case 3:
            return iequals(name, "alg") ? &raw.alg : iequals(name, "mod") ? &raw.mod : nullptr;
        case 4:
            return iequals(name, "ealg") ? &raw.ealg : iequals(name, "prot") ? &raw.prot : nullptr;
        case 5:
            return iequals(name, "spi-c")   ? &raw.spi_c
                   : iequals(name, "spi-s") ? &raw.spi_s
                                            : nullptr;
        case 6:
            return iequals(name, "port-c")   ? &raw.port_c
                   : iequals(name, "port-s") ? &raw.port_s
                                             : nullptr;
        default:
            return nullptr;
    }
}

std::uint64_t hash_param(const sip::Param& p) {
    return Hash().add(p.name).add(plain_number(p.value)).value();
}

Mechanism& set(Mechanism& m, Verdict verdict, Fault fault) {
    m.verdict = verdict;
    m.fault = fault;
    return m;
}

bool good_port(std::optional<std::string_view> text, sa::Port& out) {
    const auto n = sip::parse_number(*text, 65535);
    // 5060 and 5061 are the unprotected ports of everybody (A5).
    if (!n || *n == 0 || *n == 5060 || *n == 5061) return false;
    out = static_cast<sa::Port>(*n);
    return true;
}

bool good_spi(std::optional<std::string_view> text, sa::Spi& out) {
    const auto n = sip::parse_number(*text);
    if (!n || *n == 0) return false;
    out = *n;
    return true;
}

void append_numbers(std::string& out, const ServerList& list) {
    out += ";spi-c=" + std::to_string(list.spi_c) + ";spi-s=" + std::to_string(list.spi_s) +
           ";port-c=" + std::to_string(list.port_c) + ";port-s=" + std::to_string(list.port_s);
}

// q of the i-th of n: one digit as long as that is enough, three beyond.
std::string q_text(std::size_t i, std::size_t n) {
    if (n <= 9) return "0." + std::to_string(9 - i);
    std::string digits = std::to_string(1000 * (n - i) / (n + 1));
    digits.insert(0, 3 - std::min<std::size_t>(3, digits.size()), '0');
    return "0." + digits;
}

std::string write_list(const ServerList& list, bool with_q) {
    std::string numbers;  // the same behind each mechanism
    append_numbers(numbers, list);
    std::string out;
    out.reserve(list.order.size() * 128);
    for (std::size_t i = 0; i < list.order.size(); ++i) {
        if (i != 0) out += ", ";
        out += "ipsec-3gpp";
        if (with_q) out += ";q=" + q_text(i, list.order.size());
        out += ";alg=";
        out += name(list.order[i].integrity);
        out += ";ealg=";
        out += name(list.order[i].encryption);
        out += ";prot=esp;mod=";
        out += list.mode == Mode::udp_enc_tun ? "UDP-enc-tun" : "trans";
        out += numbers;
    }
    return out;
}

}  // namespace

bool Mechanism::same_meaning(const Mechanism& o) const {
    return verdict == o.verdict && suite == o.suite && mode == o.mode && spi_c == o.spi_c &&
           spi_s == o.spi_s && port_c == o.port_c && port_s == o.port_s && rest == o.rest;
}

Mechanism parse_mechanism(std::string_view text) {
    Mechanism m;
    auto body = sip::trim_lws(text);
    std::size_t n = 0;
    while (n < body.size() && sip::is_class(body[n], sip::char_token)) ++n;
    const auto mechanism_name = body.substr(0, n);
    if (mechanism_name.empty()) return set(m, Verdict::malformed, Fault::syntax);
    const bool ipsec = iequals(mechanism_name, "ipsec-3gpp");
    if (!ipsec) m.rest = Hash().add(mechanism_name).value();

    Raw raw;
    sip::ParamReader reader(body.substr(n));
    bool twice = false;
    while (const auto p = reader.next()) {
        auto* known = slot(raw, p->name);
        if (known == nullptr) {
            m.rest += hash_param(*p);  // a sum: the order says nothing
        } else if (known->has_value()) {
            twice = true;
        } else {
            *known = p->value;
            // What is no number of ours, nor default, has to show in `rest`.
            if (!ipsec && known != &raw.q) m.rest += hash_param(*p);
        }
    }
    if (reader.bad() || twice) return set(m, Verdict::malformed, Fault::syntax);
    if (raw.q) {
        const auto q = sip::parse_q(*raw.q);
        if (!q) return set(m, Verdict::malformed, Fault::syntax);
        m.q = *q;
    }
    if (!ipsec) return set(m, Verdict::skip, Fault::unknown_mechanism);

    m.has_ealg = raw.ealg.has_value();
    if (!raw.alg || raw.alg->empty()) return set(m, Verdict::malformed, Fault::no_alg);
    if (!raw.spi_c || !raw.spi_s) return set(m, Verdict::malformed, Fault::no_spi);
    if (!good_spi(raw.spi_c, m.spi_c) || !good_spi(raw.spi_s, m.spi_s) || m.spi_c == m.spi_s) {
        return set(m, Verdict::malformed, Fault::bad_spi);
    }
    if (!raw.port_c || !raw.port_s) return set(m, Verdict::malformed, Fault::no_port);
    if (!good_port(raw.port_c, m.port_c) || !good_port(raw.port_s, m.port_s) ||
        m.port_c == m.port_s) {
        return set(m, Verdict::malformed, Fault::bad_port);
    }

    if (raw.mod) {
        if (iequals(*raw.mod, "trans")) {
            m.mode = Mode::transport;
        } else if (iequals(*raw.mod, "UDP-enc-tun")) {
            m.mode = Mode::udp_enc_tun;
        } else {
            m.mode = Mode::other;
            m.rest += Hash().add("mod").add(*raw.mod).value();
        }
    }
    const auto integrity = sa::parse_integrity(*raw.alg);
    const auto encryption =
        raw.ealg ? sa::parse_encryption(*raw.ealg) : std::optional(sa::Encryption::null);
    const bool known = integrity && encryption && sa::is_valid({*integrity, *encryption});
    if (known) {
        m.suite = {*integrity, *encryption};
    } else {
        m.rest += Hash().add("alg").add(*raw.alg).value();
        m.rest += Hash().add("ealg").add(raw.ealg.value_or("null")).value();
    }
    const bool esp = !raw.prot || iequals(*raw.prot, "esp");
    if (!esp) m.rest += Hash().add("prot").add(*raw.prot).value();

    if (!esp) return set(m, Verdict::skip, Fault::unknown_protocol);
    if (m.mode == Mode::other) return set(m, Verdict::skip, Fault::unknown_mode);
    if (!known) return set(m, Verdict::skip, Fault::unknown_algorithm);
    return set(m, Verdict::accept, Fault::none);
}

void MechanismList::clear() {
    count_ = 0;
    too_many_ = false;
    unbalanced_ = false;
}

void MechanismList::parse(const sip::Message& message, sip::HeaderId id) {
    clear();
    for (const auto* h = message.first(id); h != nullptr && !too_many_; h = message.next(*h)) {
        add(message.value(*h));
    }
}

void MechanismList::add(std::string_view value) {
    sip::ValueSplitter splitter(value);
    while (const auto text = splitter.next()) {
        if (count_ == capacity) {
            too_many_ = true;
            return;
        }
        items_[count_++] = parse_mechanism(*text);
    }
    unbalanced_ = unbalanced_ || !splitter.balanced();
}

const Mechanism* MechanismList::malformed() const {
    for (const auto& m : mechanisms()) {
        if (m.verdict == Verdict::malformed) return &m;
    }
    return nullptr;
}

std::expected<Choice, OfferError> choose(const MechanismList& offer, const ChoicePolicy& policy) {
    if (offer.empty()) return std::unexpected(OfferError::absent);
    if (offer.too_many()) return std::unexpected(OfferError::too_many);
    if (offer.is_malformed()) return std::unexpected(OfferError::malformed);
    const auto mode = policy.udp_enc_tun ? Mode::udp_enc_tun : Mode::transport;
    for (const auto& suite : policy.order) {
        for (const auto& m : offer.mechanisms()) {
            if (m.verdict != Verdict::accept || m.mode != mode || m.suite != suite) continue;
            if (!m.has_ealg && !policy.ealg_absent_is_null) continue;
            return Choice{suite, m};
        }
    }
    return std::unexpected(OfferError::unacceptable);
}

std::string security_server(const ServerList& list) {
    return write_list(list, true);
}
std::string security_client(const ServerList& list, bool with_q) {
    return write_list(list, with_q);
}

VerifyResult check_verify(const MechanismList& verify, const ServerList& sent) {
    if (verify.empty()) return VerifyResult::absent;
    if (verify.is_malformed()) return VerifyResult::malformed;
    const auto got = verify.mechanisms();
    const auto n = got.size();
    if (n != sent.order.size()) return VerifyResult::different_list;

    std::array<std::uint8_t, MechanismList::capacity> order{};
    std::iota(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n), std::uint8_t{0});
    for (std::size_t i = 1; i < n; ++i) {  // stable, no heap
        const auto moved = order[i];
        std::size_t j = i;
        for (; j > 0 && got[moved].q > got[order[j - 1]].q; --j) order[j] = order[j - 1];
        order[j] = moved;
    }

    bool in_order = true;
    for (std::size_t i = 0; i < n; ++i) {
        const auto& m = got[order[i]];
        if (m.verdict != Verdict::accept || m.mode != sent.mode)
            return VerifyResult::different_list;
        const auto wanted = std::ranges::count(sent.order, m.suite);
        const auto found = std::ranges::count_if(got, [&](const Mechanism& g) {
            return g.verdict == Verdict::accept && g.suite == m.suite;
        });
        if (wanted != found) return VerifyResult::different_list;
        in_order = in_order && m.suite == sent.order[i];
    }
    for (const auto& m : got) {
        if (m.spi_c != sent.spi_c || m.spi_s != sent.spi_s || m.port_c != sent.port_c ||
            m.port_s != sent.port_s) {
            return VerifyResult::different_numbers;
        }
    }
    return in_order ? VerifyResult::equal : VerifyResult::different_order;
}

bool same_offer(const MechanismList& a, const MechanismList& b) {
    if (a.is_malformed() || b.is_malformed()) return false;
    const auto left = a.mechanisms();
    const auto right = b.mechanisms();
    if (left.size() != right.size()) return false;
    std::array<bool, MechanismList::capacity> taken{};
    for (const auto& m : left) {
        bool found = false;
        for (std::size_t i = 0; i < right.size() && !found; ++i) {
            if (taken[i] || !m.same_meaning(right[i])) continue;
            taken[i] = true;
            found = true;
        }
        if (!found) return false;
    }
    return true;
}

std::string_view text(Fault fault) {
    switch (fault) {
        case Fault::none:
            return "none";
        case Fault::unknown_mechanism:
            return "mechanism is not ipsec-3gpp";
        case Fault::unknown_algorithm:
            return "alg and ealg are no pair we know";
        case Fault::unknown_protocol:
            return "prot is not esp";
        case Fault::unknown_mode:
            return "mod is neither trans nor UDP-enc-tun";
        case Fault::syntax:
            return "not a mechanism with parameters, or a parameter twice";
        case Fault::no_alg:
            return "alg is missing";
        case Fault::no_spi:
            return "spi-c or spi-s is missing";
        case Fault::bad_spi:
            return "spi-c and spi-s must differ and be in 1-4294967295";
        case Fault::no_port:
            return "port-c or port-s is missing";
        case Fault::bad_port:
            return "port-c and port-s must differ, be in 1-65535, and not be 5060 or 5061";
    }
    return "unknown";
}

std::string_view text(OfferError error) {
    switch (error) {
        case OfferError::absent:
            return "no Security-Client";
        case OfferError::malformed:
            return "Security-Client is malformed";
        case OfferError::too_many:
            return "Security-Client holds more than 32 mechanisms";
        case OfferError::unacceptable:
            return "no mechanism of Security-Client is acceptable";
    }
    return "unknown";
}

int response_code(OfferError error) {
    switch (error) {
        case OfferError::absent:
            return 421;
        case OfferError::unacceptable:
            return 494;
        case OfferError::malformed:
        case OfferError::too_many:
            return 400;
    }
    return 400;
}

std::string_view text(VerifyResult result) {
    switch (result) {
        case VerifyResult::equal:
            return "equal";
        case VerifyResult::absent:
            return "no Security-Verify";
        case VerifyResult::malformed:
            return "Security-Verify is malformed";
        case VerifyResult::different_list:
            return "Security-Verify lists other mechanisms than we sent";
        case VerifyResult::different_order:
            return "Security-Verify has another order of preference than we sent";
        case VerifyResult::different_numbers:
            return "Security-Verify has other SPIs or ports than we sent";
    }
    return "unknown";
}

}  // namespace gmgate::secagree
