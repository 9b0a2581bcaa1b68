//! The tensor IR of tcc: operators, types, symbolic dimensions, modules, text form and verifier.
