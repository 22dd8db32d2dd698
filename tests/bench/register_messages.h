#pragma once
// The messages of a registration for benchmarks, made outside the measured time.

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/ip.h"
#include "control/sip/build.h"
#include "control/sip/message.h"

namespace gmgate::bench {

// One address a phone.
inline IpAddress phone_address(std::uint32_t n) {
    std::array<std::uint8_t, 4> a{};
    store_be32(a.data(), 0x0B000000U + n);
    return IpAddress::v4(a);
}

// SM1 or SM7 (`second`) of phone `n`: 1.4 KB, as a handset writes them.
inline std::string register_text(std::uint32_t n, bool second, const std::string& nonce,
                                 const std::string& verify) {
    const std::string user = "00101" + std::to_string(1'000'000'000U + n);
    const std::string impu = "sip:" + user + "@ims.mnc001.mcc001.3gppnetwork.org";
    const std::string host = phone_address(n).to_string();
    const std::string numbers = ";prot=esp;mod=trans;spi-c=4096;spi-s=4097;port-c=7000;port-s=7777";
    std::string t =
        "REGISTER sip:ims.mnc001.mcc001.3gppnetwork.org SIP/2.0\r\nVia: SIP/2.0/UDP " + host + ":" +
        (second ? "7777" : "5060") + ";branch=z9hG4bK" + std::to_string(n) + (second ? "b" : "a") +
        "\r\nMax-Forwards: 70\r\nFrom: <" + impu + ">;tag=" + std::to_string(n) + "\r\nTo: <" +
        impu + ">\r\nCall-ID: " + std::to_string(n) + "@" + host +
        "\r\nCSeq: " + (second ? "2" : "1") + " REGISTER\r\nContact: <sip:" + user + "@" + host +
        ":7777>;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";+g.3gpp.smsip;"
        "audio\r\n"
        "Expires: 600000\r\nAuthorization: Digest username=\"" +
        user +
        "@ims.mnc001.mcc001.3gppnetwork.org\",realm=\"ims.mnc001.mcc001.3gppnetwork.org\","
        "nonce=\"" +
        nonce + "\",uri=\"sip:ims.mnc001.mcc001.3gppnetwork.org\",response=\"" +
        (second ? "0123456789abcdef0123456789abcdef" : "") +
        "\",algorithm=AKAv1-MD5\r\nRequire: sec-agree\r\nProxy-Require: sec-agree\r\n"
        "Supported: path, sec-agree, gruu\r\nP-Access-Network-Info: 3GPP-E-UTRAN-FDD; "
        "utran-cell-id-3gpp=0010100010000001\r\nUser-Agent: bench\r\nSecurity-Client: "
        "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc" +
        numbers + ", ipsec-3gpp;alg=hmac-md5-96;ealg=null" + numbers +
        ", ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc" + numbers +
        ", ipsec-3gpp;alg=hmac-sha-1-96;ealg=null" + numbers + "\r\n";
    if (second) t += "Security-Verify: " + verify + "\r\n";
    return t + "Content-Length: 0\r\n\r\n";
}

// The home network's answer to what the gateway sent it.
inline std::string home_answer(const std::string& request, int code, std::string_view headers) {
    sip::Message m;
    std::string out;
    sip::ResponseOptions options;
    options.to_tag = "home";
    if (m.parse(std::string_view(request)) != sip::ParseStatus::ok ||
        !sip::build_response(m, code, options, out)) {
        std::fprintf(stderr, "bench: no answer can be made to\n%s\n", request.c_str());
        std::abort();
    }
    out.insert(out.find("Content-Length"), headers);
    return out;
}

// The 401 with keys that SM1 is answered with.
inline std::string challenge_answer(const std::string& request, const std::string& nonce) {
    return home_answer(
        request, 401,
        "WWW-Authenticate: Digest realm=\"ims.mnc001.mcc001.3gppnetwork.org\",nonce=\"" + nonce +
            "\",algorithm=AKAv1-MD5,qop=\"auth,auth-int\",ck="
            "\"00112233445566778899aabbccddeeff\","
            "ik=\"ffeeddccbbaa99887766554433221100\"\r\n");
}

}  // namespace gmgate::bench
