#pragma once
// Errors are values (docs/decisions/0002): everything after start-up returns a Result.

#include <expected>
#include <string>
#include <utility>

namespace gmgate {

enum class ErrorKind : unsigned char {
    invalid,      // the input is wrong and stays wrong
    exhausted,    // a table, pool, range or limit is full; later it may go
    not_found,    // what was named does not exist
    conflict,     // it exists already, or the state forbids it
    unsupported,  // understood, and not offered here
    denied,       // permission or policy
    io,           // the operating system said no
};

// `text` is one line for a person: what, who, what to do. Never holds a key or other secret (S1).
struct Error {
    ErrorKind kind = ErrorKind::invalid;
    std::string text;
};

template <class T>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> fail(ErrorKind kind, std::string text) {
    return std::unexpected<Error>(Error{kind, std::move(text)});
}

}  // namespace gmgate
