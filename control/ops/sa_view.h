#pragma once
// The SA database and the packet layer's counters as the operator's API sees them.

#include "control/ops/views.h"
#include "sa/database.h"

namespace gmgate::ops {

class SaDatabaseView final : public SaView {
  public:
    // Both outlive the view. Control thread.
    SaDatabaseView(const sa::SaDatabase& database, const sa::Backend& backend)
        : database_(database), backend_(backend) {}

    Cursor scan(const Query& query, Cursor cursor, std::size_t budget, bool detail,
                const std::function<void(const SaRow&)>& visit) const override;
    [[nodiscard]] std::vector<std::pair<std::string, std::size_t>> count() const override;

  private:
    [[nodiscard]] SaRow row_of(const sa::SaSet& set, const sa::User& user, bool detail) const;

    const sa::SaDatabase& database_;
    const sa::Backend& backend_;
};

}  // namespace gmgate::ops
