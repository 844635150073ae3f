//! Compiles the wire contract in `proto/` to Rust with protox, so that no `protoc` is needed, and keeps the
//! descriptors, comments included, for the canonical ProtoJSON of `event::json`. Takes what `/docs` shows the operator's API with out of
//! Swagger UI's release, two files of fifteen, and compresses them: a browser takes them so.

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::{env, error::Error, fs};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost_build::Config;
use protox::prost::Message as _;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

/// What the page loads.
const PAGE: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::Compiler::new(["proto"])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(["fleetbus/v1/event.proto"])?
        .file_descriptor_set();
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    Config::new().enable_type_names().compile_fds(descriptors)?;
    swagger_ui(&out)
}

fn swagger_ui(out: &Path) -> Result<(), Box<dyn Error>> {
    let mut release = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    let mut missing = Vec::from(PAGE);
    for at in 0..release.len() {
        let mut file = release.by_index(at)?;
        let path = file.name()?.into_owned();
        let is_it = |name: &&str| path.ends_with(&format!("/dist/{name}")) && !path.contains("/flavors/");
        let Some(place) = missing.iter().position(is_it) else { continue };
        let name = missing.swap_remove(place);
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        io::copy(&mut file, &mut packed)?;
        fs::write(out.join(format!("{name}.gz")), packed.finish()?)?;
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("Swagger UI has no {missing:?}").into()) }
}
