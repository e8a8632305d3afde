//! Peak memory of a process.

use std::process::Command;

/// That of this program when it only does the steps of this name.
pub fn of_this_program(name: &str) -> Option<u64> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new(program)
        .args(["--memory", name])
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
