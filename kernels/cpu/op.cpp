// impl="native": forward and backward of the loss ops on a CPU, behind a plain C interface.
//
// Rows are independent up to D, so threads take rows; what a row's sums give is added up in order
// of the rows, and the result does not depend on the number of threads.
#include <cstdint>
#include <type_traits>

#include "dtypes.h"
#include "fit.h"
#include "grouping.h"
#include "moments.h"
#include "threads.h"

#ifdef _WIN32
#define LIFTPLACE_API extern "C" __declspec(dllexport)
#else
#define LIFTPLACE_API extern "C" __attribute__((visibility("default")))
#endif

namespace liftplace {
namespace {

enum Dtype { kFloat32, kBFloat16, kFloat16 };

struct Shape {
  int64_t rows, n, size;  // size: elements of a group

  int64_t groups() const { return group_count(n, size); }
  bool short_index() const { return n <= 1 << 16; }
  bool short_group() const { return groups() <= 1 << 16; }
  int64_t group_bytes() const { return short_group() ? 2 : 4; }
  int64_t piece(int threads) const {  // rows that a thread takes at a time
    const int64_t few = rows / (4 * threads), cached = (1 << 14) / n;
    return std::max<int64_t>(1, std::min(few, cached));
  }
};

// Calls use(pointer) with the pointer's type.
template <typename Use>
void with_dtype(const void* data, int dtype, Use use) {
  if (dtype == kFloat32) use(static_cast<const float*>(data));
  if (dtype == kBFloat16) use(static_cast<const BFloat16*>(data));
  if (dtype == kFloat16) use(static_cast<const Float16*>(data));
}

// Hands out parts of one buffer, each at a multiple of 64 bytes. Without a buffer it only counts.
class Arena {
 public:
  explicit Arena(char* start) : start_(start) {}

  template <typename T>
  T* take(int64_t count) {
    const int64_t at = used_;
    used_ += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return start_ ? reinterpret_cast<T*>(start_ + at) : nullptr;
  }
  int64_t used() const { return used_; }

 private:
  char* start_;
  int64_t used_ = 0;
};

// What one thread needs in the forward.
struct RowScratch {
  float *s, *d;
  uint16_t* bucket;
  void *order, *other;
  uint32_t* count;

  RowScratch(Arena& arena, const Shape& shape, int dtype) {
    const bool place = shape.groups() > 1;
    const int64_t n = place ? shape.n : 0, index = shape.short_index() ? 2 : 4;
    s = arena.take<float>(dtype == kFloat32 ? 0 : shape.n);
    d = arena.take<float>(shape.n);
    bucket = arena.take<uint16_t>(n);
    order = arena.take<char>(n * index);
    other = arena.take<char>(n * index);
    count = arena.take<uint32_t>(place ? bucket_count(n) : 0);
  }
};

template <typename T>
const float* as_float(const T* row, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = load(row[i]);
  return out;
}

const float* as_float(const float* row, int64_t, float*) { return row; }

template <typename T>
uint32_t difference(const float* s, const T* t, int64_t n, float* __restrict d) {
  uint32_t high = 0;
  for (int64_t i = 0; i < n; ++i) {
    d[i] = load(t[i]) - s[i];
    high = std::max(high, error_bits(d[i]));
  }
  return high;
}

struct Options {
  Shape shape;
  float eps;
  bool squared;
};

template <typename Index, typename Group>
Sums place_row(const float* s, uint32_t high, const Options& o, const RowScratch& scratch,
               Group* __restrict group, float* coef) {
  const Shape& shape = o.shape;
  const int64_t n = shape.n, size = shape.size, groups = shape.groups();
  Index* const order = static_cast<Index*>(scratch.order);
  order_by_error<Index>(scratch.d, high, n, size,
                        {scratch.bucket, order, static_cast<Index*>(scratch.other), scratch.count});
  Sums sums = {};
  const auto fit = [&](int64_t g, int64_t m, double inverse) {
    const Index* const member = order + g * size;
    for (int64_t j = 0; group && j < m; ++j) group[member[j]] = Group(g);
    const Moments moments = moments_of(s, scratch.d, m, [=](int64_t j) { return member[j]; });
    sums += fit_group(moments, double(m), inverse, o.eps, o.squared, coef + g, shape.rows * groups);
  };
  for (int64_t g = 0; g < groups - 1; ++g) fit(g, size, 1.0 / double(size));
  const int64_t rest = n - (groups - 1) * size;
  fit(groups - 1, rest, 1.0 / double(rest));
  return sums;
}

// group: where the row's group numbers go, or null.
Sums fit_row(const float* s, uint32_t high, const Options& o, const RowScratch& scratch,
             void* group, float* coef) {
  const Shape& shape = o.shape;
  if (shape.groups() == 1) {
    const Moments moments = moments_of(s, scratch.d, shape.n, [](int64_t i) { return i; });
    const double n = double(shape.n);
    return fit_group(moments, n, 1.0 / n, o.eps, o.squared, coef, shape.rows);
  }
  if (!shape.short_group())
    return place_row<uint32_t>(s, high, o, scratch, static_cast<int32_t*>(group), coef);
  if (!shape.short_index())
    return place_row<uint32_t>(s, high, o, scratch, static_cast<uint16_t*>(group), coef);
  return place_row<uint16_t>(s, high, o, scratch, static_cast<uint16_t*>(group), coef);
}

// A group's share of the gradient and what it is centred on.
struct Share {
  float mean_s, mean_d;
  Gradient of;

