//! Documents name tests, studies and files that exist.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut files = vec![root().join("README.md")];
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    files.extend(
        docs.map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some()),
    );
    files
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// The pieces of `text` between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_named_in_a_document_exists() {
    let mut named = 0;
    for (path, text) in documents() {
        for piece in quoted(&text) {
            let Some((place, name)) = piece.split_once(".rs::") else {
                continue;
            };
            let file = format!("{place}.rs");
            if !file.starts_with("tests/") && !file.starts_with("src/") {
                continue;
            }
            let source = std::fs::read_to_string(root().join(&file))
                .unwrap_or_else(|_| panic!("{} names {file}", path.display()));
            assert!(
                source.contains(&format!("fn {name}")),
                "{} names {piece}",
                path.display()
            );
            named += 1;
        }
    }
    assert!(named > 10, "{named} tests are named");
}

#[test]
fn every_local_link_leads_somewhere() {
    for (path, text) in documents() {
        let folder = path.parent().unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            assert!(folder.join(file).exists(), "{}: {target}", path.display());
        }
    }
}
