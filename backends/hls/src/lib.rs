//! Kernel IR to HLS C++ projects for FPGAs.
