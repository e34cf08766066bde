//! `cargo bench --bench inits`: `sexton-lab bench` with this crate's release builds. `SEXTON_BIN` names another sexton;
//! words behind `--` are passed on.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

fn main() -> std::io::Result<()> {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_sexton-lab"));
    // cargo adds a word of its own.
    bench.arg("bench").args(std::env::args_os().skip(1).filter(|word| word != "--bench"));
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dist/x86_64/sexton");
    for (name, path) in [("SEXTON_BIN", Path::new(env!("CARGO_BIN_EXE_sexton"))), ("SEXTON_DIST", &dist)] {
        if std::env::var_os(name).is_none() {
            bench.env(name, path);
        }
    }
    Err(bench.exec())
}
