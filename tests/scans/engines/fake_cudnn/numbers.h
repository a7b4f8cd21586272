// float32, float16 and bfloat16 in memory, as floats.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cudnn.h"

inline float AsFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t AsBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline size_t Width(cudnnDataType_t type) { return type == CUDNN_DATA_FLOAT ? 4 : 2; }

inline float Load(cudnnDataType_t type, const void* from, size_t i) {
  if (type == CUDNN_DATA_FLOAT) return static_cast<const float*>(from)[i];
  const uint32_t bits = static_cast<const uint16_t*>(from)[i];
  if (type == CUDNN_DATA_BFLOAT16) return AsFloat(bits << 16);
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                     : exponent     ? std::ldexp(1024.0f + fraction, exponent - 25)
                                    : std::ldexp(static_cast<float>(fraction), -24);
  return bits & 0x8000 ? -size : size;
}

inline void Store(cudnnDataType_t type, void* to, size_t i, float value) {
  if (type == CUDNN_DATA_FLOAT) {
    static_cast<float*>(to)[i] = value;
    return;
  }
  uint16_t& bits = static_cast<uint16_t*>(to)[i];
  if (type == CUDNN_DATA_BFLOAT16) {
    const uint32_t all = AsBits(value);
    bits = std::isnan(value) ? 0x7fc0 : static_cast<uint16_t>((all + 0x7fff + ((all >> 16) & 1)) >> 16);
    return;
  }
  const float size = std::fabs(value);
  int exponent = 0;
  std::frexp(size, &exponent);
  exponent = std::isfinite(size) && size > 0 ? std::max(exponent - 1, -14) : -14;
  const float fraction = std::isfinite(size) ? std::nearbyint(std::ldexp(size, 10 - exponent)) : 0;
  const int finite = static_cast<int>(fraction) + ((exponent + 14) << 10);
  const int code = std::isnan(size) ? 0x7e00 : size >= 65520 ? 0x7c00 : finite;
  bits = static_cast<uint16_t>(code | (std::signbit(value) ? 0x8000 : 0));
}

inline float Rounded(cudnnDataType_t type, float value) {
  float stored;
  return Store(type, &stored, 0, value), Load(type, &stored, 0);
}
