#pragma once
// Keys that pass through text, through the stack, and through OpenSSL (S1).

#include <cstddef>
#include <string>

#include "base/result.h"
#include "base/secret.h"

namespace gmgate {

using WipedText = std::basic_string<char, std::char_traits<char>, WipingAllocator<char>>;

// A regular file that holds keys, whole; no buffer of a library sees it. io: what the system says,
// without the path; exhausted: larger than `most` octets.
[[nodiscard]] Result<WipedText> read_keys(const std::string& path, std::size_t most);

// Overwrites the stack below the caller, where functions it called have left copies of keys that
// the compiler made: arguments, results, saved registers. `deep`: as far as those reached.
void wipe_stack(std::size_t deep = std::size_t{32} * 1024);

// From now on OpenSSL has its memory from secret_allocate(): key schedules and MAC states lie
// outside core dumps and are wiped when they go. Before anything of OpenSSL is used; false: it was.
// For programs whose cryptography is OpenSSL's alone.
[[nodiscard]] bool keep_openssl_in_secret_memory();

}  // namespace gmgate
