// Fixed-point numbers: rounding, quotients, conversion, tables.
#pragma once

#include <ap_fixed.h>

#include "tcc_integer.h"

// The quotient with the fraction bits of T; a division by zero saturates.
template <class T> T fixed_quotient(T a, T b, T low, T high) {
  if (b == 0) return a < 0 ? low : high;
  return T(a / b);
}

template <class T> T fixed_floor(T x) {
  return T(ap_fixed<T::iwidth + 1, T::iwidth + 1, AP_TRN, AP_SAT>(x));
}
template <class T> T fixed_ceil(T x) {
  const ap_fixed<T::width + 1, T::iwidth + 1> negative = -x;
  return T(-ap_fixed<T::iwidth + 2, T::iwidth + 2, AP_TRN, AP_SAT>(negative));
}
template <class T> T fixed_round(T x) {
  return T(ap_fixed<T::iwidth + 1, T::iwidth + 1, AP_RND_CONV, AP_SAT>(x));
}
template <class T> T fixed_trunc(T x) {
  return T(ap_fixed<T::iwidth + 1, T::iwidth + 1, AP_TRN_ZERO, AP_SAT>(x));
}

// A fixed-point number towards zero, saturating.
template <class Integer, bool Signed, class T> Integer fixed_to_integer(T x) {
  const ap_fixed<T::iwidth + 1, T::iwidth + 1, AP_TRN_ZERO, AP_SAT> whole = x;
  const ap_int<T::iwidth + 1> bits = whole.range();
  const int spare = Signed ? 1 : 0;
  const ap_int<Integer::width + 2> one = 1;
  const ap_int<Integer::width + 2> high = (one << (Integer::width - spare)) - 1;
  const ap_int<Integer::width + 2> low = Signed ? ap_int<Integer::width + 2>(-high - 1) : ap_int<Integer::width + 2>(0);
  return bits < low ? Integer(low) : high < bits ? Integer(high) : Integer(bits);
}

// Interpolates between the entries of a table over low .. low + N / 2^Shift; the ends continue outside of it.
template <int N, int Shift, class T> T lookup(const T (&table)[N + 1], T x, int low) {
  const ap_fixed<T::width + Shift + 1, T::iwidth + Shift + 1> start = x - low;
  const ap_fixed<T::width + Shift + 1, T::iwidth + Shift + 1> scaled = start << Shift;
  if (scaled < 0) return table[0];
  if (scaled >= N) return table[N];
  const int index = scaled.to_int();
  const ap_fixed<T::width, T::iwidth> rest = scaled - index;
  return T(table[index] + (table[index + 1] - table[index]) * rest);
}
