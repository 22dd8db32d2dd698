#include "sa/sa_set.h"

namespace gmgate::sa {

SetParams SaSet::params() const {
    SetParams p;
    p.id = id;
    p.ue = ue;
    p.ours = ours;
    p.numbers = numbers;
    p.suite = suite;
    p.nat = nat;
    if (keys) {
        p.ck = &keys->ck;
        p.ik = &keys->ik;
    }
    p.out_sequence = out_sequence;
    return p;
}

bool User::has_impu(std::string_view wanted) const {
    for (std::size_t i = 0; i < impu_count(); ++i) {
        if (impu(i) == wanted) return true;
    }
    return false;
}

std::size_t User::set_count() const {
    std::size_t n = 0;
    for (const SetId set : sets) n += set != 0 ? 1U : 0U;
    return n;
}

}  // namespace gmgate::sa
