#pragma once
// What a run comes to: for people, for scripts, and live on a terminal.

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "ue/load.h"

namespace gmgate::ue {

// One JSON object; the keys are documented in docs and stay.
[[nodiscard]] std::string json_summary(const Load& load, double seconds, std::uint64_t send_errors);
// Some lines of text.
[[nodiscard]] std::string text_summary(const Load& load, double seconds, std::uint64_t send_errors);
// "[######----] 123/200 registering  …", without a line end; `width` columns at most.
[[nodiscard]] std::string progress_line(const Load& load, std::size_t width);

// Prints each step of the phones to a stream as it happens, never a key. `messages`: the SIP as
// well.
class Narrator final : public Observer {
  public:
    Narrator(std::FILE* out, bool colour, bool messages, bool several);
    void step(const Phone& phone, std::string_view line) override;
    void message(const Phone& phone, bool sent, std::string_view where,
                 std::string_view text) override;

  private:
    std::FILE* out_;
    bool colour_;
    bool messages_;
    bool several_;
};

}  // namespace gmgate::ue
