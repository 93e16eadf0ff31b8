#include "hosts/tensorrt/routine.h"

#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "bilateral/bilateral.h"
#include "hosts/registration.h"
#include "hosts/tensorrt/entries.h"
#include "jacobian/jacobian.h"
#include "nlm/nlm.h"
#include "sample/sample.h"

namespace ek {
namespace hosts {
namespace {

template <class Voxel>
struct Entry {
  static constexpr const char* name = nullptr;
};
#define EK_NAME(entry, ...)                     \
  template <>                                   \
  struct Entry<__VA_ARGS__> {                   \
    static constexpr const char* name = #entry; \
  };
EK_DEVICE_ENTRIES(EK_NAME)
#undef EK_NAME

// Launches what it is called with: the end of every with_..._voxel().
struct OnDevice {
  Device& device;

  template <class Voxel>
  void operator()(const Voxel& voxel) const {
    static_assert(std::is_trivially_copyable<Voxel>::value && sizeof(Voxel) < 4096,
                  "a kernel takes its argument by value");
    // Of integers and of channels-last images there are none: no host has them.
    if (!Entry<Voxel>::name) throw std::logic_error("the device code lacks a kernel");
    device.launch({Entry<Voxel>::name, &voxel, sizeof voxel, static_cast<uint32_t>(voxel.rows()),
                   static_cast<uint32_t>(voxel.items())});
  }
};

// Hands out the workspace.
class Space {
 public:
  Space(void* data, int64_t bytes) : next_(static_cast<char*>(data)), left_(bytes) {}

  void* take(int64_t bytes) {
    if (aligned(bytes) > left_) throw std::logic_error("the workspace is too small");
    char* taken = next_;
    next_ += aligned(bytes);
    left_ -= aligned(bytes);
    return taken;
  }

