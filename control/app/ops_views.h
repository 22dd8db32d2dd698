#pragma once
// The operator's API sees the gateway through these adapters.

#include "base/clock.h"
#include "control/ops/views.h"
#include "control/registration/gateway.h"
#include "sa/database.h"

namespace gmgate::app {

class DatabaseSaView final : public ops::SaView {
  public:
    DatabaseSaView(const sa::SaDatabase& database, const sa::Backend& backend) : database_(database), backend_(backend) {}
    ops::Cursor scan(const ops::Query& query, ops::Cursor cursor, std::size_t budget, bool detail,
                     const std::function<void(const ops::SaRow&)>& visit) const override;
    [[nodiscard]] std::vector<std::pair<std::string, std::size_t>> count() const override;

  private:
    const sa::SaDatabase& database_;
    const sa::Backend& backend_;
};

class GatewayRegistrationView final : public ops::RegistrationView {
  public:
    GatewayRegistrationView(const registration::Gateway& gateway, const sa::SaDatabase& database)
        : gateway_(gateway), database_(database) {}
    ops::Cursor scan(const ops::Query& query, ops::Cursor cursor, std::size_t budget,
                     const std::function<void(const ops::RegistrationRow&)>& visit) const override;
    [[nodiscard]] std::vector<std::pair<std::string, std::size_t>> count() const override;

  private:
    const registration::Gateway& gateway_;
    const sa::SaDatabase& database_;
};

class GatewayTraceView final : public ops::TraceView {
  public:
    GatewayTraceView(const registration::Gateway& gateway, const Clock& clock) : gateway_(gateway), clock_(clock) {}
    [[nodiscard]] std::vector<ops::TraceStep> steps(std::string_view impi) const override;

  private:
    const registration::Gateway& gateway_;
    const Clock& clock_;
};

}  // namespace gmgate::app
