#include "control/sip/framer.h"

#include <cstring>

#include "control/sip/characters.h"

namespace gmgate::sip {
namespace {

// Faults of the start line alone: the message can be cut out of the stream, its reader will see
// them again.
bool keeps_framing(ParseStatus s) {
    switch (s) {
        case ParseStatus::ok:
        case ParseStatus::blanks_after_version:
        case ParseStatus::bad_method:
        case ParseStatus::bad_request_uri:
        case ParseStatus::uri_too_long:
        case ParseStatus::bad_version:
        case ParseStatus::bad_status_code:
            return true;
        default:
            return false;
    }
}

}  // namespace

void StreamFramer::feed(std::string_view bytes) {
    if (error_ != ParseStatus::ok) return;
    if (read_ != 0) {
        // What moves to the front would stay behind where it was.
        const std::size_t left = buffer_.size() - read_;
        std::memmove(buffer_.data(), buffer_.data() + read_, left);
        wipe({reinterpret_cast<std::uint8_t*>(buffer_.data()) + left, read_});
        buffer_.resize(left);
        read_ = 0;
    }
    buffer_.append(bytes.data(), bytes.size());
}

void StreamFramer::clear() {
    *this = StreamFramer(side_);
}

Frame StreamFramer::close(ParseStatus status) {
    error_ = status;
    return {FrameKind::error, std::string_view(buffer_).substr(read_, max_message), status};
}

Frame StreamFramer::next() {
    if (error_ != ParseStatus::ok) return close(error_);
    const std::string_view held = std::string_view(buffer_).substr(read_);
    if (held.empty()) {
        // Nothing to come back to: an idle connection gives its buffer away.
        if (buffer_.capacity() > 256) buffer_ = decltype(buffer_)();
        buffer_.clear();
        read_ = 0;
        return {};
    }

    if (total_ == 0) {
        if (held[0] == '\r') {
            if (held.size() == 1) return {};
            if (held[1] != '\n') return close(ParseStatus::bad_line_end);
            if (side_ == Side::server) {
                if (held.size() == 2 || held == "\r\n\r") return {};
                if (held.starts_with("\r\n\r\n")) {
                    read_ += 4;
                    return {FrameKind::ping, held.substr(0, 4), ParseStatus::ok};
                }
            }
            read_ += 2;
            return {FrameKind::pong, held.substr(0, 2), ParseStatus::ok};
        }
        // A start line begins with a token; whatever else speaks here (TLS, say) will not turn into
        // SIP.
        if (!is_class(held[0], char_token)) return close(ParseStatus::bad_start_line);

        const std::size_t from = scanned_ > 3 ? scanned_ - 3 : 0;
        const void* found = memmem(held.data() + from, held.size() - from, "\r\n\r\n", 4);
        if (found == nullptr) {
            scanned_ = held.size();
            if (held.size() > max_message) return close(ParseStatus::message_too_large);
            if (held.size() > max_start_line &&
                std::memchr(held.data(), '\n', max_start_line + 1) == nullptr) {
                return close(ParseStatus::uri_too_long);
            }
            return {};
        }
        const auto head =
            static_cast<std::size_t>(static_cast<const char*>(found) - held.data()) + 4;
        // The reader's own parser says where the body ends: two opinions about that would let a
        // peer smuggle.
        Message message;
        const auto status = message.parse(held.substr(0, head), Framing::stream_head);
        if (!keeps_framing(status)) return close(status);
        if (!message.content_length()) return close(ParseStatus::content_length_missing);
        if (message.total_size() > max_message) return close(ParseStatus::body_too_large);
        total_ = message.total_size();
    }

    if (held.size() < total_) return {};
    const Frame frame{FrameKind::message, held.substr(0, total_), ParseStatus::ok};
    read_ += total_;
    total_ = 0;
    scanned_ = 0;
    return frame;
}

}  // namespace gmgate::sip
