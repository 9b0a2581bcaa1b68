//! The reference interpreter of the tensor IR: slow, plain, and the oracle for every rewrite and backend.
