#pragma once
// The sessions (INVITE dialogs, RFC 3261 12) that run through us, as far as we must know them to
// end them in a user's place (TS 24.229 5.2.8.1): who talks to whom, the numbers of their requests,
// and the way to the far end.
//
// Look-ups and changes are O(1) but where it says so. About 380 octets a dialog, texts and indexes
// included. One thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/random.h"
#include "base/seeded_hash.h"
#include "base/slot_map.h"
#include "control/registration/reasons.h"
#include "sa/hash_index.h"
#include "sa/packed_strings.h"
#include "sa/sa_set.h"

namespace gmgate::registration {

// The emergency call of a phone that is not registered has a number of its own where a user's would
// stand; no user of the SA database has this bit.
constexpr sa::UserId stranger_bit = sa::UserId{1} << 63U;
[[nodiscard]] constexpr bool is_stranger(sa::UserId user) {
    return (user & stranger_bit) != 0;
}

// What names a dialog of a user. The tags as the user sees them: a user who calls itself has two.
struct DialogName {
    sa::UserId user = 0;
    std::string_view call_id;
    std::string_view ue_tag;
    std::string_view core_tag;
};

// What is written of it. Views, copied by the table; no line breaks in them.
struct DialogTexts {
    std::string_view call_id;
    std::string_view ue_party;     // From or To of the user's side, with its tag
    std::string_view core_party;   // of the far end
    std::string_view ue_target;    // URI of its Contact; empty: not known yet
    std::string_view core_target;  // of the far end
    std::string_view core_route;   // route set from us to the far end, in the order of travel
};

struct Dialog {
    explicit Dialog(SlotId i) : id(i) {}

    SlotId id;
    sa::UserId user = 0;
    std::uint64_t trace_user = 0;
    std::uint32_t identity = 0;   // Proxy::identity_mark() of the user's it runs for
    SlotId invite = 0;            // early: the exchange that may confirm it; confirmed: 0
    std::uint32_t ue_cseq = 0;    // of the latest request of the user in it; 0: none
    std::uint32_t core_cseq = 0;  // of the far end
    bool ending = false;          // a BYE of one of its ends is on its way
    Reason ended = Reason::ok;    // in the queue of those to be released: why

    [[nodiscard]] bool confirmed() const { return invite == 0; }
    [[nodiscard]] std::string_view call_id() const { return texts_[0]; }
    [[nodiscard]] std::string_view ue_party() const { return texts_[1]; }
    [[nodiscard]] std::string_view core_party() const { return texts_[2]; }
    [[nodiscard]] std::string_view ue_target() const { return texts_[3]; }
    [[nodiscard]] std::string_view core_target() const { return texts_[4]; }
    [[nodiscard]] std::string_view core_route() const { return texts_[5]; }

  private:
    friend class Dialogs;
    struct Links {
        std::uint32_t previous = 0;  // positions plus one; 0: none
        std::uint32_t next = 0;
    };
    TimePoint used_{};
    std::uint64_t hash_ = 0;
    Links of_user_;
    Links in_line_;                    // by last use, or of those to be released
    std::uint32_t of_user_count_ = 0;  // of the user's first one: how many there are
    sa::PackedStrings texts_;
};

class Dialogs {
  public:
    // Texts longer than this together are not kept: what a dialog costs is bounded (S2).
    static constexpr std::size_t max_octets = 4096;

    // `most` of all users, `most_per_user` of one, `most_of_strangers` of all of these beside.
    Dialogs(Random& random, std::size_t most, std::size_t most_per_user,
            std::size_t most_of_strangers = 0)
        : hash_(random),
          most_(most),
          most_per_user_(most_per_user),
          most_of_strangers_(most_of_strangers) {}