 private:
  char* next_;
  int64_t left_;
};

int64_t wide_bytes(const Shape& shape) { return aligned(shape.elements() * size_of(Type::kFloat32)); }

int64_t bytes_if_half(const Array& array) {
  return array.type == Type::kFloat16 ? wide_bytes(array.shape) : 0;
}

template <class From, class To>
void convert(const Array& from, const Array& to, Device& device) {
  OnDevice{device}(device::ConvertVoxel<From, To>{static_cast<const From*>(from.data),
                                                  static_cast<To*>(to.data), from.shape.elements()});
}

// Memory in float32 for an array: its own if it is of that type.
Array wide(const Array& array, Space& space) {
  if (array.type == Type::kFloat32) return array;
  return {space.take(wide_bytes(array.shape)), Type::kFloat32, array.shape};
}

Array widened(const Array& array, Space& space, Device& device) {
  const Array result = wide(array, space);
  if (array.type == Type::kFloat16) convert<Half, float>(array, result, device);
  return result;
}

void finish(const Array& wide, const Array& output, Device& device) {
  if (output.type == Type::kFloat16) convert<float, Half>(wide, output, device);
}

void launch(const Sample& args, Device& device) {
  device::with_sample_voxel(plan_sample(args), OnDevice{device});
}

void warp(const Call& call, Space&, Device& device) { launch(warp_arguments(call), device); }

void compose(const Call& call, Space& space, Device& device) {
  const Array first = widened(call.inputs[0], space, device), second = widened(call.inputs[1], space, device);
  const Array out = wide(call.output, space);
  launch(compose_arguments(first, second, out, 1.0f, boundary_of(call.values[0].s)), device);
  finish(out, call.output, device);
}

void integrate(const Call& call, Space& space, Device& device) {
  const int steps = static_cast<int>(call.values[0].i);
  const Array& given = call.inputs[0];
  if (steps == 0) {
    return device.copy(call.output.data, given.data, given.shape.elements() * size_of(given.type));
  }
  // Two buffers take turns, so that the last composition lands in the output. The first one scales.
  Array field = widened(given, space, device);
  const Array out = wide(call.output, space);
  Array spare = out;
  if (steps > 1) spare.data = space.take(wide_bytes(out.shape));
  float scale = std::ldexp(1.0f, -steps);
  for (int left = steps; left > 0; --left, scale = 1.0f) {
    const Array& next = left % 2 ? out : spare;
    launch(compose_arguments(field, field, next, scale, boundary_of(call.values[1].s)), device);
    field = next;
  }
  finish(out, call.output, device);
}

void grid_sample(const Call& call, Space& space, Device& device) {
  launch(grid_sample_arguments(call, widened(call.inputs[1], space, device)), device);
}

void determinant(const Call& call, Space& space, Device& device) {
  const Array out = wide(call.output, space);
  const JacobianDeterminant args = determinant_arguments(call.inputs[0], out);
  check(args);
  device::with_jacobian_voxel(args, OnDevice{device});
  finish(out, call.output, device);
}

void non_local_means(const Call& call, Space& space, Device& device) {
  float* sigma = static_cast<float*>(space.take(sizeof(float)));
  device.fill(sigma, float_to_bits(call.values[0].f), 1);
  device::with_nlm_voxel(plan_nlm(nlm_arguments(call, sigma)), OnDevice{device});
}

void bilateral(const Call& call, const Window& window, Space& space, Device& device) {
  Bilateral args = bilateral_arguments(call, window);
  check(args);  // which reads the tables
  const int64_t offsets = args.pairs * 3 * static_cast<int64_t>(sizeof(int32_t));
  const int64_t weights = args.pairs * static_cast<int64_t>(sizeof(float));
  void* offsets_there = space.take(offsets);
  void* weights_there = space.take(weights);
  device.upload(offsets_there, args.offsets, offsets);
  device.upload(weights_there, args.weights, weights);
  args.offsets = static_cast<const int32_t*>(offsets_there);
  args.weights = static_cast<const float*>(weights_there);
  device::with_bilateral_voxel(args, OnDevice{device});
}

int64_t nothing(const Call&) { return 0; }

int64_t compose_bytes(const Call& call) { return 3 * bytes_if_half(call.output); }

int64_t integrate_bytes(const Call& call) {
  const int64_t steps = call.values[0].i, field = wide_bytes(call.output.shape);
  if (steps == 0) return 0;
  return 2 * bytes_if_half(call.output) + (steps > 1 ? field : 0);
}

int64_t grid_bytes(const Call& call) { return bytes_if_half(call.inputs[1]); }

int64_t determinant_bytes(const Call& call) { return bytes_if_half(call.output); }

int64_t sigma_bytes(const Call&) { return aligned(sizeof(float)); }

int64_t window_bytes(const Window& window) {
  return aligned(static_cast<int64_t>(window.offsets.size() * sizeof(int32_t))) +
         aligned(static_cast<int64_t>(window.weights.size() * sizeof(float)));
}

// The bilateral filter has a window beside, and is no part of this.
struct OnDevices {
  const char* name;
  int64_t (*bytes)(const Call& call);
  void (*run)(const Call& call, Space& space, Device& device);
};

constexpr OnDevices kRoutines[] = {
    {"Warp", nothing, warp},
    {"Compose", compose_bytes, compose},
    {"IntegrateVelocity", integrate_bytes, integrate},
    {"GridSample3d", grid_bytes, grid_sample},
    {"JacobianDeterminant", determinant_bytes, determinant},
    {"NonLocalMeans", sigma_bytes, non_local_means},
};

const OnDevices& routine_of(const Operator& op) {
  for (const OnDevices& routine : kRoutines) {
    if (op.name == std::string(routine.name)) return routine;
  }
  throw std::logic_error(std::string("no routine for ") + op.name);
}

bool has_window(const Operator& op) { return op.name == std::string("Bilateral"); }

Call call_of(const Array* inputs, const Array& output, const std::vector<Value>& values) {
  Call call{};
  call.inputs = inputs;
  call.output = output;
  call.values = values.data();
  return call;
}

}  // namespace

Routine::Routine(const Operator& op, std::vector<Value> values) : op_(&op), values_(std::move(values)) {
  check_values(op, values_.data());
}

int64_t Routine::workspace_bytes(const Array* inputs, const Array& output) const {
  const Call call = call_of(inputs, output, values_);
  if (has_window(*op_)) return window_bytes(bilateral_window(dims_of(output.shape), values_.data()));
  return routine_of(*op_).bytes(call);
}

void Routine::run(const Array* inputs, const Array& output, void* workspace, Device& device) {
  const Call call = call_of(inputs, output, values_);
  check_call(*op_, call);
  if (has_window(*op_)) {
    const Window& window = window_for(dims_of(output.shape));
    Space space(workspace, window_bytes(window));
    return bilateral(call, window, space, device);
  }
  const OnDevices& routine = routine_of(*op_);
  Space space(workspace, routine.bytes(call));
  routine.run(call, space, device);
}

const Window& Routine::window_for(int dims) {
  Window& window = windows_[dims - 2];
  if (window.weights.empty()) window = bilateral_window(dims, values_.data());
  return window;
}

std::vector<AxisOf> output_axes(const Operator& op, const int* ranks) {
  std::vector<AxisOf> found;
  const int count = static_cast<int>(op.inputs.size());
  Shape inputs[kMaxInputs];
  const auto forget = [&] {
    for (int i = 0; i < count; ++i) {
      require(ranks[i] >= 0 && ranks[i] <= kMaxRank, std::string(op.name) + " wants 4 or 5 axes");
      inputs[i].rank = ranks[i];
      for (int axis = 0; axis < ranks[i]; ++axis) inputs[i].dims[axis] = -1;
    }
  };
  forget();
  found.resize(static_cast<size_t>(op.shape(inputs).rank), {-1, -1});
  // With one length known and all others not, the axes of the output that it is the length of are known. As
  // many as there are components any axis may have.
  for (int i = count; i-- > 0;) {
    for (int axis = 0; axis < ranks[i]; ++axis) {
      forget();
      inputs[i].dims[axis] = ranks[i] - 2;
      const Shape output = op.shape(inputs);
      for (int to = 0; to < output.rank; ++to) {
        if (output.dims[to] >= 0) found[static_cast<size_t>(to)] = {i, axis};
      }
    }
  }
  for (const AxisOf& axis : found) {
    if (axis.input < 0)
      throw std::logic_error(std::string(op.name) + ": an axis of the output has no length");
  }
  return found;
}

}  // namespace hosts
}  // namespace ek
