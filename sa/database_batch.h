#pragma once
// Inside the database only: while one of these lives, removals are collected; the last one to go
// hands them to the packet layer in one call, at the cost of one grace period.

#include "sa/database.h"

namespace gmgate::sa {

class SaDatabase::Batch {
  public:
    explicit Batch(SaDatabase& db) : db_(db) { ++db_.batch_depth_; }
    ~Batch() {
        if (--db_.batch_depth_ == 0) db_.flush_removals();
    }
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;

  private:
    SaDatabase& db_;
};

}  // namespace gmgate::sa