    // nullptr: none.
    [[nodiscard]] Dialog* find(const DialogName& name) const;
    [[nodiscard]] Dialog* find(SlotId id) const { return dialogs_.find(id); }
    // A new one, early or confirmed as `invite` says; not there yet. The caller asks has_room().
    // nullptr: its texts are too long.
    Dialog* add(sa::UserId user, SlotId invite, const DialogTexts& texts, TimePoint now);
    // Is there room for that many more of this user?
    [[nodiscard]] bool has_room(sa::UserId user, std::size_t more_of_user, std::size_t more) const;
    // A request or answer in it: the latest of all.
    void touch(Dialog& dialog, TimePoint now);
    // Other targets and routes; empty ones stay as they are. The party texts and the Call-ID are
    // its name and never change.
    void retarget(Dialog& dialog, std::string_view ue_target, std::string_view core_target,
                  std::string_view core_route = {});
    void remove(SlotId id);
    void remove_all(sa::UserId user);
    // Removes what this INVITE made and nobody confirmed.
    void remove_early(sa::UserId user, SlotId invite);
    // One early dialog of this INVITE gives way; false: there is none.
    bool remove_one_early(sa::UserId user, SlotId invite);

    // While the user has as many as one may have, the one unused for the longest time goes, a
    // confirmed one if there is one; none that waits for its release. Looks at all of the user's.
    void make_room(sa::UserId user);

    // All confirmed ones of the user queue up for their release; they are still found.
    void end(sa::UserId user, Reason why);
    // Of these those for which `doomed` says so.
    template <class Predicate>
    void end_if(sa::UserId user, Reason why, const Predicate& doomed) {
        for (Dialog* d = first_of(user); d != nullptr; d = at(d->of_user_.next)) {
            if (d->confirmed() && doomed(*d)) end(*d, why);
        }
    }
    // That one alone.
    void end(Dialog& dialog, Reason why);
    // The one that waits longest; nullptr: none. Remove it when it is done.
    [[nodiscard]] Dialog* next_ended() const { return at(ended_.first); }
    // The one that nobody has spoken in for the longest time, and since when.
    [[nodiscard]] Dialog* oldest() const { return at(line_.first); }
    [[nodiscard]] static TimePoint last_use(const Dialog& dialog) { return dialog.used_; }

    [[nodiscard]] std::size_t size() const { return dialogs_.size(); }
    [[nodiscard]] std::size_t of_strangers() const { return strangers_; }
    [[nodiscard]] const SlotMap<Dialog>& slots() const { return dialogs_; }
    [[nodiscard]] std::size_t of_user(sa::UserId user) const;
    // Octets all of them take, indexes and texts included.
    [[nodiscard]] std::size_t octets() const;

  private:
    struct Line {
        std::uint32_t first = 0;
        std::uint32_t last = 0;
    };
    [[nodiscard]] Dialog* at(std::uint32_t place) const {
        return place == 0 ? nullptr : dialogs_.at(place - 1);
    }
    [[nodiscard]] static std::uint32_t place_of(const Dialog& d) {
        return static_cast<std::uint32_t>(d.id) + 1;
    }
    [[nodiscard]] std::uint64_t hash_of(const DialogName& name) const;
    [[nodiscard]] std::uint64_t hash_of(sa::UserId user) const;
    [[nodiscard]] Dialog* first_of(sa::UserId user) const;
    void append(Line& line, Dialog& d);
    void unlink(Line& line, Dialog& d);
    void link_to_user(Dialog& d);
    void unlink_from_user(Dialog& d);

    SeededHash hash_;
    std::size_t most_;
    std::size_t most_per_user_;
    std::size_t most_of_strangers_;
    std::size_t strangers_ = 0;
    SlotMap<Dialog> dialogs_;
    sa::HashIndex by_name_;
    sa::HashIndex by_user_;  // the first one of each user
    Line line_;              // by last use
    Line ended_;             // waiting for their release
    std::size_t text_octets_ = 0;
};

// What tells one of our sessions to end with the registration it was made under.
class SessionRelease {
  public:
    virtual ~SessionRelease() = default;
    // The registration of the user is over, or its SAs are: what runs for it ends (TS 24.229
    // 5.2.8.1). Nothing is sent from inside this call.
    virtual void release(sa::UserId user, Reason why) = 0;
    // Some of the user's identities are registered no more, others are: what runs for the former
    // ends.
    virtual void release_identities(sa::UserId user, std::span<const std::string> gone,
                                    Reason why) = 0;
};

}  // namespace gmgate::registration
