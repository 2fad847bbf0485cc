// Losses whose gradient replaces the prediction in memory. `in_place_loss.rs` beside this file documents them.

#include <algorithm>
#include <cstdint>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_log_softmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Calls `body(first row, rows)` for one chunk after the other.
template <typename Body> void in_chunks(int64_t rows, int64_t chunk, Body body) {
  for (int64_t first = 0; first < rows; first += chunk) body(first, std::min(chunk, rows - first));
}

// The label of a row that takes no part in the loss, as in torch's cross-entropy.
constexpr int64_t ignored_label = -100;

class CrossEntropy : public torch::autograd::Function<CrossEntropy> {
public:
  // Logits [N, V] and labels [N] to the sum of the losses, a float32 scalar. Rows with the ignored label add nothing.
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &logits, const at::Tensor &labels, int64_t chunk) {
    TORCH_CHECK(logits.dim() == 2 && logits.is_contiguous(), "cross-entropy: logits must be contiguous, [N, V]");
    const auto rows = logits.size(0);
    const auto floats = logits.options().dtype(at::kFloat);
    auto losses = at::empty({rows, 1}, floats);
    auto normalizers = at::empty({rows, 1}, floats); // log of the sum of exponentials
    in_chunks(rows, chunk, [&](int64_t first, int64_t count) {
      const auto values = logits.narrow(0, first, count).to(at::kFloat);
      const auto given = labels.narrow(0, first, count).unsqueeze(1);
      const auto ignored = given.eq(ignored_label);
      const auto label = given.masked_fill(ignored, 0);
      const auto likelihood = at::_log_softmax(values, 1, false).gather(1, label);
      losses.narrow(0, first, count).copy_(likelihood).neg_().masked_fill_(ignored, 0);
      normalizers.narrow(0, first, count).copy_(values.gather(1, label).sub_(likelihood));
    });
    ctx->save_for_backward({logits, labels, normalizers});
    ctx->saved_data["chunk"] = chunk;
    return losses.sum();
  }

  // The gradient softmax(logits) - one-hot(labels), times that of the sum. It is written over the logits.
  static variable_list backward(AutogradContext *ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables(); // fails where a backward pass has replaced the logits before
    const auto logits = saved[0].detach();
    const auto minus_one = at::full({1, 1}, -1.0, saved[2].options());
    in_chunks(logits.size(0), ctx->saved_data["chunk"].toInt(), [&](int64_t first, int64_t count) {
      auto target = logits.narrow(0, first, count);
      const auto given = saved[1].narrow(0, first, count).unsqueeze(1);
      const auto ignored = given.eq(ignored_label);
      const auto label = given.masked_fill(ignored, 0);
      auto values = at::sub(target, saved[2].narrow(0, first, count)).exp_(); // float32
      values.scatter_add_(1, label, minus_one.expand({count, 1}));
      at::mul_out(target, values, gradients[0].expand({count, 1}).masked_fill(ignored, 0));
    });
    return {logits, at::Tensor(), at::Tensor()};
  }
};

class SquaredError : public torch::autograd::Function<SquaredError> {
public:
  // Predictions [N, V, C] and float32 targets [N, V], the same for all C, to the mean squared error, a float32 scalar.
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &predicted, const at::Tensor &target, int64_t chunk) {
    TORCH_CHECK(predicted.dim() == 3 && target.sizes() == predicted.sizes().slice(0, 2) && predicted.is_contiguous() &&
                    target.scalar_type() == at::kFloat,
                "squared error: predictions must be contiguous, [N, V, C], and targets float32, [N, V]");
    const auto rows = predicted.size(0);
    auto sums = at::empty({(rows + chunk - 1) / chunk}, target.options());
    in_chunks(rows, chunk, [&](int64_t first, int64_t count) {
      auto sum = sums.select(0, first / chunk);
      at::sum_out(sum, difference(predicted, target, first, count).square_(), at::OptionalIntArrayRef(), false);
    });
    ctx->save_for_backward({predicted, target});
    ctx->saved_data["chunk"] = chunk;
    return sums.sum().div_(static_cast<double>(predicted.numel()));
  }

  // The gradient 2 (prediction - target) / number of values, times that of the mean. It is written over the predictions.
  static variable_list backward(AutogradContext *ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables(); // fails where a backward pass has replaced the predictions before
    const auto predicted = saved[0].detach();
    const auto factor = gradients[0].mul(2.0 / static_cast<double>(predicted.numel()));
    in_chunks(predicted.size(0), ctx->saved_data["chunk"].toInt(), [&](int64_t first, int64_t count) {
      auto place = predicted.narrow(0, first, count);
      at::mul_out(place, difference(predicted, saved[1], first, count), factor);
    });
    return {predicted, at::Tensor(), at::Tensor()};
  }

private:
  static at::Tensor difference(const at::Tensor &predicted, const at::Tensor &target, int64_t first, int64_t count) {
    return at::sub(predicted.narrow(0, first, count), target.narrow(0, first, count).unsqueeze(-1)); // float32
  }
};

} // namespace

extern "C" {

char *mrm_cross_entropy(const at::Tensor *logits, const at::Tensor *labels, int64_t chunk, at::Tensor *loss) {
  return guarded([&] { *loss = CrossEntropy::apply(*logits, *labels, chunk); });
}

char *mrm_squared_error(const at::Tensor *predicted, const at::Tensor *target, int64_t chunk, at::Tensor *loss) {
  return guarded([&] { *loss = SquaredError::apply(*predicted, *target, chunk); });
}

} // extern "C"
