#pragma once
// Texts many phones share (Service-Route, the frame of Security-Verify) are kept once.

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

namespace gmgate::ue {

class TextPool {
  public:
    using Text = std::shared_ptr<const std::string>;

    Text intern(std::string_view text) {
        const std::string key(text);
        if (const auto it = texts_.find(key); it != texts_.end()) return it->second;
        auto fresh = std::make_shared<const std::string>(key);
        // A network that sends every phone another text gets no sharing, and no growth here either.
        if (texts_.size() < max_texts) texts_.emplace(key, fresh);
        return fresh;
    }

  private:
    static constexpr std::size_t max_texts = 512;
    std::unordered_map<std::string, Text> texts_;
};

}  // namespace gmgate::ue
