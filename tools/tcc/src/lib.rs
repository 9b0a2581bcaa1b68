//! The tcc library facade and the command line.
