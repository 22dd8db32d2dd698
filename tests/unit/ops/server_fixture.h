#pragma once
// A server on its own loop and thread in a directory of its own, and a plain client of the socket.

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "control/ops/api.h"
#include "tests/unit/ops/fake_views.h"

namespace gmgate::ops {

class TemporaryDirectory {
  public:
    TemporaryDirectory() {
        std::string pattern = "/tmp/gmgate-ops-XXXXXX";  // short: a socket's path has 107 octets
        if (::mkdtemp(pattern.data()) != nullptr) path_ = pattern;
    }
    ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
};

class PlainClient {
  public:
    explicit PlainClient(const std::string& socket, int receive_buffer = 0)
        : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, socket.c_str(), socket.size() + 1);
        const timeval patience{20, 0};  // so that a fault fails the test in place of hanging it
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        if (receive_buffer != 0)
            ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
        connected_ =
            ::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    }
    [[nodiscard]] bool connected() const { return connected_; }
    void send(const std::string& text) {
        for (std::size_t done = 0; done < text.size();) {
            const ssize_t n =
                ::send(fd_.get(), text.data() + done, text.size() - done, MSG_NOSIGNAL);
            if (n <= 0) return;
            done += static_cast<std::size_t>(n);
        }
    }
    void end_input() { ::shutdown(fd_.get(), SHUT_WR); }
    // "" at the end of the stream (or after the patience).
    std::string line() {
        std::size_t end = 0;
        while ((end = in_.find('\n')) == std::string::npos) {
            char buffer[65536];
            const ssize_t n = ::recv(fd_.get(), buffer, sizeof(buffer), 0);
            if (n <= 0) return {};
            in_.append(buffer, static_cast<std::size_t>(n));
        }
        std::string out = in_.substr(0, end);
        in_.erase(0, end + 1);
        return out;
    }
    nlohmann::json answer() { return nlohmann::json::parse(line(), nullptr, false); }
    nlohmann::json ask(const std::string& text) {
        send(text + "\n");
        return answer();
    }
    // All rows of a list and its last line.
    std::pair<std::vector<nlohmann::json>, nlohmann::json> ask_list(const std::string& text) {
        send(text + "\n");
        return read_list();
    }
    std::pair<std::vector<nlohmann::json>, nlohmann::json> read_list() {
        std::vector<nlohmann::json> rows;
        for (;;) {
            nlohmann::json page = answer();
            if (!page.is_object()) return {rows, page};
            if (page.contains("rows")) {
                for (auto& row : page["rows"]) rows.push_back(std::move(row));
            }
            if (page.contains("done")) return {rows, page};
        }
    }

  private:
    UniqueFd fd_;
    std::string in_;
    bool connected_ = false;
};

class ServerTest : public testing::Test {
  protected:
    explicit ServerTest(std::size_t sets = 5000) : sas(sets) {
        trace.recorded = good_registration();
        options.socket = directory.path() + "/gmgated.sock";
    }
    void start() {
        views.sas = &sas;
        views.registrations = &registrations;
        views.trace = &trace;
        views.calls = &calls;
        views.failures = &failures;
        views.drops = [] {
            return std::vector<DropCount>{
                {"dataplane", "bad_icv", "The integrity check failed.", 12},
                {"sip", "rate_source", "Too many REGISTERs of one address. [S3]", 1234567},
                {"dataplane", "replay", "Seen before.", 0}};
        };
        views.health = [this] {
            return std::vector<HealthItem>{
                {"dataplane", true, "1 worker, 0.1% busy"},
                {"core", healthy.load(), healthy ? "answers" : "no answer; is 10.30.0.2 up?"}};
        };
        views.deregister = [this](std::string_view impi) {
            deregistered.emplace_back(impi);
            return impi == fake_sa(1).impi;
        };
        views.version = "9.9.9";
        views.backend = "dpdk";
        auto made = OpsServer::listen(loop, registry, views, options);
        ASSERT_TRUE(made.has_value()) << made.error().text;
        server = std::move(*made);
        thread = std::thread([this] { loop.run(); });
    }
    void stop() {
        if (!thread.joinable()) return;
        loop.stop();
        thread.join();
        server.reset();
    }
    void TearDown() override { stop(); }
    // Runs on the loop's thread, and waits.
    template <class F>
    auto on_loop(F f) {
        std::promise<decltype(f())> promise;
        auto future = promise.get_future();
        loop.post([&] { promise.set_value(f()); });
        return future.get();
    }
    double counter(const std::string& name, const std::string& label) {
        for (const metrics::Sample& s : registry.collect()) {
            if (s.name == name && s.labels.size() == 1 && s.labels[0].second == label)
                return s.value;
        }
        return -1;
    }

    TemporaryDirectory directory;
    SystemClock clock;
    metrics::Registry registry;
    EventLoop loop{clock};
    FakeSas sas;
    FakeRegistrations registrations;
    FakeTrace trace;
    FakeCalls calls;
    FakeFailures failures;
    std::atomic<bool> healthy{true};
    std::vector<std::string> deregistered;  // who was asked for; after stop() or an answer
    Views views;
    ServerOptions options;
    std::unique_ptr<OpsServer> server;
    std::thread thread;
};

}  // namespace gmgate::ops
