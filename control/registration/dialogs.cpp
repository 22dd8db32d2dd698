#include "control/registration/dialogs.h"

#include <string>
#include <utility>

#include "control/sip/values.h"

namespace gmgate::registration {
namespace {

std::string_view tag_of(std::string_view party) {
    const auto name = sip::parse_name_addr(party);
    return name ? name->tag() : std::string_view{};
}

}  // namespace

std::uint64_t Dialogs::hash_of(const DialogName& name) const {
    std::string text = std::to_string(name.user);
    for (const std::string_view part : {name.call_id, name.ue_tag, name.core_tag}) {
        text += '\n';
        text += part;
    }
    return hash_(std::string_view(text));
}

std::uint64_t Dialogs::hash_of(sa::UserId user) const {
    std::array<std::uint8_t, sizeof(user)> octets{};
    for (std::size_t i = 0; i < octets.size(); ++i)
        octets[i] = static_cast<std::uint8_t>(user >> (8 * i));
    return hash_(std::span<const std::uint8_t>(octets));
}

Dialog* Dialogs::find(const DialogName& name) const {
    Dialog* found = nullptr;
    by_name_.find(hash_of(name), [&](std::uint32_t position) {
        Dialog* d = dialogs_.at(position);
        if (d->user != name.user || d->call_id() != name.call_id ||
            tag_of(d->ue_party()) != name.ue_tag || tag_of(d->core_party()) != name.core_tag)
            return false;
        found = d;
        return true;
    });
    return found;
}

Dialog* Dialogs::first_of(sa::UserId user) const {
    Dialog* found = nullptr;
    by_user_.find(hash_of(user), [&](std::uint32_t position) {
        Dialog* d = dialogs_.at(position);
        if (d->user != user) return false;
        found = d;
        return true;
    });
    return found;
}

std::size_t Dialogs::of_user(sa::UserId user) const {
    const Dialog* first = first_of(user);
    return first == nullptr ? 0 : first->of_user_count_;
}

bool Dialogs::has_room(sa::UserId user, std::size_t more_of_user, std::size_t more) const {
    const bool room = is_stranger(user) ? strangers_ + more_of_user <= most_of_strangers_
                                        : dialogs_.size() - strangers_ + more <= most_;
    return room && of_user(user) + more_of_user <= most_per_user_;
}

Dialog* Dialogs::add(sa::UserId user, SlotId invite, const DialogTexts& texts, TimePoint now) {
    const std::array<std::string_view, 6> all{texts.call_id,   texts.ue_party,    texts.core_party,
                                              texts.ue_target, texts.core_target, texts.core_route};
    std::size_t octets = 0;
    for (const std::string_view text : all) octets += text.size();
    if (octets > max_octets) return nullptr;
    auto packed = sa::PackedStrings::pack(all);
    if (!packed) return nullptr;
    Dialog& d = dialogs_.emplace();
    d.user = user;
    d.invite = invite;
    d.used_ = now;
    d.texts_ = std::move(*packed);
    text_octets_ += d.texts_.octets();
    d.hash_ = hash_of({user, d.call_id(), tag_of(d.ue_party()), tag_of(d.core_party())});
    by_name_.insert(d.hash_, static_cast<std::uint32_t>(d.id));
    link_to_user(d);
    append(line_, d);
    if (is_stranger(user)) ++strangers_;
    return &d;
}

void Dialogs::touch(Dialog& dialog, TimePoint now) {
    if (dialog.ended != Reason::ok) return;
    dialog.used_ = now;
    unlink(line_, dialog);
    append(line_, dialog);
}

void Dialogs::retarget(Dialog& dialog, std::string_view ue_target, std::string_view core_target,
                       std::string_view core_route) {
    const auto or_else = [](std::string_view now, std::string_view before) {
        return now.empty() ? before : now;
    };
    const std::array<std::string_view, 6> all{
        dialog.call_id(),
        dialog.ue_party(),
        dialog.core_party(),
        or_else(ue_target, dialog.ue_target()),
        or_else(core_target, dialog.core_target()),
        or_else(core_route, dialog.core_route()),
    };
    if (all[3] == dialog.ue_target() && all[4] == dialog.core_target() &&
        all[5] == dialog.core_route())
        return;
    std::size_t octets = 0;
    for (const std::string_view text : all) octets += text.size();
    if (octets > max_octets) return;  // the old ones may still be right
    auto packed = sa::PackedStrings::pack(all);
    if (!packed) return;
    text_octets_ -= dialog.texts_.octets();
    dialog.texts_ = std::move(*packed);
    text_octets_ += dialog.texts_.octets();
}

void Dialogs::remove(SlotId id) {
    Dialog* d = dialogs_.find(id);
    if (d == nullptr) return;
    unlink(d->ended == Reason::ok ? line_ : ended_, *d);
    unlink_from_user(*d);
    by_name_.erase(d->hash_, static_cast<std::uint32_t>(d->id));
    text_octets_ -= d->texts_.octets();
    if (is_stranger(d->user)) --strangers_;
    dialogs_.erase(id);
}

void Dialogs::remove_all(sa::UserId user) {
    while (const Dialog* d = first_of(user)) remove(d->id);
}

bool Dialogs::remove_one_early(sa::UserId user, SlotId invite) {
    for (Dialog* d = first_of(user); d != nullptr; d = at(d->of_user_.next)) {
        if (d->invite != invite) continue;
        remove(d->id);
        return true;
    }
    return false;
}

void Dialogs::remove_early(sa::UserId user, SlotId invite) {
    for (Dialog* d = first_of(user); d != nullptr;) {
        Dialog* next = at(d->of_user_.next);
        if (d->invite == invite) remove(d->id);
        d = next;
    }
}

void Dialogs::make_room(sa::UserId user) {
    while (of_user(user) >= most_per_user_) {
        const Dialog* goes = nullptr;
        for (const Dialog* d = first_of(user); d != nullptr; d = at(d->of_user_.next)) {
            if (d->ended != Reason::ok) continue;
            if (goes == nullptr || (d->confirmed() && !goes->confirmed()) ||
                (d->confirmed() == goes->confirmed() && d->used_ < goes->used_))
                goes = d;
        }
        if (goes == nullptr) return;
        remove(goes->id);
    }
}

void Dialogs::end(Dialog& dialog, Reason why) {
    if (dialog.ended != Reason::ok) return;
    unlink(line_, dialog);
    dialog.ended = why;
    append(ended_, dialog);
}

void Dialogs::end(sa::UserId user, Reason why) {
    for (Dialog* d = first_of(user); d != nullptr; d = at(d->of_user_.next)) {
        if (d->confirmed()) end(*d, why);
    }
}

std::size_t Dialogs::octets() const {
    return dialogs_.size() * sizeof(Dialog) + dialogs_.slots() * 2 * sizeof(std::uint64_t) +
           text_octets_ + by_name_.octets() + by_user_.octets();
}

void Dialogs::append(Line& line, Dialog& d) {
    d.in_line_ = {line.last, 0};
    if (Dialog* last = at(line.last)) {
        last->in_line_.next = place_of(d);
    } else {
        line.first = place_of(d);
    }
    line.last = place_of(d);
}

void Dialogs::unlink(Line& line, Dialog& d) {
    Dialog* previous = at(d.in_line_.previous);
    Dialog* next = at(d.in_line_.next);
    (previous == nullptr ? line.first : previous->in_line_.next) = d.in_line_.next;
    (next == nullptr ? line.last : next->in_line_.previous) = d.in_line_.previous;
    d.in_line_ = {};
}

void Dialogs::link_to_user(Dialog& d) {
    const std::uint64_t hash = hash_of(d.user);
    Dialog* first = first_of(d.user);
    d.of_user_count_ = 1;
    if (first != nullptr) {
        d.of_user_count_ += first->of_user_count_;
        d.of_user_.next = place_of(*first);
        first->of_user_.previous = place_of(d);
        by_user_.erase(hash, static_cast<std::uint32_t>(first->id));
    }
    by_user_.insert(hash, static_cast<std::uint32_t>(d.id));
}

void Dialogs::unlink_from_user(Dialog& d) {
    Dialog* first = first_of(d.user);
    Dialog* previous = at(d.of_user_.previous);
    Dialog* next = at(d.of_user_.next);
    if (next != nullptr) next->of_user_.previous = d.of_user_.previous;
    if (previous != nullptr) {
        previous->of_user_.next = d.of_user_.next;
        --first->of_user_count_;
        return;
    }
    const std::uint64_t hash = hash_of(d.user);
    by_user_.erase(hash, static_cast<std::uint32_t>(d.id));
    if (next == nullptr) return;
    next->of_user_count_ = d.of_user_count_ - 1;
    by_user_.insert(hash, static_cast<std::uint32_t>(next->id));
}

}  // namespace gmgate::registration