  float operator()(float s, float t) const {
    return of.of_ds * (s - mean_s) + of.of_dd * ((t - s) - mean_d) + of.of_one;
  }
};

template <typename S, typename T, typename ShareOf>
void gradient_row(const S* s, const T* t, int64_t n, S* __restrict grad, ShareOf share_of) {
  for (int64_t i = 0; i < n; ++i) store(share_of(i)(load(s[i]), load(t[i])), grad[i]);
}

}  // namespace
}  // namespace liftplace

using namespace liftplace;

// What the library was compiled from (sources.py), or nothing; in quotes by two macros.
#ifndef LIFTPLACE_DIGEST
#define LIFTPLACE_DIGEST
#endif
#define LIFTPLACE_QUOTE(x) #x
#define LIFTPLACE_QUOTED(x) LIFTPLACE_QUOTE(x)
LIFTPLACE_API const char* liftplace_digest() { return LIFTPLACE_QUOTED(LIFTPLACE_DIGEST); }

// Bytes of scratch that `liftplace_forward` needs.
LIFTPLACE_API int64_t liftplace_forward_scratch(int64_t rows, int64_t n, int64_t size,
                                                int student_dtype, int threads) {
  Arena arena(nullptr);
  arena.take<Sums>(rows);
  for (int thread = 0; thread < threads; ++thread)
    RowScratch(arena, {rows, n, size}, student_dtype);
  return arena.used();
}

// Fit (rows, n) inputs: group (rows, n), coef (6, rows, groups), loss, terms (4,).
// weight: w as a number in memory, or null; fixed: w where `adaptive` is false and weight is null.
// group: 16 bits up to 65,536 groups a row, else 32; null where nobody will read it.
LIFTPLACE_API void liftplace_forward(const void* student, int student_dtype, const void* teacher,
                                     int teacher_dtype, int64_t rows, int64_t n, int64_t size,
                                     float eps, int squared, const float* weight, float fixed,
                                     int adaptive, int with_coarse, int with_fine, float scale,
                                     void* group, float* coef, float* loss, float* terms,
                                     char* scratch, int threads) {
  const Options o = {{rows, n, size}, eps, squared != 0};
  Arena arena(scratch);
  Sums* const sums = arena.take<Sums>(rows);
  std::vector<RowScratch> of_thread;
  for (int thread = 0; thread < threads; ++thread)
    of_thread.emplace_back(arena, o.shape, student_dtype);
  const int64_t groups = o.shape.groups(), group_bytes = n * o.shape.group_bytes();

  parallel_for(rows, o.shape.piece(threads), threads, [&](int thread, int64_t first, int64_t last) {
    const RowScratch& mine = of_thread[thread];
    for (int64_t row = first; row < last; ++row) {
      const float* s = nullptr;
      uint32_t high = 0;
      with_dtype(student, student_dtype, [&](auto* x) { s = as_float(x + row * n, n, mine.s); });
      with_dtype(teacher, teacher_dtype,
                 [&](auto* t) { high = difference(s, t + row * n, n, mine.d); });
      void* const numbers = group ? static_cast<char*>(group) + row * group_bytes : nullptr;
      sums[row] = fit_row(s, high, o, mine, numbers, coef + row * groups);
    }
  });

  Sums all = {};
  for (int64_t row = 0; row < rows; ++row) all += sums[row];
  const double count = double(rows) * double(n);
  *loss = combine_terms(float(all.coarse / count), float(all.deviation / count),
                        float(all.fine / count), !weight && adaptive, weight ? *weight : fixed,
                        scale, with_coarse, with_fine, terms);
}

// Bytes of scratch that `liftplace_backward` needs.
LIFTPLACE_API int64_t liftplace_backward_scratch(int64_t groups, int threads) {
  return groups * threads * int64_t(sizeof(Share));
}

// d loss / d student, (rows, n) in the student's dtype; arguments as the forward left them.
LIFTPLACE_API void liftplace_backward(const void* student, int student_dtype, const void* teacher,
                                      int teacher_dtype, int64_t rows, int64_t n, int64_t groups,
                                      const void* group, const float* coef, const float* terms,
                                      const float* grad_out, float scale, int with_coarse,
                                      int with_fine, void* grad, char* scratch, int threads) {
  const float unit = *grad_out * (scale / float(double(rows) * double(n)));
  const int64_t plane = rows * groups;
  const Shape shape = {rows, n, (n + groups - 1) / groups};
  parallel_for(rows, shape.piece(threads), threads, [&](int thread, int64_t first, int64_t last) {
    Share* const share = reinterpret_cast<Share*>(scratch) + thread * groups;
    for (int64_t row = first; row < last; ++row) {
      for (int64_t g = 0; g < groups; ++g) {
        const float* of = coef + row * groups + g;
        share[g] = {of[kMeanS * plane], of[kMeanD * plane],
                    group_gradient(of[kSlopeLess1 * plane], of[kK * plane], of[kC * plane],
                                   terms[kWeight], unit, with_coarse, with_fine)};
      }
      with_dtype(student, student_dtype, [&](auto* s) {
        with_dtype(teacher, teacher_dtype, [&](auto* t) {
          using S = std::remove_const_t<std::remove_pointer_t<decltype(s)>>;
          S* const out = static_cast<S*>(grad) + row * n;
          const auto fill = [&](auto share_of) {
            gradient_row(s + row * n, t + row * n, n, out, share_of);
          };
          if (groups == 1) {
            const Share whole = share[0];
            fill([=](int64_t) { return whole; });
          } else if (groups <= 1 << 16) {
            const uint16_t* const number = static_cast<const uint16_t*>(group) + row * n;
            fill([=](int64_t i) -> const Share& { return share[number[i]]; });
          } else {
            const int32_t* const number = static_cast<const int32_t*>(group) + row * n;
            fill([=](int64_t i) -> const Share& { return share[number[i]]; });
          }
        });
      });
    }
  });
}
