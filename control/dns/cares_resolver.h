#pragma once
// The Resolver of the real DNS: c-ares on our event loop. It asks the DNS alone, never a hosts
// file, and blocks never.

#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "control/dns/resolver.h"

namespace gmgate::dns {

class CaresResolver final : public Resolver {
  public:
    static constexpr std::size_t most_questions = 1024;  // under way; more fail at once
    // `servers`: whom to ask, in this order; none: those of /etc/resolv.conf. The loop outlives
    // this. `patience`: for one server's first answer; each is tried twice, the second time longer.
    static Result<std::unique_ptr<CaresResolver>> create(
        EventLoop& loop, const std::vector<Endpoint>& servers,
        Duration patience = std::chrono::seconds(2));
    ~CaresResolver() override;

    void ask(const std::string& name, Type type, Done done) override;

    struct Impl;

  private:
    explicit CaresResolver(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate::dns
