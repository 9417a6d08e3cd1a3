//! Compiles our proto files with protox, so that no installed protoc is needed.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let file = root.join("sigilum/gateway/v1/state.proto");
    let descriptors = protox::compile([&file], [&root])?;
    // `Connection` carries a secret: its `Debug` is written by hand, in wire/state.rs.
    tonic_prost_build::configure().skip_debug(["sigilum.gateway.v1.Connection"]).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed={}", file.display());
    Ok(())
}
