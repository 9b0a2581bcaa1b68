// Fixed-point numbers: rounding, quotients, roots, conversion, tables.
#pragma once

#include <ap_fixed.h>

#include "tcc_integer.h"

// The bits of a number, as an integer.
template <class T> ap_int<T::width> mantissa(T x) {
  ap_int<T::width> bits;
  bits = x.range(T::width - 1, 0);
  return bits;
}

// The number that an integer of more bits is the mantissa of, saturating.
template <class T, int Wide> T from_mantissa(ap_int<Wide> bits) {
  ap_fixed<Wide, Wide - (T::width - T::iwidth)> wide;
  wide.range(Wide - 1, 0) = bits;
  return T(wide);
}

// The quotient, cut off after the last bit; a division by zero saturates.
template <class T> T fixed_quotient(T a, T b) {
  const int fraction = T::width - T::iwidth;
  const int wide = T::width + (fraction > 0 ? fraction : 0) + 1;
  if (b == 0) {
    const ap_int<T::width + 1> one = 1;
    const ap_int<T::width + 1> limit = one << (T::width - 1);
    return a < 0 ? from_mantissa<T, T::width + 1>(-limit) : from_mantissa<T, T::width + 1>(limit);
  }
  ap_int<wide> numerator = mantissa(a);
  numerator = numerator << (fraction > 0 ? fraction : 0);
  const ap_int<wide> denominator = mantissa(b);
  const ap_int<wide> quotient = numerator / denominator;
  return from_mantissa<T, wide>(quotient);
}

// The square root, cut off after the last bit; 0 of negative numbers.
template <class T> T fixed_root(T x) {
  const int fraction = T::width - T::iwidth;
  const int wide = T::width + fraction + 1;
  if (x <= 0) return T(0);
  ap_uint<wide> square = ap_uint<T::width>(mantissa(x));
  square = square << fraction;
  ap_uint<wide> root = 0;
  for (int bit = (wide - 1) / 2; bit >= 0; --bit) {
    ap_uint<wide> larger = root;
    larger[bit] = 1;
    const ap_uint<2 * wide> product = larger * larger;
    if (product <= square) root = larger;
  }
  return from_mantissa<T, wide + 1>(ap_int<wide + 1>(root));
}

template <class T> T fixed_floor(T x) {
  return T(ap_fixed<T::iwidth + 1, T::iwidth + 1, AP_TRN, AP_SAT>(x));
}
template <class T> T fixed_ceil(T x) {
  const ap_fixed<T::width + 1, T::iwidth + 1> negative = -x;
  return T(-ap_fixed<T::iwidth + 2, T::iwidth + 2, AP_TRN, AP_SAT>(negative));
}
template <class T> T fixed_round(T x) {
  return T(ap_fixed<T::iwidth + 2, T::iwidth + 2, AP_RND_CONV, AP_SAT>(x));
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
template <int N, int Shift, class T, class X> T lookup(const T (&table)[N + 1], X x, int low) {
  const int whole = (X::iwidth > 6 ? X::iwidth : 6) + Shift + 2;
  const int fraction = X::width - X::iwidth;
  const ap_fixed<whole + fraction, whole> start = x - low;
  const ap_fixed<whole + fraction, whole> scaled = start << Shift;
  if (scaled < 0) return table[0];
  if (scaled >= N) return table[N];
  const int index = scaled.to_int();
  const ap_fixed<2 + fraction, 2> rest = scaled - index;
  return T(table[index] + (table[index + 1] - table[index]) * rest);
}

// The natural logarithm, from a table over one octave; the smallest number for arguments that are not positive.
template <int N, int Shift, class T> T fixed_log(const T (&table)[N + 1], T x, T octave) {
  const int fraction = T::width - T::iwidth;
  if (x <= 0) {
    const ap_int<T::width + 1> one = 1;
    return from_mantissa<T, T::width + 1>(-(one << (T::width - 1)));
  }
  const ap_int<T::width> bits = mantissa(x);
  int highest = 0;
  for (int bit = 0; bit < T::width - 1; ++bit) {
    if (bits[bit]) highest = bit;
  }
  // The number over its highest power of two, with the fraction of T.
  ap_uint<T::width> leading = bits;
  leading = leading << (T::width - 1 - highest);
  ap_ufixed<T::width, 1> exact;
  exact.range(T::width - 1, 0) = leading;
  const ap_fixed<fraction + 4, 4, AP_RND_CONV, AP_SAT> number = exact;
  return T(lookup<N, Shift, T>(table, number, 1) + ap_int<16>(highest - fraction) * octave);
}
