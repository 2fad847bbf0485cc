// PyTorch's c10d: store, process group with Gloo, collectives with and without gradients, the reducer of
// DistributedDataParallel. Only `mod.rs` beside this file calls these functions; it documents their arguments.

#include "c10d.h"

#include <cstdlib>
#include <limits>

#define USE_C10D_GLOO
#include <c10/util/Flags.h>
#include <c10/util/Logging.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <torch/version.h>

static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11, "gloo_headers/ was checked against torch 2.11");
#ifdef __x86_64__
static_assert(sizeof(c10d::ProcessGroupGloo) == 488, "the size of this class in the wheel's libtorch_cpu.so");
#endif

C10_DECLARE_int(caffe2_log_level);

namespace {

using Tensors = at::Tensor *const *;
using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

std::vector<at::Tensor> list(Tensors tensors, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (size_t i = 0; i < count; ++i) all.push_back(tensors[i]->detach());
  return all;
}

at::Tensor sum(const Group &group, const at::Tensor &tensor) {
  std::vector<at::Tensor> reduced{tensor.clone(at::MemoryFormat::Contiguous)};
  group->allreduce(reduced, {})->wait();
  return reduced[0];
}

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// The sum over all ranks. Its gradient is the sum of the ranks' gradients.
struct Sum : torch::autograd::Function<Sum> {
  static Variable forward(AutogradContext *context, const Variable &tensor, const Group &group) {
    context->saved_data["group"] = group;
    return sum(group, tensor);
  }
  static variable_list backward(AutogradContext *context, const variable_list &gradients) {
    auto group = context->saved_data["group"].toCustomClass<c10d::ProcessGroup>();
    return {sum(group, gradients[0]), Variable()};
  }
};

// The tensors of all ranks, stacked: [...] -> [world, ...]. The gradient of a rank's own tensor is the sum over all ranks
// of the gradients at its place.
struct Gather : torch::autograd::Function<Gather> {
  static Variable forward(AutogradContext *context, const Variable &tensor, const Group &group) {
    context->saved_data["group"] = group;
    std::vector<std::vector<at::Tensor>> gathered(1);
    for (int rank = 0; rank < group->getSize(); ++rank) gathered[0].push_back(at::empty_like(tensor, at::MemoryFormat::Contiguous));
    std::vector<at::Tensor> own{tensor.contiguous()};
    group->allgather(gathered, own, {})->wait();
    return at::stack(gathered[0]);
  }
  static variable_list backward(AutogradContext *context, const variable_list &gradients) {
    auto group = context->saved_data["group"].toCustomClass<c10d::ProcessGroup>();
    return {sum(group, gradients[0])[group->getRank()], Variable()};
  }
};

} // namespace

// The reducer calls its logger, without a check that it has one, when other parameters are unused than in the step before.
struct Reducer {
  std::shared_ptr<c10d::Reducer> reducer;
  std::shared_ptr<c10d::Logger> logger;
};

