#![no_main]
libfuzzer_sys::fuzz_target!(|file: &[u8]| tcc_fuzz::run("safetensors", file));
