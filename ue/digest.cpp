#include "ue/digest.h"

#include <openssl/evp.h>

#include <array>
#include <memory>
#include <stdexcept>

#include "base/bytes.h"

namespace gmgate::ue {

namespace {

class Md5 {
  public:
    Md5() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
        if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_md5(), nullptr) != 1) {
            throw std::runtime_error("OpenSSL: MD5 is not available (FIPS mode?)");
        }
    }
    Md5& add(std::string_view s) {
        EVP_DigestUpdate(context_.get(), s.data(), s.size());
        return *this;
    }
    std::string hex() {
        std::array<std::uint8_t, 16> d{};
        unsigned n = 0;
        EVP_DigestFinal_ex(context_.get(), d.data(), &n);
        return to_hex(d);
    }

  private:
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string aka_digest(const DigestInput& in, std::span<const std::uint8_t> password) {
    const std::string a1 =
        Md5().add(in.user).add(":").add(in.realm).add(":").add(as_text(password)).hex();
    Md5 second;
    second.add(in.method).add(":").add(in.uri);
    if (in.qop == "auth-int") second.add(":").add(Md5().add(in.body).hex());
    const std::string a2 = second.hex();
    Md5 response;
    response.add(a1).add(":").add(in.nonce).add(":");
    if (!in.qop.empty()) response.add(in.nc).add(":").add(in.cnonce).add(":").add(in.qop).add(":");
    return response.add(a2).hex();
}

}  // namespace gmgate::ue
