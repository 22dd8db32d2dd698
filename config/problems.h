#pragma once
// Collects the mistakes of one run of the loader, so that the operator sees all of them at once.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::config {

// `text` without control characters and cut to what fits a line: it may quote the file.
[[nodiscard]] std::string printable(std::string_view text, std::size_t longest = 80);

class Problems {
  public:
    explicit Problems(std::string file) : file_(std::move(file)) {}

    // `line` from 1; 0: the mistake has no line (something is missing). `key`: dotted, may be
    // empty.
    void add(int line, std::string_view key, std::string_view what);
    [[nodiscard]] bool empty() const { return items_.empty(); }
    [[nodiscard]] std::size_t size() const { return items_.size(); }
    // One line each, by line number, joined by '\n'. A file that is not a configuration at all is
    // cut short.
    [[nodiscard]] std::string text() const;

  private:
    struct Item {
        int line;
        std::string text;
    };
    std::string file_;
    std::vector<Item> items_;
};

}  // namespace gmgate::config
