//! Rewrites, fusion, cost model, memory plan and the pipeline from tensor IR to a program of kernels.
