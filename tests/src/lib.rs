//! Test support shared by the file tests, the conformance runner and the model zoo.
