#pragma once
// The suites of Gm (A9) in the kernel's terms.

#include <optional>
#include <string>

#include "base/secret.h"
#include "sa/algorithms/key_expansion.h"
#include "sa/algorithms/suite.h"
#include "sa/kernel/message.h"

namespace gmgate::kernel {

// The algorithms of a set's four states, with their keys: Annex I's salt stands behind the AEAD
// key. Movable nowhere: the algorithms point into it.
class SuiteKeys {
  public:
    SuiteKeys(sa::Suite suite, const sa::AkaKey& ck, const sa::AkaKey& ik);
    SuiteKeys(const SuiteKeys&) = delete;
    SuiteKeys& operator=(const SuiteKeys&) = delete;

    // Into auth and crypt, or aead. The state must not outlive this.
    void fill(State& state) const;

  private:
    sa::Suite suite_;
    sa::EspKeys keys_;
    Secret<20> aead_;  // key and salt
};

// What modprobe must load for it: "esp4 authenc hmac sha1 …".
[[nodiscard]] std::string modules(sa::Suite suite, bool v6);

}  // namespace gmgate::kernel
