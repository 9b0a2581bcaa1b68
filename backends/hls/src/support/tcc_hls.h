// Scalar functions that C++ operators do not give, for simulation and for synthesis.
#pragma once

#ifdef __SYNTHESIS__
#include <hls_math.h>
namespace scalar = hls;
#else
#include <cmath>
namespace scalar = std;
#endif

// The larger; a NaN operand is the result.
template <class T> T larger(T a, T b) { return (b < a || a != a) ? a : b; }

// The smaller; a NaN operand is the result.
template <class T> T smaller(T a, T b) { return (a < b || a != a) ? a : b; }

// |x|.
template <class T> T magnitude(T x) { return x < T(0) ? T(-x) : x; }

// -1, 0 or 1; NaN stays NaN.
template <class T> T sign(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x; }

// Quotient of integers, towards zero; division by zero yields zero.
template <class T> T quotient(T a, T b) { return b == T(0) ? T(0) : T(a / b); }

// Remainder with the sign of `a`; 0 for a division by zero.
template <class T> T remainder_of(T a, T b) { return b == T(0) ? T(0) : T(a % b); }

// Remainder with the sign of `b`; 0 for a division by zero.
template <class T> T modulo(T a, T b) {
  const T rest = remainder_of<T>(a, b);
  return (rest != T(0) && ((rest < T(0)) != (b < T(0)))) ? T(rest + b) : rest;
}

// 1 / (1 + e^-x).
template <class T> T sigmoid(T x) { return T(1) / (T(1) + scalar::exp(-x)); }

// Remainder of floats with the sign of `b`.
template <class T> T float_modulo(T a, T b) {
  const T rest = scalar::fmod(a, b);
  return (rest != T(0) && ((rest < T(0)) != (b < T(0)))) ? T(rest + b) : rest;
}
