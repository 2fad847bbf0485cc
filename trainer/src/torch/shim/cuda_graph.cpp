// CUDA graphs: work of a device that is recorded once and repeated. `cuda_graph.rs` beside this file documents the functions.
// Compiled where the CUDA libraries and headers are there (build.rs).

#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include "guarded.h"

namespace {

// `later` starts its next work after all work that `earlier` has now.
void order(const c10::cuda::CUDAStream &earlier, const c10::cuda::CUDAStream &later) {
  c10::Event event(at::kCUDA);
  event.record(earlier.unwrap());
  event.block(later.unwrap());
}

} // namespace

struct MrmGraph {
  explicit MrmGraph(c10::DeviceIndex device)
      : side(c10::cuda::getStreamFromPool(false, device)), outside(c10::cuda::getCurrentCUDAStream(device)) {}
  c10::cuda::CUDAStream side;
  c10::cuda::CUDAStream outside; // the current stream before the side stream is
  at::cuda::CUDAGraph graph;
};

extern "C" {

char *mrm_graph_new(int device, MrmGraph **graph) {
  return guarded([&] { *graph = new MrmGraph(static_cast<c10::DeviceIndex>(device)); });
}

char *mrm_graph_enter(MrmGraph *graph) {
  return guarded([&] {
    graph->outside = c10::cuda::getCurrentCUDAStream(graph->side.device_index());
    order(graph->outside, graph->side);
    c10::cuda::setCurrentCUDAStream(graph->side);
  });
}

char *mrm_graph_leave(MrmGraph *graph) {
  return guarded([&] {
    c10::cuda::setCurrentCUDAStream(graph->outside);
    order(graph->side, graph->outside);
  });
}

char *mrm_graph_begin(MrmGraph *graph, MrmGraph *other) {
  return guarded([&] {
    // As torch.cuda.graph does: the memory of the passes before is free for the private pool.
    c10::cuda::device_synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    const auto pool = other == nullptr ? at::cuda::MempoolId_t{0, 0} : other->graph.pool();
    // Other threads, such as the loader's, may allocate pinned memory meanwhile.
    graph->graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
  });
}

char *mrm_graph_end(MrmGraph *graph) {
  return guarded([&] { graph->graph.capture_end(); });
}

char *mrm_graph_replay(MrmGraph *graph) {
  return guarded([&] { graph->graph.replay(); });
}

void mrm_graph_drop(MrmGraph *graph) { delete graph; }

} // extern "C"
