// Integers of any width.
#pragma once

#include <ap_int.h>

// x * 2^by, wrapping; 0 when shifted by the width or more.
template <class T> T shift_left(T x, int by) { return (by < 0 || by >= T::width) ? T(0) : T(x << by); }

// x / 2^by, rounded down; shifted by the width or more only the sign is left.
template <class T> T shift_right(T x, int by) {
  return (by < 0 || by >= T::width) ? T(x < T(0) ? -1 : 0) : T(x >> by);
}

// The integer within `low` to `high`, the range of T.
template <class T, class Wide> T clamped(Wide x, Wide low, Wide high) {
  return x < low ? T(low) : high < x ? T(high) : T(x);
}

// A floating-point number towards zero, saturating; NaN becomes 0. `limit` is the first power of two above the range.
template <class T> T to_integer(double x, bool is_signed, double limit) {
  const double low = is_signed ? -limit : 0.0;
  const T lowest = is_signed ? T(T(1) << (T::width - 1)) : T(0);
  if (!(x == x)) return T(0);
  if (x <= low) return lowest;
  if (x >= limit) return T(~lowest);
  return is_signed ? T((long long)x) : T((unsigned long long)x);
}
