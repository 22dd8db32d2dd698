#include "base/secret_text.h"

#include <alloca.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <new>

#include "base/unique_fd.h"

namespace gmgate {

Result<WipedText> read_keys(const std::string& path, std::size_t most) {
    const auto system_says = [] { return fail(ErrorKind::io, std::strerror(errno)); };
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return system_says();
    struct stat about{};
    if (::fstat(fd.get(), &about) != 0) return system_says();
    if (!S_ISREG(about.st_mode)) return fail(ErrorKind::io, "not a regular file");
    if (static_cast<std::uint64_t>(about.st_size) > most)
        return fail(ErrorKind::exhausted, "too large");
    WipedText text(static_cast<std::size_t>(about.st_size), '\0');
    std::size_t held = 0;
    while (held < text.size()) {
        const ssize_t n = ::read(fd.get(), text.data() + held, text.size() - held);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return system_says();
        if (n == 0) break;
        held += static_cast<std::size_t>(n);
    }
    text.resize(held);
    return text;
}

[[gnu::noinline]] void wipe_stack(std::size_t deep) {
    wipe({static_cast<std::uint8_t*>(alloca(deep)), deep});
}

namespace {

// OpenSSL does not say how much it gives back: that stands before each block.
constexpr std::size_t block_header = 16;

void* openssl_allocate(std::size_t bytes, const char* /*file*/, int /*line*/) {
    if (bytes == 0 || bytes > SIZE_MAX - block_header) return nullptr;
    try {
        auto* p = static_cast<std::uint8_t*>(secret_allocate(bytes + block_header));
        std::memcpy(p, &bytes, sizeof bytes);
        return p + block_header;
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

std::size_t openssl_size(const void* block) {
    std::size_t bytes = 0;
    std::memcpy(&bytes, static_cast<const std::uint8_t*>(block) - block_header, sizeof bytes);
    return bytes;
}

void openssl_free(void* block, const char* /*file*/, int /*line*/) {
    if (block == nullptr) return;
    secret_deallocate(static_cast<std::uint8_t*>(block) - block_header,
                      openssl_size(block) + block_header);
}

void* openssl_reallocate(void* block, std::size_t bytes, const char* file, int line) {
    if (block == nullptr) return openssl_allocate(bytes, file, line);
    if (bytes == 0) {
        openssl_free(block, file, line);
        return nullptr;
    }
    void* made = openssl_allocate(bytes, file, line);
    if (made == nullptr) return nullptr;
    std::memcpy(made, block, std::min(bytes, openssl_size(block)));
    openssl_free(block, file, line);
    return made;
}

}  // namespace

bool keep_openssl_in_secret_memory() {
    return CRYPTO_set_mem_functions(openssl_allocate, openssl_reallocate, openssl_free) == 1;
}

}  // namespace gmgate
