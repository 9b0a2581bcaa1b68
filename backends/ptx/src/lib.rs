//! Kernel IR to PTX for NVIDIA GPUs.
