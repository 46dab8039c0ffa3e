//! Puts the sources of the SDK into the library, as the constant `FILES`, and assembles the floor for WASI.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let sources = here.join("../../policies/sdk/src");
    println!("cargo:rerun-if-changed={}", sources.display());

    let mut files = Vec::new();
    collect(&sources, &mut files)?;
    files.sort();
    let mut text = String::from("pub(crate) const FILES: &[(&str, &str)] = &[\n");
    for file in files {
        let name = file.strip_prefix(&sources).unwrap_or(&file);
        let file = fs::canonicalize(&file)?;
        let _ = writeln!(text, "    ({name:?}, include_str!({file:?})),");
    }
    text.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("sdk.rs"), text)?;

    let floor = here.join("src/floor.wat");
    println!("cargo:rerun-if-changed={}", floor.display());
    fs::write(out.join("floor.wasm"), wat::parse_file(floor)?)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
