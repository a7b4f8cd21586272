// cuDNN's GRU as XLA calls it: three handlers of XLA's foreign function interface (a forward pass, and the gradients of
// data and of weights), and two plain C functions that say how much memory they need and how the weights lie in theirs.
//
// A net is any number of layers in one direction or both; arrays are whole batches, padded on the right:
//   x, dx        [T, B, I], or [B, T, I] where batch_major        h0, h_T, dh0, dh_T   [layers * directions, B, H]
//   y, dy        [T, B, directions * H], or [B, T, ...]           weights, dweights    flat, as cuDNN lays them out
//   lengths      [B] in 1 .. T                                    reserve, workspace   cuDNN's own, as large as it says

#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

using Failure = std::runtime_error;  // a refusal of cuDNN's or CUDA's

void Check(cudnnStatus_t status, const char* called) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char detail[512] = "";
  cudnnGetLastErrorString(detail, sizeof detail);
  std::string what = std::string(called) + " failed with " + cudnnGetErrorString(status);
  if (*detail) what += std::string(" (") + detail + ")";
  throw Failure(what);
}

void Check(cudaError_t status, const char* called) {
  if (status != cudaSuccess) throw Failure(std::string(called) + " failed with " + cudaGetErrorString(status));
}

// What is asked of cuDNN, the same in all calls of one net. The order is that of `Net.asked` in library.py.
struct Net {
  int64_t type, input, hidden, layers, bidirectional, batch_major, tf32, persistent, steps, batch;

  int64_t directions() const { return bidirectional ? 2 : 1; }
  cudnnDataType_t data() const { return static_cast<cudnnDataType_t>(type); }
  size_t width() const { return data() == CUDNN_DATA_FLOAT ? 4 : 2; }

  std::string described() const {
    const char* name = data() == CUDNN_DATA_FLOAT ? "float32" : data() == CUDNN_DATA_HALF ? "float16" : "bfloat16";
    return std::string("a GRU of ") + name + ", " + std::to_string(steps) + " steps, " + std::to_string(batch) +
           " sequences, " + std::to_string(input) + " features, " + std::to_string(hidden) + " units, " +
           std::to_string(layers) + (layers == 1 ? " layer" : " layers") +
           (bidirectional ? " in both directions" : "") + (persistent ? ", persistent" : "");
  }
};