extern "C" {

char *mrm_store_open(const char *host, uint16_t port, int serves, int world, int64_t timeout, const char *prefix,
                     MrmStore **out) {
  return guarded([&] {
    c10::initLogging(); // so that TORCH_CPP_LOG_LEVEL counts
    // Warnings of c10d end in backtraces, and the errors that matter are returned.
    if (getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = c10::GLOG_ERROR;
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serves != 0;
    options.numWorkers = world;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout);
    auto tcp = c10::make_intrusive<c10d::TCPStore>(host, options);
    *out = new MrmStore{c10::make_intrusive<c10d::PrefixStore>(prefix, tcp)};
  });
}

char *mrm_store_set(MrmStore *store, const char *key, const uint8_t *value, size_t length) {
  return guarded([&] { store->store->set(key, std::vector<uint8_t>(value, value + length)); });
}

char *mrm_store_has(MrmStore *store, const char *key, int *has) {
  return guarded([&] { *has = store->store->check({key}) ? 1 : 0; });
}

char *mrm_store_get(MrmStore *store, const char *key, uint8_t **value, size_t *length) {
  return guarded([&] {
    const auto read = store->store->get(key);
    *value = static_cast<uint8_t *>(malloc(read.size() + 1));
    if (*value == nullptr) throw std::bad_alloc();
    memcpy(*value, read.data(), read.size());
    *length = read.size();
  });
}

MrmStore *mrm_store_share(MrmStore *store) { return new MrmStore(*store); }

void mrm_store_drop(MrmStore *store) { delete store; }

char *mrm_group_join(MrmStore *store, int rank, int world, int64_t timeout, int for_cuda, MrmGroup **out) {
  return guarded([&] {
    auto joined = std::make_unique<MrmGroup>();
    joined->timeout = std::chrono::milliseconds(timeout);
    joined->store = store->store;
    joined->group = c10::make_intrusive<c10d::ProcessGroup>(joined->store, rank, world);
    auto options = c10d::ProcessGroupGloo::Options::create_default(joined->timeout);
    joined->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>("gloo", joined->store),
                                                              rank, world, options);
    const auto gloo = c10d::ProcessGroup::BackendType::GLOO;
    joined->group->setBackend(c10::DeviceType::CPU, gloo, joined->gloo);
    if (for_cuda != 0) joined->group->setBackend(c10::DeviceType::CUDA, gloo, joined->gloo);
    joined->group->setDefaultBackend(gloo);
    joined->group->setGroupName("mrm");
    *out = joined.release();
  });
}

char *mrm_group_sum(MrmGroup *group, Tensors tensors, size_t count) {
  return guarded([&] {
    auto all = list(tensors, count);
    group->group->allreduce_coalesced(all, {})->wait();
  });
}

char *mrm_group_broadcast(MrmGroup *group, Tensors tensors, size_t count, int root) {
  return guarded([&] {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    for (auto &tensor : list(tensors, count)) {
      std::vector<at::Tensor> one{tensor};
      group->group->broadcast(one, options)->wait();
    }
  });
}

char *mrm_group_sum_with_gradient(MrmGroup *group, const at::Tensor *tensor, at::Tensor *out) {
  return guarded([&] { *out = Sum::apply(*tensor, group->group); });
}

char *mrm_group_gather_with_gradient(MrmGroup *group, const at::Tensor *tensor, at::Tensor *out) {
  return guarded([&] { *out = Gather::apply(*tensor, group->group); });
}

char *mrm_group_shutdown(MrmGroup *group) {
  return guarded([&] { group->group->shutdown(); });
}

void mrm_group_drop(MrmGroup *group) { delete group; }

char *mrm_reducer_new(MrmGroup *group, Tensors tensors, size_t count, int64_t bucket_bytes, Reducer **out) {
  return guarded([&] {
    std::vector<at::Tensor> parameters;
    for (size_t i = 0; i < count; ++i) parameters.push_back(*tensors[i]);
    const std::vector<bool> dense(count, false);
    auto [buckets, limits] = c10d::compute_bucket_assignment_by_size(
        parameters, {static_cast<size_t>(c10d::kDefaultFirstBucketBytes), static_cast<size_t>(bucket_bytes)}, dense);
    std::reverse(buckets.begin(), buckets.end());
    auto reducer = std::make_shared<c10d::Reducer>(
        std::move(parameters), std::move(buckets), group->group, dense, bucket_bytes, /*find_unused_parameters=*/true,
        /*gradient_as_bucket_view=*/false, std::unordered_map<size_t, std::string>{}, c10d::kDefaultFirstBucketBytes,
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>{});
    auto logger = std::make_shared<c10d::Logger>(reducer);
    reducer->set_logger(logger);
    *out = new Reducer{std::move(reducer), std::move(logger)};
  });
}

char *mrm_reducer_before_forward(Reducer *reducer) {
  return guarded([&] {
    reducer->reducer->prepare_for_forward();
    reducer->reducer->rebuild_buckets();
  });
}

char *mrm_reducer_before_backward(Reducer *reducer, const at::Tensor *loss) {
  return guarded([&] { reducer->reducer->prepare_for_backward({*loss}); });
}

void mrm_reducer_drop(Reducer *reducer) { delete reducer; }

} // extern "C"
