//! The index of a folder of studies: written from records alone, and known to be
//! stale when they say something else.

mod workplace;

use std::fs;
use workplace::Workplace;

/// A folder of studies with one recorded and one not.
fn recorded() -> Workplace {
    let place = Workplace::new();
    place.succeed("run tiny.toml --jobs 2 --out records");
    let study = place
        .read("tiny.toml")
        .replace("model.toml", "../model.toml");
    place.write("studies/tiny.toml", &study);
    let other = study.replace("Two competing experts", "A | <b>B</b>");
    place.write("studies/later.toml", &other);
    fs::rename(place.path("records"), place.path("studies/records")).unwrap();
    place
}

#[test]
fn an_index_lists_claims_findings_and_effort_of_every_study() {
    let place = recorded();
    let said = place.succeed("index studies");
    assert!(said.contains("studies/index.html"), "{said}");
    let table = place.read("studies/README.md");
    for part in [
        "[tiny](records/tiny/index.html)",
        "[design](tiny.toml)",
        "E h falls like",
        "*Theorem 4.1*",
        "softplus −",
        "| holds |",
        "48 fits, 12 in each of 4 cells",
        "not recorded",
        "A \\| &lt;b>B&lt;/b>",
    ] {
        assert!(table.contains(part), "no {part} in {table}");
    }
    let page = place.read("studies/index.html");
    for part in [
        "records/tiny/rates.svg",
        "href=\"records/tiny/index.html\"",
        "class=\"verdict holds\"",
        "A | &lt;b&gt;B&lt;/b&gt;",
        "Not recorded.",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    // The same records give the same bytes.
    place.succeed("index studies");
    assert_eq!(place.read("studies/README.md"), table);
    assert_eq!(place.read("studies/index.html"), page);
}

#[test]
fn check_says_if_an_index_is_stale_and_needs_none() {
    let place = recorded();
    let without = place.succeed("check studies");
    assert!(!without.contains("index"), "{without}");
    place.succeed("index studies");
    place.succeed("check studies");
    place.edit("studies/tiny.toml", "Two competing experts", "Two experts");
    let check = place.run("check studies");
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(
        check.out.contains("the index is stale: README.md, line"),
        "{}",
        check.out
    );
    place.succeed("index studies");
    place.succeed("check studies");
    fs::remove_file(place.path("studies/index.html")).unwrap();
    let check = place.run("check studies");
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(
        check.out.contains("index.html cannot be read"),
        "{}",
        check.out
    );
}

#[test]
fn a_readme_of_somebody_else_is_not_replaced() {
    let place = recorded();
    place.write("studies/README.md", "# Mine\n");
    place.refuse("index studies", &["studies/README.md", "move it away"]);
    assert_eq!(place.read("studies/README.md"), "# Mine\n");
    assert!(!place.path("studies/index.html").exists());
    place.succeed("check studies");
    place.refuse("index studies/tiny.toml", &["studies/tiny.toml", "folder"]);
}
