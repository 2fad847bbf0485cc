// What c10d.cpp and nccl.cpp share.
#pragma once

#include <chrono>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "../shim/guarded.h"

// A key-value store that all processes of a job reach.
struct MrmStore {
  c10::intrusive_ptr<c10d::Store> store;
};

// The processes of a job, with a backend for each kind of device.
struct MrmGroup {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> gloo;
  c10::intrusive_ptr<c10d::Backend> nccl;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::chrono::milliseconds timeout;
};

