// Files of vectors, and the comparison of results with expected values.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

// The elements of all vectors of one port.
template <class T> class Values {
 public:
  // With `vectors` other than 0 there is no file, and no element.
  Values(const std::string &path, size_t elements, size_t vectors = 0) : vectors_(vectors), elements_(elements) {
    if (vectors != 0) return;
    std::ifstream file(path);
    size_t stored = 0;
    if (!(file >> vectors_ >> stored) || stored != elements) {
      std::cerr << path << ": missing, or not of " << elements << " elements a vector\n";
      exit(2);
    }
    std::string word;
    values_.reserve(vectors_ * elements);
    while (values_.size() < vectors_ * elements && file >> word) values_.push_back(parse(word, T()));
    if (values_.size() != vectors_ * elements) {
      std::cerr << path << ": ends early\n";
      exit(2);
    }
  }
  size_t vectors() const { return vectors_; }
  T at(size_t vector, size_t i) const { return values_[vector * elements_ + i]; }

 private:
  static double parse(const std::string &word, double) { return strtod(word.c_str(), nullptr); }
  static long long parse(const std::string &word, long long) { return strtoll(word.c_str(), nullptr, 10); }
  static unsigned long long parse(const std::string &word, unsigned long long) {
    return strtoull(word.c_str(), nullptr, 10);
  }
  size_t vectors_ = 0;
  size_t elements_;
  std::vector<T> values_;
};

// Compares one output and writes what it was.
template <class T> class Check {
 public:
  // With `vectors` other than 0 results are written for so many, and compared with nothing.
  Check(const std::string &folder, const std::string &name, size_t elements, double tolerance, size_t vectors)
      : expected_(folder + "/" + name + ".expected.txt", vectors ? 0 : elements, vectors),
        actual_(folder + "/" + name + ".actual.txt"),
        name_(name),
        tolerance_(tolerance),
        compares_(vectors == 0) {
    actual_ << expected_.vectors() << " " << elements << "\n" << std::setprecision(17);
  }
  size_t vectors() const { return expected_.vectors(); }
  void compare(size_t vector, size_t i, T value) {
    actual_ << value << "\n";
    if (!compares_) return;
    const T wanted = expected_.at(vector, i);
    ++count_;
    if (value == wanted || (value != value && wanted != wanted)) return;
    const double error = std::fabs(double(value) - double(wanted));
    const double allowed = exact(T()) ? 0.0 : tolerance_ * std::fmax(1.0, std::fabs(double(wanted)));
    if (!(error <= largest_)) largest_ = error;
    if (!(error <= allowed) && failures_++ == 0) {
      std::cerr << name_ << ", vector " << vector << ", element " << i << ": " << value << " instead of " << wanted
                << "\n";
    }
  }
  // True where all values were within the tolerance, and there were some.
  bool report() {
    if (!compares_) return true;
    std::cout << name_ << ": " << count_ << " values, largest error " << largest_ << ", " << failures_
              << " beyond the tolerance\n";
    return failures_ == 0 && vectors() > 0;
  }

 private:
  static bool exact(double) { return false; }
  static bool exact(long long) { return true; }
  static bool exact(unsigned long long) { return true; }
  Values<T> expected_;
  std::ofstream actual_;
  std::string name_;
  double tolerance_;
  bool compares_;
  double largest_ = 0.0;
  size_t count_ = 0;
  size_t failures_ = 0;
};
