#include "home/control_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace gmgate::home {
namespace {

using testing::HasSubstr;

struct ControlSocketTest : testing::Test {
    ControlSocketTest() { std::filesystem::create_directories(folder); }
    ~ControlSocketTest() override {
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }
    // Runs the loop here and `client` beside it, until the client has done.
    void with_client(const std::function<void()>& client) {
        std::thread thread([&] {
            client();
            loop.stop();
        });
        loop.run();
        thread.join();
    }
    SystemClock clock;
    EventLoop loop{clock};
    std::filesystem::path folder =
        std::filesystem::path(testing::TempDir()) / ("gmhome_ctl_" + std::to_string(::getpid()));
    std::string path = folder / "sock";
};

TEST_F(ControlSocketTest, AnswersNowAndLater) {
    auto door = ControlSocket::open(loop, path, [&](std::string_view line, CommandReply reply) {
        if (line == "later") {
            loop.post([reply] { reply("and then"); });
        } else {
            reply("you said " + std::string(line));
        }
    });
    ASSERT_TRUE(door) << door.error().text;
    struct stat info{};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U);
    with_client([&] {
        EXPECT_EQ(control_command(path, "hello there").value_or("?"), "you said hello there\n");
        EXPECT_EQ(control_command(path, "later").value_or("?"), "and then\n");
        EXPECT_EQ(control_command(path, std::string(9000, 'x')).value_or("?").substr(0, 6),
                  "error:");
    });
    door->reset();
    EXPECT_FALSE(std::filesystem::exists(path));
    const auto gone = control_command(path, "hello");
    ASSERT_FALSE(gone);
    EXPECT_THAT(gone.error().text, HasSubstr("is gmhome running"));
}

TEST_F(ControlSocketTest, LargeAnswersArriveWhole) {
    const std::string large(3'000'000, 'y');
    auto door = ControlSocket::open(loop, path,
                                    [&](std::string_view, CommandReply reply) { reply(large); });
    ASSERT_TRUE(door);
    with_client(
        [&] { EXPECT_EQ(control_command(path, "x").value_or("?").size(), large.size() + 1); });
}

TEST_F(ControlSocketTest, ALateReplyMayOutliveTheSocket) {
    CommandReply kept;
    bool reached = false;
    auto door = ControlSocket::open(loop, path, [&](std::string_view, CommandReply reply) {
        kept = std::move(reply);
        reached = true;
        loop.stop();
    });
    ASSERT_TRUE(door);
    std::thread client([&] { EXPECT_FALSE(control_command(path, "x")); });
    loop.run();
    EXPECT_TRUE(reached);
    door->reset();
    client.join();
    kept("nobody listens");
}

TEST_F(ControlSocketTest, ASecondCopyIsRefusedALeftoverIsReplaced) {
    auto door = ControlSocket::open(loop, path, [](std::string_view, CommandReply) {});
    ASSERT_TRUE(door);
    auto second = ControlSocket::open(loop, path, [](std::string_view, CommandReply) {});
    ASSERT_FALSE(second);
    EXPECT_THAT(second.error().text, HasSubstr("another gmhome"));
    // A killed run leaves its file: a bound socket that nobody listens on any more.
    const std::string leftover = folder / "left";
    {
        auto killed = ControlSocket::open(loop, leftover, [](std::string_view, CommandReply) {});
        ASSERT_TRUE(killed);
        std::filesystem::rename(leftover, leftover + ".kept");
    }
    std::filesystem::rename(leftover + ".kept", leftover);
    EXPECT_TRUE(ControlSocket::open(loop, leftover, [](std::string_view, CommandReply) {}));
}

TEST_F(ControlSocketTest, BadPaths) {
    const auto open = [&](const std::string& p) {
        auto door = ControlSocket::open(loop, p, [](std::string_view, CommandReply) {});
        return door ? std::string("opened") : door.error().text;
    };
    EXPECT_THAT(open(""), HasSubstr("give a path"));
    EXPECT_THAT(open(std::string(200, 'x')), HasSubstr("give a path"));
    EXPECT_THAT(open("/nonexistent/sock"), HasSubstr("No such file"));
    const std::string file = folder / "file";
    std::ofstream(file) << "x";
    EXPECT_THAT(open(file), HasSubstr("no socket"));
    EXPECT_TRUE(std::filesystem::exists(file));
}

}  // namespace
}  // namespace gmgate::home
