#pragma once
// The messages in files that several tests run over.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace gmgate::sip::test {

struct CorpusFile {
    std::string name;
    std::string bytes;
};

inline std::string read_file(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

// All files of a folder with that ending, by name.
inline std::vector<CorpusFile> corpus(const std::filesystem::path& folder,
                                      const std::string& ending) {
    std::vector<CorpusFile> files;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
        if (entry.path().extension() != ending) continue;
        files.push_back({entry.path().filename().string(), read_file(entry.path())});
    }
    std::ranges::sort(files, {}, &CorpusFile::name);
    return files;
}

// The project's own, of a folder of tests/data: a test that runs over none of them tests nothing.
inline std::vector<CorpusFile> own_corpus(const std::string& folder, const std::string& ending) {
    auto files = corpus(GMGATE_TEST_DATA + folder, ending);
    EXPECT_FALSE(files.empty()) << "no " << ending << " files in tests/data" << folder;
    return files;
}

}  // namespace gmgate::sip::test