// A descriptor that goes when its scope ends.
template <typename D, cudnnStatus_t (*Create)(D*), cudnnStatus_t (*Destroy)(D)>
class Owned {
 public:
  Owned() { Check(Create(&it_), "creating a descriptor"); }
  ~Owned() { Destroy(it_); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  operator D() const { return it_; }

 private:
  D it_ = nullptr;
};

using Dropout = Owned<cudnnDropoutDescriptor_t, cudnnCreateDropoutDescriptor, cudnnDestroyDropoutDescriptor>;
using Rnn = Owned<cudnnRNNDescriptor_t, cudnnCreateRNNDescriptor, cudnnDestroyRNNDescriptor>;
using Sequences = Owned<cudnnRNNDataDescriptor_t, cudnnCreateRNNDataDescriptor, cudnnDestroyRNNDataDescriptor>;
using Tensor = Owned<cudnnTensorDescriptor_t, cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor>;

// A cuDNN handle that works on one stream, borrowed: making one takes milliseconds and memory on the device, and two
// threads must not use the same at once.
class Handle {
 public:
  explicit Handle(cudaStream_t stream) {
    Check(cudaGetDevice(&key_.first), "cudaGetDevice");
    key_.second = stream;
    {
      std::lock_guard<std::mutex> lock(Guard());
      std::vector<cudnnHandle_t>& free = Pool()[key_];
      if (!free.empty()) {
        it_ = free.back();
        free.pop_back();
        return;
      }
    }
    Check(cudnnCreate(&it_), "cudnnCreate");
    cudnnStatus_t status = cudnnSetStream(it_, stream);
    if (status != CUDNN_STATUS_SUCCESS) cudnnDestroy(it_);
    Check(status, "cudnnSetStream");
  }
  ~Handle() {
    std::lock_guard<std::mutex> lock(Guard());
    Pool()[key_].push_back(it_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator cudnnHandle_t() const { return it_; }

 private:
  using Key = std::pair<int, cudaStream_t>;
  // Never destroyed: at the end of the process the driver may be gone first.
  static std::map<Key, std::vector<cudnnHandle_t>>& Pool() {
    static auto* pool = new std::map<Key, std::vector<cudnnHandle_t>>;
    return *pool;
  }
  static std::mutex& Guard() {
    static auto* guard = new std::mutex;
    return *guard;
  }

  Key key_;
  cudnnHandle_t it_ = nullptr;
};

// The descriptors of one call.
struct Plan {
  Plan(cudnnHandle_t handle, const Net& net, const std::vector<int>& lengths) {
    // Without dropout cuDNN neither needs random states nor touches them.
    Check(cudnnSetDropoutDescriptor(dropout, handle, 0.0f, nullptr, 0, 0), "cudnnSetDropoutDescriptor");
    const int hidden = static_cast<int>(net.hidden), batch = static_cast<int>(net.batch);
    Check(cudnnSetRNNDescriptor_v8(
              rnn, net.persistent ? CUDNN_RNN_ALGO_PERSIST_STATIC : CUDNN_RNN_ALGO_STANDARD, CUDNN_GRU,
              CUDNN_RNN_DOUBLE_BIAS, net.bidirectional ? CUDNN_BIDIRECTIONAL : CUDNN_UNIDIRECTIONAL, CUDNN_LINEAR_INPUT,
              net.data(), CUDNN_DATA_FLOAT, Math(net), static_cast<int>(net.input), hidden, hidden,
              static_cast<int>(net.layers), dropout, CUDNN_RNN_PADDED_IO_ENABLED),
          "cudnnSetRNNDescriptor_v8");
    Describe(x, net, static_cast<int>(net.input), lengths);
    Describe(y, net, static_cast<int>(net.directions()) * hidden, lengths);
    const int sizes[] = {static_cast<int>(net.layers * net.directions()), batch, hidden};
    const int strides[] = {batch * hidden, hidden, 1};
    Check(cudnnSetTensorNdDescriptor(h, net.data(), 3, sizes, strides), "cudnnSetTensorNdDescriptor");
  }

  Dropout dropout;
  Rnn rnn;
  Sequences x, y;
  Tensor h;

 private:
  static cudnnMathType_t Math(const Net& net) {
    if (net.data() != CUDNN_DATA_FLOAT) return CUDNN_TENSOR_OP_MATH;
    return net.tf32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
  }

  static void Describe(cudnnRNNDataDescriptor_t it, const Net& net, int features, const std::vector<int>& lengths) {
    // 0 in every type. Without it what stands past a sequence's end would be undefined.
    uint64_t padding = 0;
    Check(cudnnSetRNNDataDescriptor(it, net.data(),
                                    net.batch_major ? CUDNN_RNN_DATA_LAYOUT_BATCH_MAJOR_UNPACKED
                                                    : CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED,
                                    static_cast<int>(net.steps), static_cast<int>(net.batch), features, lengths.data(),
                                    &padding),
          "cudnnSetRNNDataDescriptor");
  }
};

std::vector<int> AllSteps(const Net& net) {
  return std::vector<int>(static_cast<size_t>(net.batch), static_cast<int>(net.steps));
}

size_t WeightBytes(cudnnHandle_t handle, const Plan& plan) {
  size_t bytes = 0;
  Check(cudnnGetRNNWeightSpaceSize(handle, plan.rnn, &bytes), "cudnnGetRNNWeightSpaceSize");
  return bytes;
}

#ifdef GRU_JAX_NO_STREAM
// On XLA's CPU backend, where the tests run the whole of this against a cuDNN of their own, there are no streams.
#define GRU_JAX_BIND() ffi::Ffi::Bind().Ctx<ffi::DeviceOrdinal>()
cudaStream_t AsStream(int32_t) { return nullptr; }
using Stream = int32_t;
#else
#define GRU_JAX_BIND() ffi::Ffi::Bind().Ctx<ffi::PlatformStream<cudaStream_t>>()
cudaStream_t AsStream(cudaStream_t stream) { return stream; }
using Stream = cudaStream_t;
#endif

using Array = ffi::AnyBuffer;
using Out = ffi::Result<ffi::AnyBuffer>;

// The net of a call, and whether its sequences have lengths of their own.
Net Read(const ffi::Dictionary& attributes, bool* ragged) {
  auto get = [&](const char* name) {
    ffi::ErrorOr<int64_t> found = attributes.get<int64_t>(name);
    if (!found.has_value()) throw Failure(std::string("the attribute ") + name + " is missing");
    return *found;
  };
  *ragged = get("ragged") != 0;
  return {get("type"),        get("input"), get("hidden"),     get("layers"), get("bidirectional"),
          get("batch_major"), get("tf32"),  get("persistent"), get("steps"),  get("batch")};
}

// cuDNN wants the lengths on the host as well, before it begins: the stream has to reach this point first.
std::vector<int> OnHost(const Net& net, bool ragged, const Array& lengths, cudaStream_t stream) {
  std::vector<int> here = AllSteps(net);
  if (ragged) {
    Check(cudaMemcpyAsync(here.data(), lengths.untyped_data(), here.size() * sizeof(int), cudaMemcpyDeviceToHost,
                          stream),
          "cudaMemcpyAsync");
    Check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }
  return here;
}

// Runs a handler's body, `body(net, handle, plan, stream)`; what it throws becomes an error of XLA's.
template <typename Body>
ffi::Error Run(Stream given, const ffi::Dictionary& attributes, const Array& lengths, const Body& body) {
  Net net{};
  try {
    bool ragged = false;
    net = Read(attributes, &ragged);
    const cudaStream_t stream = AsStream(given);
    Handle handle(stream);
    Plan plan(handle, net, OnHost(net, ragged, lengths, stream));
    body(net, handle, plan, stream);
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::Internal("cuDNN: " + std::string(error.what()) + ", of " + net.described());
  }
}

const int32_t* Lengths(const Array& lengths) { return static_cast<const int32_t*>(lengths.untyped_data()); }

// With a reserve of no bytes the pass is one that no gradient will be asked of.
ffi::Error Forward(Stream stream, Array x, Array h0, Array weights, Array lengths, Out y, Out h_last, Out reserve,
                   Out workspace, ffi::Dictionary attributes) {
  return Run(stream, attributes, lengths, [&](const Net&, const Handle& handle, const Plan& plan, cudaStream_t) {
    const bool training = reserve->size_bytes() > 0;
    Check(cudnnRNNForward(handle, plan.rnn, training ? CUDNN_FWD_MODE_TRAINING : CUDNN_FWD_MODE_INFERENCE,
                          Lengths(lengths), plan.x, x.untyped_data(), plan.y, y->untyped_data(), plan.h,
                          h0.untyped_data(), h_last->untyped_data(), nullptr, nullptr, nullptr,
                          WeightBytes(handle, plan), weights.untyped_data(), workspace->size_bytes(),
                          workspace->untyped_data(), reserve->size_bytes(),
                          training ? reserve->untyped_data() : nullptr),
          "cudnnRNNForward");
  });
}

// `reserve_in` and `reserve` are one buffer, which cuDNN changes: the gradients of the weights read what this leaves.
ffi::Error BackwardData(Stream stream, Array y, Array dy, Array h0, Array dh_last, Array weights, Array lengths,
                        Array reserve_in, Out dx, Out dh0, Out reserve, Out workspace, ffi::Dictionary attributes) {
  (void)reserve_in;
  return Run(stream, attributes, lengths, [&](const Net&, const Handle& handle, const Plan& plan, cudaStream_t) {
    Check(cudnnRNNBackwardData_v8(handle, plan.rnn, Lengths(lengths), plan.y, y.untyped_data(), dy.untyped_data(),
                                  plan.x, dx->untyped_data(), plan.h, h0.untyped_data(), dh_last.untyped_data(),
                                  dh0->untyped_data(), nullptr, nullptr, nullptr, nullptr, WeightBytes(handle, plan),
                                  weights.untyped_data(), workspace->size_bytes(), workspace->untyped_data(),
                                  reserve->size_bytes(), reserve->untyped_data()),
          "cudnnRNNBackwardData_v8");
  });
}

ffi::Error BackwardWeights(Stream stream, Array x, Array h0, Array y, Array lengths, Array reserve_in, Out dweights,
                           Out reserve, Out workspace, ffi::Dictionary attributes) {
  (void)reserve_in;
  return Run(stream, attributes, lengths, [&](const Net&, const Handle& handle, const Plan& plan, cudaStream_t queue) {
    // cuDNN adds to what is there; the other mode it has a name for it does not have.
    Check(cudaMemsetAsync(dweights->untyped_data(), 0, dweights->size_bytes(), queue), "cudaMemsetAsync");
    Check(cudnnRNNBackwardWeights_v8(handle, plan.rnn, CUDNN_WGRAD_MODE_ADD, Lengths(lengths), plan.x,
                                     x.untyped_data(), plan.h, h0.untyped_data(), plan.y, y.untyped_data(),
                                     WeightBytes(handle, plan), dweights->untyped_data(), workspace->size_bytes(),
                                     workspace->untyped_data(), reserve->size_bytes(), reserve->untyped_data()),
          "cudnnRNNBackwardWeights_v8");
  });
}

// Runs the body of a plain function on a device, and leaves the thread on the device that it was on.
template <typename Body>
int Answer(int64_t device, const int64_t* asked, char* message, int64_t room, const Body& body) {
  Net net;
  std::memcpy(&net, asked, sizeof net);
  int before = -1;
  int code = 0;
  try {
    Check(cudaGetDevice(&before), "cudaGetDevice");
    Check(cudaSetDevice(static_cast<int>(device)), "cudaSetDevice");
    Handle handle(nullptr);
    Plan plan(handle, net, AllSteps(net));
    body(net, handle, plan);
  } catch (const std::exception& error) {
    std::strncpy(message, (std::string(error.what()) + ", of " + net.described()).c_str(), room - 1);
    code = 1;
  }
  if (before >= 0) cudaSetDevice(before);
  return code;
}

}  // namespace

#define IN Arg<Array>()
#define OUT Ret<Array>()
XLA_FFI_DEFINE_HANDLER_SYMBOL(gru_jax_cudnn_forward, Forward,
                              GRU_JAX_BIND().IN.IN.IN.IN.OUT.OUT.OUT.OUT.Attrs());
XLA_FFI_DEFINE_HANDLER_SYMBOL(gru_jax_cudnn_backward_data, BackwardData,
                              GRU_JAX_BIND().IN.IN.IN.IN.IN.IN.IN.OUT.OUT.OUT.OUT.Attrs());
XLA_FFI_DEFINE_HANDLER_SYMBOL(gru_jax_cudnn_backward_weights, BackwardWeights,
                              GRU_JAX_BIND().IN.IN.IN.IN.IN.OUT.OUT.OUT.Attrs());

extern "C" {

// Bytes of workspace, reserve and weights. Returns 0, or 1 with the reason in `message`.
int gru_jax_cudnn_sizes(int64_t device, const int64_t* asked, int training, size_t* bytes, char* message,
                        int64_t room) {
  return Answer(device, asked, message, room, [&](const Net&, const Handle& handle, const Plan& plan) {
    Check(cudnnGetRNNTempSpaceSizes(handle, plan.rnn, training ? CUDNN_FWD_MODE_TRAINING : CUDNN_FWD_MODE_INFERENCE,
                                    plan.x, &bytes[0], &bytes[1]),
          "cudnnGetRNNTempSpaceSizes");
    bytes[2] = WeightBytes(handle, plan);
  });
}

// Where the six matrices and the six biases of each direction of each layer begin in the weights, in elements: `places`
// is [layers * directions, 6, 2], matrix and bias, in cuDNN's order of gates: r, z, n of the input, then of the state.
int gru_jax_cudnn_places(int64_t device, const int64_t* asked, int64_t* places, char* message, int64_t room) {
  return Answer(device, asked, message, room, [&](const Net& net, const Handle& handle, const Plan& plan) {
    const size_t bytes = WeightBytes(handle, plan);
    // Addresses are only counted from it.
    char* base = reinterpret_cast<char*>(uintptr_t{1} << 20);
    for (int64_t part = 0; part < net.layers * net.directions(); ++part) {
      for (int64_t gate = 0; gate < 6; ++gate) {
        Tensor matrix, bias;
        void *matrix_at = nullptr, *bias_at = nullptr;
        Check(cudnnGetRNNWeightParams(handle, plan.rnn, static_cast<int32_t>(part), bytes, base,
                                      static_cast<int32_t>(gate), matrix, &matrix_at, bias, &bias_at),
              "cudnnGetRNNWeightParams");
        int64_t* here = places + (part * 6 + gate) * 2;
        here[0] = (static_cast<char*>(matrix_at) - base) / static_cast<int64_t>(net.width());
        here[1] = (static_cast<char*>(bias_at) - base) / static_cast<int64_t>(net.width());
      }
    }
  });
}

}  // extern "C"
