#include "home/cx_log.h"

#include <fmt/format.h>

#include <utility>

namespace gmgate::home {

namespace {
template <class Array>
void count(Array& counters, CxResult result) {
    ++counters[static_cast<std::size_t>(result)];
}
}  // namespace

std::string CxLog::who(std::string_view impi, std::string_view impu) const {
    return log::enabled(level_) ? fmt::format("impi={} impu={}", impi, impu) : std::string{};
}

void CxLog::query(std::string_view impi, std::string_view impu, QueryAnswer answer) {
    hss_.query(impi, impu,
               [this, w = who(impi, impu), answer = std::move(answer)](
                   CxResult result, const UserStatus& status) mutable {
                   count(counters_.query, result);
                   log::at(level_, "cx", "Cx Query {} → {}{}{}", w, name(result),
                           status.server_name.empty() ? "" : ", S-CSCF ", status.server_name);
                   answer(result, status);
               });
}

void CxLog::av_request(const AvRequest& request, AvAnswer answer) {
    const bool resynchronisation = request.resynchronisation != nullptr;
    if (resynchronisation) ++counters_.resynchronisations;
    hss_.av_request(request, [this, w = who(request.impi, request.impu), resynchronisation,
                              answer = std::move(answer)](CxResult result,
                                                          std::vector<AuthVector> vectors) mutable {
        count(counters_.av_request, result);
        log::at(level_, "cx", "Cx Av-Req {}{} → {}, vectors: {}", w,
                resynchronisation ? " with RAND, AUTS" : "", name(result), vectors.size());
        answer(result, std::move(vectors));
    });
}

void CxLog::put(const PutRequest& request, PutAnswer answer) {
    ++counters_.put_by_assignment[static_cast<std::size_t>(request.assignment)];
    hss_.put(request, [this, w = who(request.impi, request.impu), assignment = request.assignment,
                       answer = std::move(answer)](CxResult result) mutable {
        count(counters_.put, result);
        log::at(level_, "cx", "Cx Put {} {} → {}", w, name(assignment), name(result));
        answer(result);
    });
}

void CxLog::pull(std::string_view impi, std::string_view impu, PullAnswer answer) {
    hss_.pull(impi, impu,
              [this, w = who(impi, impu), answer = std::move(answer)](
                  CxResult result, const Profile& profile) mutable {
                  count(counters_.pull, result);
                  log::at(level_, "cx", "Cx Pull {} → {}, IMPUs: {}", w, name(result),
                          profile.implicit_set.size());
                  answer(result, profile);
              });
}

}  // namespace gmgate::home
