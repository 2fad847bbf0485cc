// NCCL as the backend of CUDA tensors; compiled where the CUDA libraries and headers are there (build.rs).

#include "c10d.h"

#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

static_assert(NCCL_VERSION_CODE == 22809, "torch 2.11.0 was built with the headers of nvidia-nccl-cu13 2.28.9; its Options hold "
                                          "an ncclConfig_t by value");
static_assert(sizeof(c10d::ProcessGroupNCCL::Options) == 248, "as in the wheel's libtorch_cuda.so");
static_assert(sizeof(c10d::ProcessGroupNCCL) == 1112, "as in the wheel's libtorch_cuda.so");

extern "C" char *mrm_group_add_nccl(MrmGroup *group, int device) {
  return guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = group->timeout;
    auto store = c10::make_intrusive<c10d::PrefixStore>("nccl", group->store);
    const int rank = group->group->getRank(), world = group->group->getSize();
    group->nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, world, options);
    group->nccl->setBoundDeviceId(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device)));
    group->group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, group->nccl);
  });
}
