// cuDNN's GRU in plain loops on host memory, for tests of the library that calls it: the documented equations, layouts
// and order of calls. What cuDNN refuses is refused, what it leaves undefined is filled with NaN.

#include "cudnn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "numbers.h"

struct FakeHandle {};
struct FakeTensor {
  cudnnDataType_t type;
  std::vector<int> sizes;
};
struct FakeDropout {
  bool set = false;
};
struct FakeRnn {
  cudnnDataType_t type;
  int input = 0, hidden = 0, layers = 0, directions = 0;
  bool persistent = false, padded = false;
};
struct FakeData {
  cudnnDataType_t type;
  bool batch_major = false, filled = false;
  int steps = 0, batch = 0, features = 0;
  std::vector<int> lengths;
};

namespace {

thread_local std::string last_error;

cudnnStatus_t Refuse(const char* why, cudnnStatus_t status = CUDNN_STATUS_BAD_PARAM) {
  last_error = why;
  return status;
}

#define REQUIRE(condition) \
  if (!(condition)) return Refuse(#condition)

float Sigmoid(float a) { return 1 / (1 + std::exp(-a)); }

// Everything about one call: sizes, and where things lie.
struct Call {
  const FakeRnn& rnn;
  const FakeData& x;
  int T = x.steps, B = x.batch, H = rnn.hidden, D = rnn.directions;

  int Inputs(int layer) const { return layer ? D * H : rnn.input; }
  size_t At(int t, int b, int features) const {
    return static_cast<size_t>(x.batch_major ? b * T + t : t * B + b) * features;
  }
  // All matrices, W then R of each part, then all biases in the same order.
  size_t Matrix(int part, int gate) const {
    size_t at = 0;
    for (int p = 0; p < part; ++p) at += static_cast<size_t>(3 * H) * (Inputs(p / D) + H);
    const int I = Inputs(part / D);
    return at + static_cast<size_t>(H) * (gate < 3 ? gate * I : 3 * I + (gate - 3) * H);
  }
  size_t Bias(int part, int gate) const { return Matrix(rnn.layers * D, 0) + static_cast<size_t>(part * 6 + gate) * H; }
  size_t Weights() const { return Bias(rnn.layers * D, 0); }
  // The reserve: a header, then four numbers a unit and step of each part, then each layer's outputs.
  size_t Kept(int part, int t, int b) const { return 64 + ((static_cast<size_t>(part) * T + t) * B + b) * 4 * H; }
  size_t Output(int layer, int t, int b) const {
    return Kept(rnn.layers * D, 0, 0) + ((static_cast<size_t>(layer) * T + t) * B + b) * D * H;
  }
  size_t Reserve() const { return Output(rnn.layers, 0, 0) * sizeof(float); }
  size_t Workspace() const { return static_cast<size_t>(T) * B * std::max(D * H, rnn.input) * 2 * sizeof(float); }
};

cudnnStatus_t Agree(const Call& call, const FakeData& y, const FakeTensor& h, const int32_t* lengths, size_t weights,
                    size_t work) {
  REQUIRE(y.steps == call.T && y.batch == call.B && y.lengths == call.x.lengths && y.batch_major == call.x.batch_major);
  REQUIRE(call.x.features == call.rnn.input && y.features == call.D * call.H && call.rnn.padded);
  REQUIRE(call.x.type == call.rnn.type && y.type == call.rnn.type && h.type == call.rnn.type);
  REQUIRE((h.sizes == std::vector<int>{call.rnn.layers * call.D, call.B, call.H}));
  REQUIRE(weights == call.Weights() * Width(call.rnn.type) && work >= call.Workspace());
  for (int b = 0; b < call.B; ++b) REQUIRE(lengths[b] == call.x.lengths[b]);
  return CUDNN_STATUS_SUCCESS;
}

// The k-th step of a sequence in the order of a direction.
int Step(int direction, int length, int k) { return direction ? length - 1 - k : k; }

}  // namespace

extern "C" {

const char* cudnnGetErrorString(cudnnStatus_t status) {
  return status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_BAD_PARAM";
}
void cudnnGetLastErrorString(char* message, size_t size) { message[last_error.copy(message, size - 1)] = 0; }
cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t) { return CUDNN_STATUS_SUCCESS; }

#define LIFE(Create, Destroy, Pointer, Type)                                             \
  cudnnStatus_t Create(Pointer* it) { return *it = new Type(), CUDNN_STATUS_SUCCESS; } \
  cudnnStatus_t Destroy(Pointer it) { return delete it, CUDNN_STATUS_SUCCESS; }
LIFE(cudnnCreate, cudnnDestroy, cudnnHandle_t, FakeHandle)
LIFE(cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor, cudnnTensorDescriptor_t, FakeTensor)
LIFE(cudnnCreateDropoutDescriptor, cudnnDestroyDropoutDescriptor, cudnnDropoutDescriptor_t, FakeDropout)
LIFE(cudnnCreateRNNDescriptor, cudnnDestroyRNNDescriptor, cudnnRNNDescriptor_t, FakeRnn)
LIFE(cudnnCreateRNNDataDescriptor, cudnnDestroyRNNDataDescriptor, cudnnRNNDataDescriptor_t, FakeData)

cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t it, cudnnDataType_t type, int rank, const int* sizes,
                                         const int* strides) {
  REQUIRE(rank == 3 && strides[2] == 1 && strides[1] == sizes[2] && strides[0] == sizes[1] * sizes[2]);
  *it = {type, {sizes, sizes + rank}};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetDropoutDescriptor(cudnnDropoutDescriptor_t it, cudnnHandle_t, float rate, void*, size_t,
                                        unsigned long long) {
  REQUIRE(rate == 0);
  it->set = true;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetRNNDescriptor_v8(cudnnRNNDescriptor_t it, cudnnRNNAlgo_t algorithm, cudnnRNNMode_t mode,
                                       cudnnRNNBiasMode_t bias, cudnnDirectionMode_t direction,
                                       cudnnRNNInputMode_t input_mode, cudnnDataType_t type, cudnnDataType_t precision,
                                       cudnnMathType_t math, int32_t input, int32_t hidden, int32_t projection,
                                       int32_t layers, cudnnDropoutDescriptor_t dropout, uint32_t flags) {
  REQUIRE(mode == CUDNN_GRU && bias == CUDNN_RNN_DOUBLE_BIAS && input_mode == CUDNN_LINEAR_INPUT);
  REQUIRE(precision == CUDNN_DATA_FLOAT && (math == CUDNN_TENSOR_OP_MATH) == (type != CUDNN_DATA_FLOAT));
  REQUIRE(input > 0 && hidden > 0 && projection == hidden && layers > 0 && dropout->set);
  const bool persistent = algorithm == CUDNN_RNN_ALGO_PERSIST_STATIC;
  if (persistent && hidden % 2) return Refuse("an odd number of units", CUDNN_STATUS_NOT_SUPPORTED);
  *it = {type, input, hidden, layers, 1 + direction, persistent, (flags & CUDNN_RNN_PADDED_IO_ENABLED) != 0};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetRNNDataDescriptor(cudnnRNNDataDescriptor_t it, cudnnDataType_t type, cudnnRNNDataLayout_t layout,
                                        int steps, int batch, int features, const int* lengths, void* padding) {
  REQUIRE(steps > 0 && batch > 0 && features > 0);
  for (int b = 0; b < batch; ++b) REQUIRE(0 < lengths[b] && lengths[b] <= steps);
  const bool batch_major = layout == CUDNN_RNN_DATA_LAYOUT_BATCH_MAJOR_UNPACKED;
  *it = {type, batch_major, padding && Load(type, padding, 0) == 0, steps, batch, features, {lengths, lengths + batch}};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNTempSpaceSizes(cudnnHandle_t, cudnnRNNDescriptor_t rnn, cudnnForwardMode_t mode,
                                        cudnnRNNDataDescriptor_t x, size_t* workspace, size_t* reserve) {
  const Call call{*rnn, *x};
  *workspace = call.Workspace();
  *reserve = mode == CUDNN_FWD_MODE_TRAINING ? call.Reserve() : 0;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNWeightSpaceSize(cudnnHandle_t, cudnnRNNDescriptor_t rnn, size_t* bytes) {
  const FakeData none{};
  return *bytes = Call{*rnn, none}.Weights() * Width(rnn->type), CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNWeightParams(cudnnHandle_t, cudnnRNNDescriptor_t rnn, int32_t part, size_t, const void* base,
                                      int32_t gate, cudnnTensorDescriptor_t, void** matrix, cudnnTensorDescriptor_t,
                                      void** bias) {
  const FakeData none{};
  const Call call{*rnn, none};
  char* start = static_cast<char*>(const_cast<void*>(base));
  *matrix = start + call.Matrix(part, gate) * Width(rnn->type);
  *bias = start + call.Bias(part, gate) * Width(rnn->type);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRNNForward(cudnnHandle_t, cudnnRNNDescriptor_t rnn, cudnnForwardMode_t mode, const int32_t* lengths,
                              cudnnRNNDataDescriptor_t x_desc, const void* x, cudnnRNNDataDescriptor_t y_desc, void* y,
                              cudnnTensorDescriptor_t h_desc, const void* hx, void* hy, cudnnTensorDescriptor_t,
                              const void*, void*, size_t weight_bytes, const void* w, size_t work_bytes, void*,
                              size_t reserve_bytes, void* reserve) {
  const Call call{*rnn, *x_desc};
  const auto [_, __, T, B, H, D] = call;
  const cudnnDataType_t type = rnn->type;
  if (cudnnStatus_t bad = Agree(call, *y_desc, *h_desc, lengths, weight_bytes, work_bytes)) return bad;
  const bool training = mode == CUDNN_FWD_MODE_TRAINING;
  REQUIRE(!training || (reserve && reserve_bytes >= call.Reserve()));
  std::vector<float> own(training ? 0 : call.Reserve() / sizeof(float));
  float* kept = training ? static_cast<float*>(reserve) : own.data();
  for (size_t i = 0; i < call.Reserve() / sizeof(float); ++i) kept[i] = std::numeric_limits<float>::quiet_NaN();
  kept[0] = 1, kept[1] = T, kept[2] = B;
  for (int part = 0; part < rnn->layers * D; ++part) {
    const int layer = part / D, I = call.Inputs(layer);
    for (int b = 0; b < B; ++b) {
      std::vector<float> h(H), next(H), input(I);
      for (int j = 0; j < H; ++j) h[j] = Load(type, hx, (static_cast<size_t>(part) * B + b) * H + j);
      for (int k = 0; k < lengths[b]; ++k) {
        const int t = Step(part % D, lengths[b], k);
        for (int i = 0; i < I; ++i)
          input[i] = layer ? kept[call.Output(layer - 1, t, b) + i] : Load(type, x, call.At(t, b, I) + i);
        for (int j = 0; j < H; ++j) {
          float u[3], v[3];
          for (int g = 0; g < 3; ++g) {
            u[g] = Load(type, w, call.Bias(part, g) + j);
            v[g] = Load(type, w, call.Bias(part, g + 3) + j);
            for (int i = 0; i < I; ++i) u[g] += Load(type, w, call.Matrix(part, g) + j * I + i) * input[i];
            for (int i = 0; i < H; ++i) v[g] += Load(type, w, call.Matrix(part, g + 3) + j * H + i) * h[i];
          }
          const float r = Sigmoid(u[0] + v[0]), z = Sigmoid(u[1] + v[1]), n = std::tanh(u[2] + r * v[2]);
          const float gates[] = {r, z, n, v[2]};
          for (int g = 0; g < 4; ++g) kept[call.Kept(part, t, b) + g * H + j] = gates[g];
          next[j] = Rounded(type, (1 - z) * n + z * h[j]);
        }
        h = next;
        for (int j = 0; j < H; ++j) kept[call.Output(layer, t, b) + part % D * H + j] = h[j];
      }
      for (int j = 0; j < H && hy; ++j) Store(type, hy, (static_cast<size_t>(part) * B + b) * H + j, h[j]);
    }
  }
  for (int t = 0; t < T; ++t)
    for (int b = 0; b < B; ++b)
      for (int j = 0; j < D * H; ++j) {
        const float padding = y_desc->filled ? 0 : NAN;
        const float value = t < lengths[b] ? kept[call.Output(rnn->layers - 1, t, b) + j] : padding;
        Store(type, y, call.At(t, b, D * H) + j, value);
      }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRNNBackwardData_v8(cudnnHandle_t, cudnnRNNDescriptor_t rnn, const int32_t* lengths,
                                      cudnnRNNDataDescriptor_t y_desc, const void* y, const void* dy,
                                      cudnnRNNDataDescriptor_t x_desc, void* dx, cudnnTensorDescriptor_t h_desc,
                                      const void* hx, const void* dhy, void* dhx, cudnnTensorDescriptor_t, const void*,
                                      const void*, void*, size_t weight_bytes, const void* w, size_t work_bytes, void*,
                                      size_t reserve_bytes, void* reserve) {
  const Call call{*rnn, *x_desc};
  const auto [_, __, T, B, H, D] = call;
  const cudnnDataType_t type = rnn->type;
  if (cudnnStatus_t bad = Agree(call, *y_desc, *h_desc, lengths, weight_bytes, work_bytes)) return bad;
  float* kept = static_cast<float*>(reserve);
  REQUIRE(reserve_bytes >= call.Reserve() && kept[0] == 1 && kept[1] == T && kept[2] == B);
  kept[0] = 2;
  std::vector<float> below, above(static_cast<size_t>(T) * B * D * H);
  auto row = [&](int t, int b, int width) { return static_cast<size_t>(t * B + b) * width; };
  for (int b = 0; b < B; ++b)
    for (int t = 0; t < lengths[b]; ++t)
      for (int j = 0; j < D * H; ++j) above[row(t, b, D * H) + j] = Load(type, dy, call.At(t, b, D * H) + j);
  for (int layer = rnn->layers - 1; layer >= 0; --layer, above = below) {
    const int I = call.Inputs(layer);
    below.assign(static_cast<size_t>(T) * B * I, 0);
    for (int part = layer * D; part < (layer + 1) * D; ++part)
      for (int b = 0; b < B; ++b) {
        const size_t state = (static_cast<size_t>(part) * B + b) * H;
        std::vector<float> dh(H), before(H);
        for (int j = 0; j < H && dhy; ++j) dh[j] = Load(type, dhy, state + j);
        for (int k = lengths[b] - 1; k >= 0; --k) {
          const int t = Step(part % D, lengths[b], k), t_before = Step(part % D, lengths[b], k - 1);
          float* at = kept + call.Kept(part, t, b);
          for (int j = 0; j < H; ++j) {
            const int column = part % D * H + j;
            const bool top = layer == rnn->layers - 1;
            const float h = k == 0 ? Load(type, hx, state + j)
                            : top  ? Load(type, y, call.At(t_before, b, D * H) + column)
                                   : kept[call.Output(layer, t_before, b) + column];
            const float d = dh[j] + above[row(t, b, D * H) + column];
            const float r = at[j], z = at[H + j], n = at[2 * H + j], q = at[3 * H + j];
            const float d_n = d * (1 - z) * (1 - n * n);
            at[j] = d_n * q * r * (1 - r), at[H + j] = d * (h - n) * z * (1 - z), at[2 * H + j] = d_n;
            at[3 * H + j] = d_n * r;
            before[j] = d * z;
          }
          for (int g = 0; g < 3; ++g)
            for (int j = 0; j < H; ++j) {
              const float d_u = at[g * H + j], d_v = at[(g == 2 ? 3 : g) * H + j];
              for (int i = 0; i < I; ++i) {
                below[row(t, b, I) + i] += d_u * Load(type, w, call.Matrix(part, g) + j * I + i);
              }
              for (int i = 0; i < H; ++i) before[i] += d_v * Load(type, w, call.Matrix(part, g + 3) + j * H + i);
            }
          dh = before;
        }
        for (int j = 0; j < H && dhx; ++j) Store(type, dhx, state + j, dh[j]);
      }
  }
  for (int t = 0; t < T; ++t)
    for (int b = 0; b < B; ++b)
      for (int i = 0; i < rnn->input; ++i)
        Store(type, dx, call.At(t, b, rnn->input) + i, t < lengths[b] ? above[row(t, b, rnn->input) + i] : NAN);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRNNBackwardWeights_v8(cudnnHandle_t, cudnnRNNDescriptor_t rnn, cudnnWgradMode_t mode,
                                         const int32_t* lengths, cudnnRNNDataDescriptor_t x_desc, const void* x,
                                         cudnnTensorDescriptor_t h_desc, const void* hx,
                                         cudnnRNNDataDescriptor_t y_desc, const void* y, size_t weight_bytes, void* dw,
                                         size_t work_bytes, void*, size_t reserve_bytes, void* reserve) {
  const Call call{*rnn, *x_desc};
  const auto [_, __, T, B, H, D] = call;
  const cudnnDataType_t type = rnn->type;
  if (cudnnStatus_t bad = Agree(call, *y_desc, *h_desc, lengths, weight_bytes, work_bytes)) return bad;
  if (mode != CUDNN_WGRAD_MODE_ADD) return Refuse("CUDNN_WGRAD_MODE_SET", CUDNN_STATUS_NOT_SUPPORTED);
  const float* kept = static_cast<const float*>(reserve);
  REQUIRE(reserve_bytes >= call.Reserve() && kept[0] == 2 && kept[1] == T && kept[2] == B);
  std::vector<float> sums(call.Weights());
  for (int part = 0; part < rnn->layers * D; ++part) {
    const int layer = part / D, I = call.Inputs(layer);
    for (int b = 0; b < B; ++b)
      for (int k = 0; k < lengths[b]; ++k) {
        const int t = Step(part % D, lengths[b], k), t_before = Step(part % D, lengths[b], k - 1);
        const float* at = kept + call.Kept(part, t, b);
        auto h = [&](int i) {
          if (k == 0) return Load(type, hx, (static_cast<size_t>(part) * B + b) * H + i);
          if (layer == rnn->layers - 1) return Load(type, y, call.At(t_before, b, D * H) + part % D * H + i);
          return kept[call.Output(layer, t_before, b) + part % D * H + i];
        };
        for (int g = 0; g < 3; ++g)
          for (int j = 0; j < H; ++j) {
            const float d_u = at[g * H + j], d_v = at[(g == 2 ? 3 : g) * H + j];
            for (int i = 0; i < I; ++i)
              sums[call.Matrix(part, g) + j * I + i] +=
                  d_u * (layer ? kept[call.Output(layer - 1, t, b) + i] : Load(type, x, call.At(t, b, I) + i));
            for (int i = 0; i < H; ++i) sums[call.Matrix(part, g + 3) + j * H + i] += d_v * h(i);
            sums[call.Bias(part, g) + j] += d_u;
            sums[call.Bias(part, g + 3) + j] += d_v;
          }
      }
  }
  for (size_t i = 0; i < sums.size(); ++i) Store(type, dw, i, Load(type, dw, i) + sums[i]);
  return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
