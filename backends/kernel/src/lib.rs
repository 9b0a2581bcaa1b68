//! The kernel IR: loop nests over tiles, its scheduling steps and the lowering from tensor IR.
