#pragma once
// One map of the configuration being read: typed values out, mistakes into Problems, keys nobody
// asked for reported with the nearest name.

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "config/config.h"
#include "config/yaml_tree.h"

namespace gmgate::config {

// Names and meaning of a choice: {"adaptive", Idle::adaptive}.
template <class T>
using Choices = std::vector<std::pair<std::string_view, T>>;

class Section {
  public:
    // `node`: nullptr, or null: the section is empty. `name`: "gm"; empty: the top of the file.
    Section(const YamlNode* node, std::string name, Problems& problems, Source& source);

    // Each reads one key, if it is there, into `out`. False: not there, or wrong (then reported). A
    // value is taken only if right.
    bool text(std::string_view key, std::string& out);
    bool boolean(std::string_view key, bool& out);
    bool integer(std::string_view key, std::uint64_t& out, std::uint64_t least, std::uint64_t most,
                 std::string_view unit = {});
    template <class T>
    bool number(std::string_view key, T& out, std::uint64_t least, std::uint64_t most,
                std::string_view unit = {}) {
        std::uint64_t value = 0;
        if (!integer(key, value, least, most, unit)) return false;
        out = static_cast<T>(value);
        return true;
    }
    // "5", "0.5", "5/s".
    bool rate(std::string_view key, double& out, double least, double most);
    // "240s", "500ms", "2m", "1h", and with `t1` also "64*T1".
    bool duration(std::string_view key, Duration& out, Duration least, Duration most,
                  std::optional<Duration> t1 = {});
    bool ports(std::string_view key, PortRange& out);
    bool endpoint(std::string_view key, Endpoint& out, std::uint16_t default_port);
    // A list, or one value alone in place of a list of one. `take` gets each element's line and
    // text. False: not there or empty.
    bool list(std::string_view key,
              const std::function<void(int line, const std::string& text)>& take);
    template <class T>
    bool choice(std::string_view key, T& out, const Choices<T>& choices) {
        std::vector<std::string_view> names;
        for (const auto& c : choices) names.push_back(c.first);
        const std::optional<std::size_t> index = choose(key, names);
        if (!index) return false;
        out = choices[*index].second;
        return true;
    }
    // The section below `key`.
    Section section(std::string_view key);

    [[nodiscard]] bool has(std::string_view key);
    // Reports keys that no call asked for, and keys that are not names. Call last.
    void finish();
    // Reports about `key`: on its line, or the section's.
    void wrong(std::string_view key, std::string_view what);
    void missing(std::string_view key, std::string_view what);
    [[nodiscard]] std::string path(std::string_view key) const;

  private:
    const YamlNode* find(std::string_view key);
    const YamlNode* scalar(std::string_view key, std::string_view wanted);
    std::optional<std::size_t> choose(std::string_view key,
                                      std::span<const std::string_view> names);

    const YamlNode* node_ = nullptr;
    std::string name_;
    Problems& problems_;
    Source& source_;
    std::set<std::string, std::less<>> known_;
};

// "240s" and the like; nullopt: not a duration.
[[nodiscard]] std::optional<Duration> parse_duration(std::string_view text,
                                                     std::optional<Duration> t1 = {});
[[nodiscard]] std::string duration_text(Duration duration);
// The one of `names` nearest to `word`, if any is near enough to be meant.
[[nodiscard]] std::optional<std::string> nearest(std::string_view word,
                                                 std::span<const std::string_view> names);

}  // namespace gmgate::config
