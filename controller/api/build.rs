//! Generates `gamut.controller.v1` from `proto/controller.proto`. protox reads the file, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/controller.proto");
    let files = protox::compile(["controller.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".gamut.controller.v1.Resource.body")
        // Their bytes can be session keys; `proto.rs` writes a Debug that shows none.
        .skip_debug(["gamut.controller.v1.Resource", "gamut.controller.v1.SessionKey"])
        .compile_fds(files)?;
    Ok(())
}
