#pragma once
// What the S-CSCF does when the HSS speaks first (TS 23.228 5.3.4, 11.4.1.5 of the seed's note:
// re-authentication "might be requested from the HSS"). One thread.

#include <cstdint>
#include <string_view>

#include "home/hss.h"
#include "home/reauthentication.h"
#include "home/registrar.h"

namespace gmgate::home {

struct FromHssCounters {
    std::uint64_t terminated = 0;
    std::uint64_t profiles = 0;
    std::uint64_t reauthenticated = 0;
};

class FromHss final : public HssListener {
  public:
    // References outlive this.
    FromHss(Registrar& registrar, Reauthentication& reauthentication)
        : registrar_(registrar), reauthentication_(reauthentication) {}

    // Deregistered, with its sessions; its subscribers hear "rejected": it is to stay away.
    void terminate(std::string_view impi, std::string_view why) override;
    void profile_changed(std::string_view impi, const std::vector<Profile>& profiles) override;
    // Of all its identities; a set that is being re-authenticated already is left alone.
    void reauthenticate(std::string_view impi) override;

    [[nodiscard]] const FromHssCounters& counters() const { return counters_; }

  private:
    Registrar& registrar_;
    Reauthentication& reauthentication_;
    FromHssCounters counters_;
};

}  // namespace gmgate::home
