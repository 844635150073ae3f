//! Compiles the wire contract in `proto/` to Rust with protox, so that no `protoc` is needed, and keeps the
//! descriptors, comments included, for the canonical ProtoJSON of `event::json`.

use std::{env, error::Error, fs, path::PathBuf};

use prost_build::Config;
use protox::prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::Compiler::new(["proto"])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(["fleetbus/v1/event.proto"])?
        .file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    Config::new().enable_type_names().compile_fds(descriptors)?;
    Ok(())
}
