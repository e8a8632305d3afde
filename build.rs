//! Tells the crate which compiler builds it, for the record of a run.

use std::process::Command;

fn main() {
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
    let version = Command::new(compiler).arg("--version").output();
    if let Some(version) = version.ok().and_then(|o| String::from_utf8(o.stdout).ok()) {
        println!("cargo::rustc-env=RUSTC_VERSION={}", version.trim());
    }
    println!("cargo::rerun-if-changed=build.rs");
}
