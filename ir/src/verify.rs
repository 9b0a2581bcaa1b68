//! The invariants of a module, checked.
