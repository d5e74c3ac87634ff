// float32, bfloat16 and float16 as they lie in memory, read and written as float.
#pragma once

#include <cstdint>
#include <cstring>

namespace liftplace {

static inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

static inline float load(float x) { return x; }

static inline float load(BFloat16 x) { return from_bits(uint32_t(x.bits) << 16); }

// Exponent and mantissa move to float's place, and the exponent to float's bias; that of infinity
// and NaN is the largest. What is subnormal, a number of units of 2^-24, gets 2^-14 as its first
// digit, which is taken off again: no step has a subnormal float, which a processor may take for 0.
static inline float load(Float16 x) {
  const uint32_t magnitude = uint32_t(x.bits & 0x7fffu) << 13;
  const bool subnormal = magnitude < 0x00800000u, special = magnitude >= 0x0f800000u;
  const uint32_t bias = subnormal ? 0x38800000u : special ? 0x70000000u : 0x38000000u;
  const float positive = from_bits(magnitude + bias) - (subnormal ? 0x1p-14f : 0.0f);
  return from_bits(bits_of(positive) | uint32_t(x.bits & 0x8000u) << 16);
}

static inline void store(float x, float& out) { out = x; }

// To nearest, ties to even.
static inline void store(float x, BFloat16& out) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  out.bits = uint16_t(x == x ? rounded : bits >> 16 | 0x40u);
}

// To nearest, ties to even: scaling by 2^-112 rounds what becomes subnormal in float's own
// arithmetic; the rest rounds as integers do, and overflows into infinity.
static inline void store(float x, Float16& out) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude >= 0x7f800000u) {
    half = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below the smallest normal number, 2^-14
    half = bits_of(from_bits(magnitude) + 0.5f) - 0x3f000000u;  // units of 2^-24
  } else {
    half = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
    half = half > 0x7c00u ? 0x7c00u : half;
  }
  out.bits = uint16_t(sign | half);
}

}  // namespace liftplace
