#pragma once
// Questions to the DNS, asked asynchronously. Real ones go through c-ares (cares_resolver.h); tests
// give their own answers.

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"

namespace gmgate::dns {

enum class Type : std::uint8_t { a, aaaa, srv, naptr };

struct Srv {
    std::uint16_t priority = 0;
    std::uint16_t weight = 0;
    std::uint16_t port = 0;
    std::string target;
};
struct Naptr {
    std::uint16_t order = 0;
    std::uint16_t preference = 0;
    std::string flags;
    std::string service;
    std::string replacement;
};

struct Answer {
    enum class Outcome : std::uint8_t {
        found,
        none,    // the DNS says there is nothing of that type
        failed,  // no server answered, or what they said cannot be read: not known
    };
    Outcome outcome = Outcome::failed;
    std::chrono::seconds ttl{};  // the least of its records'; meaningful if found or none
    std::vector<IpAddress> addresses;
    std::vector<Srv> srv;
    std::vector<Naptr> naptr;
};

class Resolver {
  public:
    virtual ~Resolver() = default;
    using Done = std::function<void(Answer)>;
    // `done` is called once, later, on the caller's thread, never from inside this call; not at all
    // if the resolver is destroyed first.
    virtual void ask(const std::string& name, Type type, Done done) = 0;
};

}  // namespace gmgate::dns
