#pragma once

#include "base/clock.h"

namespace gmgate::ue {

struct PhoneTimes {
    Duration t1 = std::chrono::milliseconds(500);
    Duration t2 = std::chrono::seconds(4);
    Duration transaction = std::chrono::seconds(32);  // 64·T1
    Duration silence = std::chrono::seconds(4);       // how long "no answer" is waited for
};

}  // namespace gmgate::ue
