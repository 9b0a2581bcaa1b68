//! Generates the ONNX message types from the schema in `proto/`. `protox` parses it, so no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/onnx");
    let descriptors = protox::compile(["onnx/onnx-ml.proto", "onnx/onnx-data.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    // `bytes::Bytes` fields are slices of the buffer that is decoded: weights stay in the memory map.
    config.bytes([".onnx"]);
    config.disable_comments(["."]);
    config.compile_fds(descriptors)?;
    Ok(())
}
