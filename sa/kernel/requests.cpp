#include "sa/kernel/requests.h"

#include <linux/netlink.h>

#include <algorithm>
#include <cerrno>

namespace gmgate::kernel {

namespace {

constexpr int dump_tries = 8;

}  // namespace

Requests::Requests(std::unique_ptr<Channel> channel)
    : channel_(std::move(channel)),
      send_(largest_batch * Encoder::largest_message),
      receive_(receive_buffer_octets) {}

Encoder& Requests::begin() {
    encoder_ = Encoder(send_.bytes(), next_sequence_);
    return encoder_;
}

std::span<const Outcome> Requests::run(
    const std::function<void(std::size_t, const MessageView&)>& answer) {
    const std::size_t count = encoder_.count();
    const std::uint32_t first = encoder_.first_sequence();
    next_sequence_ += static_cast<std::uint32_t>(count);
    outcomes_.assign(count, Outcome{});
    answered_.assign(count, false);
    counters_.requests.add(count);
    if (count == 0) return outcomes_;

    int error = channel_->send(encoder_.octets());
    wipe(send_.bytes().first(encoder_.octets().size()));
    if (error != 0) {
        // Nothing of it was looked at.
        for (Outcome& o : outcomes_) o.error = error;
        counters_.errors.add(count);
        return outcomes_;
    }
    std::size_t open = count;
    while (open > 0) {
        const Channel::Received r = channel_->receive(receive_.bytes());
        error = r.error;
        if (r.error == ENOBUFS) continue;  // some are lost; those behind them are still there
        if (r.size == 0) break;
        std::span<const std::uint8_t> octets = receive_.bytes().first(r.size);
        while (const auto message = next_message(octets)) {
            const std::uint32_t index = message->sequence - first;
            if (index >= count || answered_[index]) continue;  // of an earlier exchange
            if (const auto ack = parse_acknowledgement(*message)) {
                outcomes_[index].error = ack->error;
                outcomes_[index].text = std::string(ack->text);
            } else if (answer) {
                answer(index, *message);
            }
            answered_[index] = true;
            --open;
        }
        wipe(receive_.bytes().first(r.size));
    }
    for (std::size_t i = 0; i < count && open > 0; ++i) {
        if (answered_[i]) continue;
        outcomes_[i] = {error != 0 ? error : ETIMEDOUT, "the kernel's answer is lost", true};
        counters_.lost.add();
        --open;
    }
    counters_.errors.add(static_cast<std::uint64_t>(
        std::ranges::count_if(outcomes_, [](const Outcome& o) { return o.error != 0; })));
    return outcomes_;
}

Outcome Requests::dump(const std::function<void()>& restart,
                       const std::function<void(const MessageView&)>& each) {
    Outcome outcome;
    // The request is sent again for each try, under a number of its own so that answers to an
    // earlier one cannot be taken for this one's.
    std::vector<std::uint8_t> request(encoder_.octets().begin(), encoder_.octets().end());
    for (int tries = 0; tries < dump_tries; ++tries) {
        const std::uint32_t sequence = next_sequence_++;
        std::copy_n(reinterpret_cast<const std::uint8_t*>(&sequence), sizeof sequence,
                    request.begin() + offsetof(nlmsghdr, nlmsg_seq));
        restart();
        counters_.requests.add();
        counters_.dumps.add();
        outcome = {};
        if (outcome.error = channel_->send(request); outcome.error != 0) break;
        bool interrupted = false;
        while (!receive_dump(outcome, interrupted, [&](const MessageView& m) {
            if (m.sequence == sequence) each(m);
        })) {
        }
        if (!interrupted && outcome.error != ENOBUFS) break;
        counters_.dump_retries.add();
        if (outcome.error == ENOBUFS) continue;
    }
    if (outcome.error != 0) counters_.errors.add();
    return outcome;
}

// One datagram; true: it was the last.
bool Requests::receive_dump(Outcome& outcome, bool& interrupted,
                            const std::function<void(const MessageView&)>& each) {
    const Channel::Received r = channel_->receive(receive_.bytes());
    if (r.error == ENOBUFS) {
        interrupted = true;  // a part is missing: read on to the end, then again
        return false;
    }
    if (r.size == 0) {
        outcome.error = r.error != 0 ? r.error : ETIMEDOUT;
        outcome.unknown = true;
        return true;
    }
    bool done = false;
    std::span<const std::uint8_t> octets = receive_.bytes().first(r.size);
    while (const auto message = next_message(octets)) {
        if (message->sequence + 1 != next_sequence_) continue;  // of an earlier exchange
        interrupted = interrupted || (message->flags & NLM_F_DUMP_INTR) != 0;
        if (const auto end = parse_acknowledgement(*message)) {
            outcome.error = end->error;
            outcome.text = std::string(end->text);
            done = true;
        } else {
            each(*message);
        }
    }
    wipe(receive_.bytes().first(r.size));
    return done;
}

}  // namespace gmgate::kernel
