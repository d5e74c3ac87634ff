// Calls the op on drawn inputs in buffers of exactly the size that it asks for, and checks the
// group numbers and the sums against a stable sort. Built with sanitizers by test_sanitizers.py.
//
//     fuzz SEED CASES
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <random>

#include "op.cpp"

namespace {

std::mt19937_64 generator;

int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator);
}

float drawn(int kind) {
  std::normal_distribution<float> normal;
  const float x = normal(generator);
  switch (kind) {
    case 0: return x;
    case 1: return std::round(x);
    case 2: return 0.0f;
    case 3: return x / normal(generator);
    case 4: return 1e-22f * x;
    case 5: return between(0, 1) ? 0.5f : x;
    case 6: return std::exp2(float(between(-140, 120)));
    case 7: return between(0, 99) ? x : std::numeric_limits<float>::quiet_NaN();
    case 8: return between(0, 99) ? x : std::numeric_limits<float>::infinity();
    default: return 1.0f + float(between(0, 30)) * 0x1p-22f;
  }
}

// An array of a dtype, of exactly its size on the heap.
struct Array {
  int dtype;
  std::unique_ptr<char[]> data;

  Array(int dtype, int64_t count, int kind) : dtype(dtype), data(new char[count * bytes(dtype)]) {
    for (int64_t i = 0; i < count; ++i) {
      const float x = drawn(kind);
      if (dtype == kFloat32) reinterpret_cast<float*>(data.get())[i] = x;
      if (dtype == kBFloat16) store(x, reinterpret_cast<BFloat16*>(data.get())[i]);
      if (dtype == kFloat16) store(x, reinterpret_cast<Float16*>(data.get())[i]);
    }
  }
  float operator[](int64_t i) const {
    float x = 0.0f;
    with_dtype(data.get(), dtype, [&](auto* all) { x = load(all[i]); });
    return x;
  }
  static int64_t bytes(int dtype) { return dtype == kFloat32 ? 4 : 2; }
};

void fail(const char* what, int64_t row, int64_t i) {
  std::printf("%s: row %lld, element %lld\n", what, (long long)row, (long long)i);
  std::exit(1);
}

void check_groups(const Array& s, const Array& t, int64_t rows, int64_t n, int64_t size,
                  const char* group, bool wide) {
  std::vector<int64_t> order(n);
  for (int64_t row = 0; row < rows; ++row) {
    const auto bits = [&](int64_t i) { return error_bits(t[row * n + i] - s[row * n + i]); };
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t i, int64_t j) { return bits(i) < bits(j); });
    for (int64_t rank = 0; rank < n; ++rank) {
      const int64_t i = row * n + order[rank];
      const int64_t number = wide ? reinterpret_cast<const int32_t*>(group)[i]
                                  : reinterpret_cast<const uint16_t*>(group)[i];
      if (number != std::min(rank / size, group_count(n, size) - 1)) fail("group number", row, order[rank]);
    }
  }
}

void run_case() {
  const int64_t n = between(0, 19) ? between(1, 1500) : between(60000, 140000);
  const int64_t rows = n > 1500 ? 1 : between(1, 12);
  const int64_t size = between(0, 3) ? between(1, std::min<int64_t>(n, 64)) : between(1, n);
  const int64_t groups = group_count(n, size);
  const int threads = int(between(1, 4)), kind = int(between(0, 9)), squared = int(between(0, 1));
  const int with_coarse = int(between(0, 1)), with_fine = int(between(0, 1));
  const bool with_groups = groups > 1 && between(0, 4), wide = groups > 1 << 16;
  const Array s(int(between(0, 2)), rows * n, int(between(0, 2))), t(int(between(0, 2)), rows * n, kind);

  const int64_t group_bytes = with_groups ? rows * n * (wide ? 4 : 2) : 0;
  std::unique_ptr<char[]> group(new char[group_bytes]);
  std::unique_ptr<float[]> coef(new float[6 * rows * groups]), terms(new float[4]);
  float loss = 0.0f;
  const int64_t bytes = liftplace_forward_scratch(rows, n, size, s.dtype, threads);
  std::unique_ptr<char[]> scratch(new char[bytes]);
  liftplace_forward(s.data.get(), s.dtype, t.data.get(), t.dtype, rows, n, size, 1e-7f, squared,
                    nullptr, 0.0f, 1, with_coarse, with_fine, 1.0f,
                    with_groups ? group.get() : nullptr, coef.get(), &loss, terms.get(),
                    scratch.get(), threads);
  if (!with_groups && groups > 1) return;
  if (with_groups) check_groups(s, t, rows, n, size, group.get(), wide);

  const float one = 1.0f;
  const int64_t more = liftplace_backward_scratch(groups, threads);
  std::unique_ptr<char[]> grad(new char[rows * n * Array::bytes(s.dtype)]), share(new char[more]);
  liftplace_backward(s.data.get(), s.dtype, t.data.get(), t.dtype, rows, n, groups, group.get(),
                     coef.get(), terms.get(), &one, 1.0f, with_coarse, with_fine, grad.get(),
                     share.get(), threads);
  bool finite = true;
  for (int64_t i = 0; i < rows * n; ++i) finite = finite && std::isfinite(t[i] - s[i]);
  if (!finite && with_coarse && std::isfinite(loss)) fail("a finite loss", 0, 0);
}

}  // namespace

int main(int, char** argument) {
  generator.seed(std::strtoull(argument[1], nullptr, 10));
  for (long left = std::atol(argument[2]); left; --left) run_case();
  return 0;
}
