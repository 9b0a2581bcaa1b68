// Streams between the processes of a design, and the processes that every design has.
#pragma once

#ifdef __SYNTHESIS__
#include <hls_stream.h>
#else
#include <cstdio>
#include <cstdlib>
#include <deque>

namespace hls {
// A queue without bounds, for simulation: processes run one after the other. Reading more than was written, and leaving
// something behind, is an error.
template <class T> class stream {
 public:
  explicit stream(const char *name) : name_(name) {}
  ~stream() {
    if (!elements_.empty()) failed("elements are left");
  }
  T read() {
    if (elements_.empty()) failed("is read when it is empty");
    const T first = elements_.front();
    elements_.pop_front();
    return first;
  }
  void write(const T &element) { elements_.push_back(element); }

 private:
  void failed(const char *what) const {
    std::fprintf(stderr, "stream %s: %s\n", name_, what);
    std::exit(3);
  }
  const char *name_;
  std::deque<T> elements_;
};
}  // namespace hls
#endif

// From external memory.
template <int N, class From, class To> void load(const From *from, hls::stream<To> &to) {
  for (int i = 0; i < N; ++i) {
#pragma HLS PIPELINE II=1
    to.write(from[i]);
  }
}

// To external memory.
template <int N, class From, class To> void store(hls::stream<From> &from, To *to) {
  for (int i = 0; i < N; ++i) {
#pragma HLS PIPELINE II=1
    to[i] = from.read();
  }
}

// From one stream to another, of another format perhaps.
template <int N, class From, class To> void forward(hls::stream<From> &from, hls::stream<To> &to) {
  for (int i = 0; i < N; ++i) {
#pragma HLS PIPELINE II=1
    to.write(from.read());
  }
}

// One stream for two readers.
template <int N, class T> void duplicate(hls::stream<T> &from, hls::stream<T> &first, hls::stream<T> &second) {
  for (int i = 0; i < N; ++i) {
#pragma HLS PIPELINE II=1
    const T element = from.read();
    first.write(element);
    second.write(element);
  }
}
