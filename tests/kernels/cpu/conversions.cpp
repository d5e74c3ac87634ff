// The conversions of dtypes.h over whole arrays, for test_dtypes.py.
#include "dtypes.h"

using namespace liftplace;

template <typename T>
static void load_all(const T* in, float* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = load(in[i]);
}

template <typename T>
static void store_all(const float* in, T* out, long n) {
  for (long i = 0; i < n; ++i) store(in[i], out[i]);
}

extern "C" {
void load_bfloat16(const BFloat16* in, float* out, long n) { load_all(in, out, n); }
void load_float16(const Float16* in, float* out, long n) { load_all(in, out, n); }
void store_bfloat16(const float* in, BFloat16* out, long n) { store_all(in, out, n); }
void store_float16(const float* in, Float16* out, long n) { store_all(in, out, n); }
}
