#pragma once
// IMPU → the users that registered it. One entry an IMPU, whatever the number of users that share
// it (a shared public identity may have thousands), so that neither insertion nor other lookups
// become slow.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "sa/hash_index.h"
#include "sa/pool.h"

namespace gmgate::sa {

class ImpuIndex {
  public:
    // `has(user)`: does the user at this position have the IMPU whose hash this is? Asked of one
    // user of each group.
    template <class Has>
    void insert(std::uint64_t hash, std::uint32_t user, Has&& has) {
        if (Group* g = find(hash, has)) {
            if (!g->others) g->others = std::make_unique<std::vector<std::uint32_t>>();
            g->others->push_back(user);
            return;
        }
        std::uint64_t id = 0;
        Group* g = groups_.create(id);
        if (g == nullptr)
            return;  // 16 million identities: the lookup by IMPU is a convenience, the user lives
                     // on
        g->id = id;
        g->first = user;
        index_.insert(hash, Pool<Group>::position(id));
    }
    // The user's texts must still be there.
    template <class Has>
    void erase(std::uint64_t hash, std::uint32_t user, Has&& has) {
        Group* g = find(hash, has);
        if (g == nullptr) return;
        if (g->others) {
            auto& others = *g->others;
            const auto it =
                g->first == user ? others.end() - 1 : std::find(others.begin(), others.end(), user);
            if (it == others.end()) return;
            if (g->first == user) g->first = others.back();
            *it = others.back();
            others.pop_back();
            if (others.empty()) g->others.reset();
            return;
        }
        if (g->first != user) return;
        const std::uint64_t id = g->id;
        index_.erase(hash, Pool<Group>::position(id));
        groups_.destroy(id);
    }
    // Calls visit(user position) for each user; `visit` returns true to stop. It must not change
    // the index.
    template <class Has, class Visit>
    void each(std::uint64_t hash, Has&& has, Visit&& visit) const {
        const Group* g = find(hash, has);
        if (g == nullptr || visit(g->first) || !g->others) return;
        for (const std::uint32_t user : *g->others) {
            if (visit(user)) return;
        }
    }
    [[nodiscard]] std::size_t size() const { return groups_.size(); }
    [[nodiscard]] std::size_t octets() const { return index_.octets() + groups_.octets(); }

  private:
    struct Group {
        std::uint64_t id = 0;
        std::uint32_t first = 0;
        std::unique_ptr<std::vector<std::uint32_t>> others;  // only if shared
    };
    template <class Has>
    Group* find(std::uint64_t hash, Has&& has) const {
        Group* found = nullptr;
        index_.find(hash, [&](std::uint32_t position) {
            Group* g = groups_.at(position);
            if (!has(g->first)) return false;
            found = g;
            return true;
        });
        return found;
    }

    HashIndex index_;
    Pool<Group> groups_;
};

}  // namespace gmgate::sa
