#include "home/cx_log.h"

#include <fmt/format.h>

#include <chrono>
#include <ctime>
#include <utility>

namespace gmgate::home {

namespace {
template <class Array>
void count(Array& counters, CxResult result) {
    ++counters[static_cast<std::size_t>(result)];
}
// A stranger's text, on one line and in one piece.
std::string visible(std::string_view text) {
    constexpr std::size_t longest = 256;
    std::string out;
    for (const char c : text.substr(0, longest)) {
        const auto octet = static_cast<unsigned char>(c);
        if (octet > 0x20 && octet < 0x7f && c != '\\') {
            out += c;
        } else {
            out += fmt::format("\\x{:02x}", octet);
        }
    }
    return text.size() > longest ? out + "…" : out;
}
}  // namespace

std::string CxLog::who(std::string_view impi, std::string_view impu) const {
    return speaks() ? fmt::format("impi={} impu={}", visible(impi), visible(impu)) : std::string{};
}

std::string CxLog::before(std::string_view impi) const {
    return speaks() && look_ ? look_(impi) : std::string{};
}

std::string CxLog::change(std::string_view impi, const std::string& before) const {
    if (before.empty()) return {};
    return fmt::format("; flag {} → {}", before, look_(impi));
}

void CxLog::tell(std::string_view impi, const std::string& text) {
    log::at(level_, "cx", "{}", text);
    if (!remembers_) return;
    const auto now =
        std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
    const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
    std::tm tm{};
    std::array<char, 32> date{};
    if (::gmtime_r(&seconds, &tm) != nullptr)
        (void)std::strftime(date.data(), date.size(), "%Y-%m-%d %H:%M:%S", &tm);
    if (lines_.size() >= remembered) lines_.pop_front();
    lines_.push_back({visible(impi), fmt::format("{}.{:03} UTC {}", date.data(),
                                                 now.time_since_epoch().count() % 1000, text)});
}

void CxLog::query(std::string_view impi, std::string_view impu, QueryAnswer answer) {
    hss_.query(impi, impu,
               [this, w = who(impi, impu), who_is = speaks() ? std::string(impi) : std::string{},
                answer = std::move(answer)](CxResult result, const UserStatus& status) mutable {
                   count(counters_.query, result);
                   if (speaks()) {
                       tell(who_is, fmt::format("Cx Query {} → {}{}{}", w, name(result),
                                                status.server_name.empty() ? "" : ", S-CSCF ",
                                                status.server_name));
                   }
                   answer(result, status);
               });
}

void CxLog::av_request(const AvRequest& request, AvAnswer answer) {
    const bool resynchronisation = request.resynchronisation != nullptr;
    if (resynchronisation) ++counters_.resynchronisations;
    hss_.av_request(request, [this, w = who(request.impi, request.impu), resynchronisation,
                              impi = speaks() ? std::string(request.impi) : std::string{},
                              flag = before(request.impi), answer = std::move(answer)](
                                 CxResult result, std::vector<AuthVector> vectors) mutable {
        count(counters_.av_request, result);
        if (speaks()) {
            tell(impi,
                 fmt::format("Cx Av-Req {}{} → {}, vectors: {} [CM1 Av-Req, CM2 Av-Req-Resp]{}", w,
                             resynchronisation ? " with RAND, AUTS" : "", name(result),
                             vectors.size(), change(impi, flag)));
        }
        answer(result, std::move(vectors));
    });
}

void CxLog::put(const PutRequest& request, PutAnswer answer) {
    ++counters_.put_by_assignment[static_cast<std::size_t>(request.assignment)];
    hss_.put(request, [this, w = who(request.impi, request.impu), assignment = request.assignment,
                       impi = speaks() ? std::string(request.impi) : std::string{},
                       flag = before(request.impi),
                       answer = std::move(answer)](CxResult result) mutable {
        count(counters_.put, result);
        if (speaks()) {
            const bool clears = assignment == ServerAssignment::authentication_failure ||
                                assignment == ServerAssignment::authentication_timeout;
            tell(impi, fmt::format("Cx Put {} {} → {} [CM3 Put{}, CM4 Put-Resp]{}", w,
                                   name(assignment), name(result),
                                   clears ? " \"clear S-CSCF name\"" : "", change(impi, flag)));
        }
        answer(result);
    });
}

void CxLog::pull(std::string_view impi, std::string_view impu, PullAnswer answer) {
    hss_.pull(impi, impu,
              [this, w = who(impi, impu), who_is = speaks() ? std::string(impi) : std::string{},
               answer = std::move(answer)](CxResult result, const Profile& profile) mutable {
                  count(counters_.pull, result);
                  if (speaks()) {
                      tell(who_is, fmt::format("Cx Pull {} → {}, IMPUs: {}", w, name(result),
                                               profile.implicit_set.size()));
                  }
                  answer(result, profile);
              });
}

}  // namespace gmgate::home
