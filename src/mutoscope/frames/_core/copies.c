// Copies of pixels on their way between processes, past this processor's caches. memcpy keeps what it writes in them, from where
// the other side has to fetch it line by line, and drives out what is needed again; and some processors take three times as long
// where source and target are aligned differently.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "guard.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define AHEAD 1024  // bytes that are asked for before they are needed
#define INLINE static inline __attribute__((always_inline))

INLINE void copy_past(char *to, const char *from, size_t bytes) {
#if defined(__SSE2__)
  size_t head = (size_t)(-(uintptr_t)to & 15);
  if (head > bytes) head = bytes;
  memcpy(to, from, head);
  to += head, from += head, bytes -= head;
  for (; bytes >= 64; to += 64, from += 64, bytes -= 64) {
    const __m128i *f = (const __m128i *)from;
    __m128i *t = (__m128i *)to;
    __builtin_prefetch(from + AHEAD);  // may lie outside: it is a hint
    __m128i a = _mm_loadu_si128(f), b = _mm_loadu_si128(f + 1), c = _mm_loadu_si128(f + 2), d = _mm_loadu_si128(f + 3);
    _mm_stream_si128(t, a), _mm_stream_si128(t + 1, b), _mm_stream_si128(t + 2, c), _mm_stream_si128(t + 3, d);
  }
#endif
  memcpy(to, from, bytes);
}

INLINE void settle(void) {  // what tells of a copy is seen after it
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

MUTOSCOPE_API void mutoscope_copy_out(char *to, const char *from, uint64_t bytes) {
  copy_past(to, from, bytes);
  settle();
}

#define LIMITS(name, type)                                                         \
  INLINE void limits_##name(const void *row, size_t count, double limits[2]) {     \
    const type *values = row;                                                      \
    type low = values[0], high = values[0];                                        \
    for (size_t i = 1; i < count; i++) {                                           \
      low = values[i] < low ? values[i] : low;                                     \
      high = values[i] > high ? values[i] : high;                                  \
    }                                                                              \
    if ((double)low < limits[0]) limits[0] = (double)low;                          \
    if ((double)high > limits[1]) limits[1] = (double)high;                        \
  }

#define LANES 8  // side by side, so that one comparison does not wait for the other
#define TAKE(k)                                                                    \
  low[k] = v[k] < low[k] && v[k] > least ? v[k] : low[k];                          \
  high[k] = v[k] > high[k] && v[k] < most ? v[k] : high[k];

#define FINITE_LIMITS(name, type)                                                  \
  INLINE void limits_##name(const void *row, size_t count, double limits[2]) {     \
    const type *v = row, most = (type)INFINITY, least = -most;                     \
    type low[LANES], high[LANES];                                                  \
    for (int k = 0; k < LANES; k++) low[k] = most, high[k] = least;                \
    for (; count >= LANES; count -= LANES, v += LANES)                             \
      for (int k = 0; k < LANES; k++) { TAKE(k) }                                  \
    for (size_t k = 0; k < count; k++) { TAKE(k) }                                 \
    for (int k = 0; k < LANES; k++) {                                              \
      if ((double)low[k] < limits[0]) limits[0] = (double)low[k];                  \
      if ((double)high[k] > limits[1]) limits[1] = (double)high[k];                \
    }                                                                              \
  }

LIMITS(u8, uint8_t)
LIMITS(u16, uint16_t)
LIMITS(u32, uint32_t)
LIMITS(u64, uint64_t)
LIMITS(i8, int8_t)
LIMITS(i16, int16_t)
LIMITS(i32, int32_t)
LIMITS(i64, int64_t)
FINITE_LIMITS(f32, float)
FINITE_LIMITS(f64, double)

enum { U8 = 1, U16, U32, U64, I8, I16, I32, I64, F32, F64 };  // as in copies.py

// Copies rows, and widens `limits` to the finite values, of this kind, of every `every`-th of them.
MUTOSCOPE_API void mutoscope_copy_rows(char *to, int64_t to_step, const char *from, int64_t from_step, uint64_t rows,
                                       uint64_t bytes, int kind, uint64_t every, double limits[2]) {
  for (uint64_t row = 0; row < rows; row++, to += to_step, from += from_step) {
    copy_past(to, from, bytes);
    if (row % every) continue;
    switch (kind) {  // while it is in the cache
      case U8: limits_u8(from, bytes, limits); break;
      case U16: limits_u16(from, bytes / 2, limits); break;
      case U32: limits_u32(from, bytes / 4, limits); break;
      case U64: limits_u64(from, bytes / 8, limits); break;
      case I8: limits_i8(from, bytes, limits); break;
      case I16: limits_i16(from, bytes / 2, limits); break;
      case I32: limits_i32(from, bytes / 4, limits); break;
      case I64: limits_i64(from, bytes / 8, limits); break;
      case F32: limits_f32(from, bytes / 4, limits); break;
      case F64: limits_f64(from, bytes / 8, limits); break;
    }
  }
  settle();
}
