#pragma once
// Between S-CSCF and HSS: passes Cx operations on now, later or never, or fails those that ask for
// vectors.

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "home/hss.h"

namespace gmgate::test {

class HeldHss final : public home::Hss {
  public:
    // `hss` must outlive this.
    explicit HeldHss(home::Hss& hss) : hss_(hss) {}

    bool hold = false;    // operations wait for step()
    bool silent = false;  // they are lost
    std::optional<home::CxResult> fail_vectors;
    std::deque<std::move_only_function<void()>> waiting;
    // The oldest that waits is carried out; false: none waits.
    bool step() {
        if (waiting.empty()) return false;
        auto work = std::move(waiting.front());
        waiting.pop_front();
        work();
        return true;
    }

    void query(std::string_view impi, std::string_view impu, QueryAnswer answer) override {
        run([this, i = std::string(impi), u = std::string(impu), a = std::move(answer)]() mutable {
            hss_.query(i, u, std::move(a));
        });
    }
    void av_request(const home::AvRequest& r, AvAnswer answer) override {
        run([this, i = std::string(r.impi), u = std::string(r.impu), s = std::string(r.server_name),
             resync = r.resynchronisation != nullptr ? std::optional(*r.resynchronisation)
                                                     : std::nullopt,
             a = std::move(answer)]() mutable {
            if (fail_vectors) return a(*fail_vectors, {});
            hss_.av_request({i, u, s, 1, resync ? &*resync : nullptr}, std::move(a));
        });
    }
    void put(const home::PutRequest& r, PutAnswer answer) override {
        run([this, i = std::string(r.impi), u = std::string(r.impu), s = std::string(r.server_name),
             t = r.assignment,
             a = std::move(answer)]() mutable { hss_.put({i, u, s, t}, std::move(a)); });
    }
    void pull(std::string_view impi, std::string_view impu, PullAnswer answer) override {
        run([this, i = std::string(impi), u = std::string(impu), a = std::move(answer)]() mutable {
            hss_.pull(i, u, std::move(a));
        });
    }

  private:
    void run(std::move_only_function<void()> work) {
        if (silent) return;
        if (hold) {
            waiting.push_back(std::move(work));
        } else {
            work();
        }
    }
    home::Hss& hss_;
};

}  // namespace gmgate::test
