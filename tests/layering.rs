//! The rooms of the house and who may use whom (`docs/contributing.md`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each room with the rooms it may use; every room may use itself and the ground.
const ROOMS: [(&str, &[&str]); 9] = [
    ("model", &[]),
    ("loss", &["model"]),
    ("backend", &["model"]),
    ("fit", &["backend", "model"]),
    ("sim", &["fit", "loss", "model", "backend"]),
    ("plot", &[]),
    ("analysis", &["fit", "backend", "model", "plot"]),
    ("report", &["sim", "plot"]),
    ("train", &["plot"]),
];

/// Used by all, using none but each other.
const GROUND: [&str; 3] = ["num", "rng", "error"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Rust files of a room: a folder, or a single file.
fn files(room: &str) -> Vec<PathBuf> {
    let mut waiting = vec![source().join(room), source().join(format!("{room}.rs"))];
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") && path.exists() {
            found.push(path);
        }
    }
    found
}

/// True for a file of unit tests, which may compare a room with any other.
fn is_of_tests(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == "tests.rs" || name.ends_with("_tests.rs"))
}

/// The rooms that code (not comments) reaches through `crate::`.
fn rooms_used(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            rest[..end.unwrap_or(rest.len())].to_string()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn every_arrow_between_rooms_points_down() {
    let mut wrong = Vec::new();
    let grounds = GROUND.iter().map(|room| (*room, [].as_slice()));
    for (room, allowed) in ROOMS.into_iter().chain(grounds) {
        let files = files(room);
        assert!(!files.is_empty(), "no room {room}");
        for file in files.into_iter().filter(|file| !is_of_tests(file)) {
            for used in rooms_used(&std::fs::read_to_string(&file).unwrap()) {
                let fine = used == room
                    || allowed.contains(&used.as_str())
                    || GROUND.contains(&used.as_str());
                if !fine {
                    wrong.push(format!("{} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_is_known_to_this_test() {
    let library = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    for line in library.lines() {
        if let Some(name) = line.strip_prefix("pub mod ") {
            let name = name.trim_end_matches(';');
            let known = ROOMS.iter().any(|(room, _)| *room == name) || GROUND.contains(&name);
            assert!(known, "{name} is not in the list of rooms");
        }
    }
}

#[test]
fn the_scan_sees_what_it_must() {
    let used = rooms_used("use crate::{fit, sim};\n// crate::plot\nlet x = crate::loss::h();");
    // Grouped imports would hide a room from the scan: they are not used.
    assert_eq!(used, BTreeSet::from(["loss".to_string()]));
    for (room, _) in ROOMS {
        for file in files(room) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(
                !text.contains("use crate::{"),
                "{}: grouped import",
                file.display()
            );
        }
    }
}
