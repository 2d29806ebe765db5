//! Makes the API's messages and stubs out of `proto/`, without a protoc.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true).open_file("evener/v1/evener.proto")?;
    let descriptors = compiler.file_descriptor_set();
    // With the descriptors, a node can say which calls it takes.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    fs::write(out.join("evener.v1.bin"), compiler.encode_file_descriptor_set())?;
    // Payloads are slices of what came over the wire, not copies.
    tonic_prost_build::configure().bytes(".").build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
