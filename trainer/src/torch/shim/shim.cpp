// Functions of libtorch that tch does not bind: fused optimizers, operations on many tensors at once, autocast for any
// device, events, random generators, memory statistics. Only `mod.rs` beside this file calls them; it documents their arguments.
//
// No exception leaves a function: each returns an error text that the caller frees, or a null pointer.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "guarded.h"

namespace {

using Tensors = at::Tensor *const *;

std::vector<at::Tensor> list(Tensors tensors, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (size_t i = 0; i < count; ++i) all.push_back(*tensors[i]);
  return all;
}

std::optional<at::Tensor> maybe(const at::Tensor *tensor) {
  return tensor == nullptr ? std::nullopt : std::optional<at::Tensor>(*tensor);
}

at::Generator generator(int cuda, int index) {
  const c10::Device device = cuda != 0 ? c10::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index)) : c10::Device(at::kCPU);
  return at::globalContext().defaultGenerator(device);
}

} // namespace

extern "C" {

char *mrm_fused_adamw(Tensors parameters, Tensors gradients, Tensors means, Tensors squares, Tensors steps, size_t count,
                      double lr, double beta1, double beta2, double decay, double epsilon, const at::Tensor *skip) {
  return guarded([&] {
    auto counts = list(steps, count);
    at::_foreach_add_(counts, 1);
    at::_fused_adamw_(list(parameters, count), list(gradients, count), list(means, count), list(squares, count), {},
                      counts, lr, beta1, beta2, decay, epsilon, false, false, {}, maybe(skip));
    if (skip != nullptr) at::_foreach_sub_(counts, std::vector<at::Tensor>(count, *skip));
  });
}

char *mrm_fused_sgd(Tensors parameters, Tensors gradients, Tensors momenta, size_t count, double lr, double momentum,
                    double decay, const at::Tensor *skip) {
  return guarded([&] {
    at::_fused_sgd_(list(parameters, count), list(gradients, count), list(momenta, count), decay, momentum, lr, 0.0,
                    false, false, false, {}, maybe(skip));
  });
}

char *mrm_norm(Tensors tensors, size_t count, at::Tensor *norm) {
  return guarded([&] {
    *norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(list(tensors, count), 2, at::kFloat)));
  });
}

char *mrm_scale(Tensors tensors, size_t count, const at::Tensor *factor) {
  return guarded([&] { at::_foreach_mul_(list(tensors, count), *factor); });
}

char *mrm_lerp(Tensors tensors, Tensors targets, size_t count, double weight) {
  return guarded([&] { at::_foreach_lerp_(list(tensors, count), list(targets, count), weight); });
}

char *mrm_copy(Tensors tensors, Tensors sources, size_t count) {
  return guarded([&] { at::_foreach_copy_(list(tensors, count), list(sources, count)); });
}

char *mrm_add(Tensors tensors, Tensors others, size_t count) {
  return guarded([&] { at::_foreach_add_(list(tensors, count), list(others, count)); });
}

char *mrm_set_data(Tensors variables, Tensors values, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) {
      variables[i]->mutable_grad() = at::Tensor();
      variables[i]->set_data(*values[i]);
    }
  });
}

char *mrm_drop_gradients(Tensors tensors, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) tensors[i]->mutable_grad() = at::Tensor();
  });
}

char *mrm_set_gradient(const at::Tensor *tensor, const at::Tensor *gradient) {
  return guarded([&] { tensor->mutable_grad() = *gradient; });
}

char *mrm_pin(const at::Tensor *tensor, at::Tensor *pinned) {
  return guarded([&] { *pinned = tensor->pin_memory(); });
}

char *mrm_autocast_begin(int cuda, int kind, int *was_enabled, int *was_kind) {
  return guarded([&] {
    const auto device = cuda != 0 ? at::kCUDA : at::kCPU;
    *was_enabled = at::autocast::is_autocast_enabled(device) ? 1 : 0;
    *was_kind = static_cast<int>(at::autocast::get_autocast_dtype(device));
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(kind));
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

char *mrm_autocast_end(int cuda, int was_enabled, int was_kind) {
  return guarded([&] {
    const auto device = cuda != 0 ? at::kCUDA : at::kCPU;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, was_enabled != 0);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(was_kind));
  });
}

void mrm_keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);                 // freed blocks are not returned to the system,
  mallopt(M_TRIM_THRESHOLD, INT32_MAX);   // nor is the end of the heap,
  mallopt(M_TOP_PAD, 64 << 20);           // which grows in large steps
#endif
}

char *mrm_event_record(int index, c10::Event **event) {
  return guarded([&] {
    const c10::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
    auto recorded = std::make_unique<c10::Event>(at::kCUDA);
    recorded->record(c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device));
    *event = recorded.release();
  });
}

char *mrm_event_wait(c10::Event *event) {
  return guarded([&] { event->synchronize(); });
}

void mrm_event_drop(c10::Event *event) { delete event; }

char *mrm_random_state(int cuda, int index, at::Tensor *state) {
  return guarded([&] {
    auto source = generator(cuda, index);
    std::lock_guard<std::mutex> lock(source.mutex());
    *state = source.get_state();
  });
}

char *mrm_set_random_state(int cuda, int index, const at::Tensor *state) {
  return guarded([&] {
    auto target = generator(cuda, index);
    std::lock_guard<std::mutex> lock(target.mutex());
    target.set_state(*state);
  });
}

char *mrm_peak_memory(int index, int reset, int64_t *bytes) {
  return guarded([&] {
    auto *allocator = c10::getDeviceAllocator(at::kCUDA);
    if (reset != 0) allocator->resetPeakStats(static_cast<c10::DeviceIndex>(index));
    *bytes = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(index)).allocated_bytes[0].peak;
  });
}

} // extern "C"
