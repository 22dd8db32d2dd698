#pragma once
// Makes Cx visible: a line and a counter for each operation and its result. Stands before any Hss.

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "home/hss.h"

namespace gmgate::home {

struct CxCounters {
    static constexpr std::size_t results = static_cast<std::size_t>(CxResult::unreachable) + 1;
    static constexpr std::size_t assignments =
        static_cast<std::size_t>(ServerAssignment::authentication_timeout) + 1;
    // Answers by CxResult.
    std::array<std::uint64_t, results> query{};
    std::array<std::uint64_t, results> av_request{};
    std::array<std::uint64_t, results> put{};
    std::array<std::uint64_t, results> pull{};
    // Put requests by ServerAssignment.
    std::array<std::uint64_t, assignments> put_by_assignment{};
    std::uint64_t resynchronisations = 0;  // av_requests with AUTS
};

// Lines such as "Cx Av-Req impi=… impu=… → ok, 1 vector", at `level`. Identities only, never a key
// (S1). `hss` must outlive it; late answers must not come after it has gone. One thread.
class CxLog final : public Hss {
  public:
    CxLog(Hss& hss, log::Level level) : hss_(hss), level_(level) {}
    // Remembers the latest lines, too, for `gmhome ctl cx`.
    static constexpr std::size_t remembered = 1000;
    void remember() { remembers_ = true; }
    // What the HSS holds of an IMPI, "registered, S-CSCF sip:…": told before and after each
    // operation. Without it that part is left out.
    using Look = std::function<std::string(std::string_view impi)>;
    void look_with(Look look) { look_ = std::move(look); }

    struct Line {
        std::string impi;  // as `text` writes it: a stranger's is cut and stays on one line
        std::string text;
    };
    [[nodiscard]] const std::deque<Line>& lines() const { return lines_; }
    [[nodiscard]] bool remembers() const { return remembers_; }

    void query(std::string_view impi, std::string_view impu, QueryAnswer answer) override;
    void av_request(const AvRequest& request, AvAnswer answer) override;
    void put(const PutRequest& request, PutAnswer answer) override;
    void pull(std::string_view impi, std::string_view impu, PullAnswer answer) override;

    [[nodiscard]] const CxCounters& counters() const { return counters_; }

  private:
    // "impi=… impu=…" if lines are written at all, else empty: nothing is formatted for nobody.
    [[nodiscard]] std::string who(std::string_view impi, std::string_view impu) const;
    [[nodiscard]] bool speaks() const { return remembers_ || log::enabled(level_); }
    // What it held before; "; flag not_registered, … → registered, S-CSCF sip:…".
    [[nodiscard]] std::string before(std::string_view impi) const;
    [[nodiscard]] std::string change(std::string_view impi, const std::string& before) const;
    void tell(std::string_view impi, const std::string& text);

    Hss& hss_;
    log::Level level_;
    CxCounters counters_;
    Look look_;
    bool remembers_ = false;
    std::deque<Line> lines_;
};

}  // namespace gmgate::home
