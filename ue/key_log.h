#pragma once
// The table that lets Wireshark open the ESP (its file "esp_sa"): only when the operator asks for
// it by name (S1).

#include <cstdio>
#include <memory>
#include <string>

#include "base/result.h"
#include "ue/phone.h"

namespace gmgate::ue {

// Four lines a set, each a row of Wireshark's "ESP SAs" table. AES-GMAC is beyond Wireshark 4.0 (it
// takes NULL encryption to have no IV): those rows carry the length of the ICV only, and the SIP
// behind the eight octets of IV is readable as it stands.
[[nodiscard]] std::string key_table_rows(const IpAddress& ue, const IpAddress& pcscf,
                                         const SaSet& set);

class FileKeyLog final : public KeyLog {
  public:
    // Appends to `path`, made with mode 0600; an existing file that others may read is refused.
    static Result<std::unique_ptr<FileKeyLog>> open(const std::string& path);
    ~FileKeyLog() override;
    void write(const IpAddress& ue, const IpAddress& pcscf, const SaSet& set) override;

  private:
    explicit FileKeyLog(std::FILE* file) : file_(file) {}
    std::FILE* file_;
};

}  // namespace gmgate::ue
