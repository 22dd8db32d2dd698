#pragma once
// An HSS in this process: the subscribers of a file and of a rule, their sequence numbers,
// registration flags and S-CSCF names.
//
// Sequence numbers live in memory: after a restart a SIM that was used before answers the first
// challenge with a resynchronisation, as TS 33.102 6.3.5 has it, and all goes on.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/random.h"
#include "base/result.h"
#include "home/hss.h"
#include "home/subscribers.h"

namespace gmgate::home {

// Answers from inside the call. One thread.
class LocalHss final : public Hss {
  public:
    // RAND comes from `random`, which must outlive this.
    explicit LocalHss(Random& random);
    ~LocalHss() override;

    // Fails, naming both, when an identity has been given to two subscribers, unless both share it.
    Result<void> add(Subscriber subscriber);
    // At most one rule; 16 octets are kept per subscriber.
    Result<void> add(SubscriberRule rule);
    [[nodiscard]] std::uint64_t subscribers() const;

    struct Reloaded {
        std::size_t added = 0, removed = 0, barred = 0, rekeyed = 0, reprofiled = 0;
    };
    // The listed subscribers are these from now on; the generated ones stay. Who is in both lists
    // with the same key keeps its sequence number and registration. Then `listener` hears what has
    // changed for users the HSS holds as registered or being authenticated. Fails as add() does,
    // and then nothing has changed.
    Result<Reloaded> reload(std::vector<Subscriber> list, HssListener& listener);

    void query(std::string_view impi, std::string_view impu, QueryAnswer answer) override;
    void av_request(const AvRequest& request, AvAnswer answer) override;
    void put(const PutRequest& request, PutAnswer answer) override;
    void pull(std::string_view impi, std::string_view impu, PullAnswer answer) override;

    // For tests and the operator: what the HSS holds. nullopt: no such IMPI.
    enum class Flag : std::uint8_t { not_registered, authentication_pending, registered };
    [[nodiscard]] static std::string_view name(Flag flag);
    struct View {
        Flag flag = Flag::not_registered;
        std::string server_name;
        Sqn sqn;
    };
    // The flag of the set that has `impu` (canonical), or the highest of all its sets.
    [[nodiscard]] std::optional<View> view(std::string_view impi, std::string_view impu = {}) const;

  private:
    struct State {
        std::uint64_t sqn = 0;
        std::uint16_t server = 0;          // index into servers_; 0: none
        Flag flag = Flag::not_registered;  // of the first implicit set
    };
    // A subscriber of the file or of the rule.
    struct Ref {
        const Subscriber* listed = nullptr;
        std::uint64_t generated = SubscriberRule::none;
        [[nodiscard]] bool found() const {
            return listed != nullptr || generated != SubscriberRule::none;
        }
        bool operator==(const Ref&) const = default;
    };
    struct StringHash {
        using is_transparent = void;
        std::size_t operator()(std::string_view s) const {
            return std::hash<std::string_view>{}(s);
        }
    };
    using Index = std::unordered_map<std::string, std::size_t, StringHash, std::equal_to<>>;
    using SharedIndex =
        std::unordered_multimap<std::string, std::size_t, StringHash, std::equal_to<>>;

    [[nodiscard]] Ref by_impi(std::string_view impi) const;
    // One of those that share it.
    [[nodiscard]] Ref by_impu(std::string_view impu) const;
    [[nodiscard]] bool owns(const Ref& ref, std::string_view canonical_impu) const;
    [[nodiscard]] Result<void> check_free(const Subscriber& subscriber) const;
    // By IMPI and IMPU together; either may be empty in pull(). The CxResult says what is wrong.
    [[nodiscard]] CxResult resolve(std::string_view impi, std::string_view impu, Ref& ref) const;
    [[nodiscard]] State& state(const Ref& ref);
    // Of the set that identity belongs to.
    [[nodiscard]] Flag& flag(const Ref& ref, std::string_view impu);
    // Of all its sets.
    [[nodiscard]] Flag highest_flag(const Ref& ref) const;
    [[nodiscard]] static std::vector<Profile> profiles(const Subscriber& subscriber);
    [[nodiscard]] std::uint16_t intern(std::string_view server);
    void load_key(const Ref& ref);

    Random& random_;
    Milenage milenage_;
    std::vector<Subscriber, SecretAllocator<Subscriber>> listed_;
    std::vector<State> listed_state_;
    // Of the further sets of those that have some, by IMPI.
    std::unordered_map<std::string, std::vector<Flag>, StringHash, std::equal_to<>> further_flags_;
    Index by_impi_;
    SharedIndex by_impu_;
    std::optional<SubscriberRule> rule_;
    std::vector<State> rule_state_;
    std::vector<std::string> servers_{std::string{}};
};

}  // namespace gmgate::home
