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

/// A softmax router of two experts.
const ROUTER: &str = r#"[input]
law = "LAW"
[gate]
kind = "softmax"
[[expert]]
kind = "linear"
slope = [2.0]
intercept = 1.0
variance = 0.3
gate_slope = [1.5]
gate_intercept = 0.3
[[expert]]
kind = "linear"
slope = [-1.5]
intercept = 0.5
variance = 0.4
gate_slope = [0.0]
gate_intercept = 0.0
"#;

const COPIES: &str = r#"title = "Two copies"
aim = "Whether the command works."
reference = "none"
part = "4 Inverse bounds"
seed = 3
starts = 2
[bounds]
coefficient = 1.0
log_variance = 1.0
gate = 1.0
log_share = 0.0
[[gate]]
name = "softmax"
truth = "truths/grid.toml"
expert = 0
[[case]]
gates = ["softmax"]
copies = 2
coordinate = "slope"
delta = { from = 0.1, to = 0.01, points = 3 }
window = [0.01, 0.1]
exponent = 2.0
tolerance = 0.5
"#;

const FEW: &str = r#"title = "Too few kept"
aim = "Whether the command works."
reference = "none"
part = "7 Top-K"
seed = 1
starts = 1
points = 20
[[case]]
name = "box"
truth = "../truths/line.toml"
expert = 0
kept = 2
shares = [0.5]
radius = 0.05
accept = [[1e-3, 1.0]]
"#;

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
        "softplus: −",
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

/// A small study of each kind.
fn all_kinds() -> Workplace {
    let place = Workplace::new();
    let study = place.read("tiny.toml");
    let study = study.replace("model.toml", "../model.toml");
    place.write(
        "studies/tiny.toml",
        &study.replace("seed = 7", "part = \"1 First\"\nseed = 7"),
    );
    let grid = "grid\"\npoints = [[-1.0], [-0.6], [-0.3], [0.0], [0.3], [0.6], [1.0]]";
    let line = "uniform\"\nlow = [-1.0]\nhigh = [1.0]";
    for (name, law) in [("grid", grid), ("line", line)] {
        let truth = ROUTER.replace("LAW\"", law);
        place.write(&format!("studies/inverse/truths/{name}.toml"), &truth);
    }
    place.write("studies/inverse/copies.toml", COPIES);
    place.write("studies/inverse/top-k/few.toml", FEW);
    place
}

#[test]
fn a_smoke_run_of_a_folder_covers_all_kinds_of_studies() {
    let place = all_kinds();
    let said = place.succeed("run studies --smoke --jobs 2");
    for page in ["tiny", "copies-smoke", "few-smoke"] {
        let page = format!("results/{page}/index.html");
        assert!(said.contains(&page), "no {page} in {said}");
        assert!(place.path(&page).exists());
    }
    // Cells and shards are those of Monte Carlo.
    let said = place.succeed("run studies --only softplus --out other");
    assert!(!said.contains("copies"), "{said}");
    assert!(!place.path("other/copies").exists());
}

#[test]
fn a_run_of_a_folder_computes_what_is_missing_of_all_kinds_of_studies() {
    let place = all_kinds();
    place.succeed("run studies --jobs 2");
    for file in ["tiny/rows.csv", "copies/minima.csv", "few/infima.csv"] {
        assert!(place.path(&format!("results/{file}")).exists(), "{file}");
    }
    let again = place.succeed("run studies --jobs 2");
    for part in [
        "0 rows computed",
        "copies: nothing is missing",
        "few: nothing",
    ] {
        assert!(again.contains(part), "no {part} in {again}");
    }
    // Another design is another result.
    place.edit("studies/inverse/copies.toml", "starts = 2", "starts = 1");
    let other = place.succeed("run studies --jobs 2");
    assert!(!other.contains("copies: nothing"), "{other}");
}

#[test]
fn an_index_has_all_kinds_of_studies_under_their_parts_and_check_compares_it() {
    let place = all_kinds();
    place.succeed("run studies/tiny.toml --jobs 2 --out studies/records");
    let inverse = "studies/inverse/records";
    place.succeed(&format!(
        "inverse studies/inverse/copies.toml --out {inverse}"
    ));
    let top_k = "studies/inverse/top-k/records";
    place.succeed(&format!(
        "inverse studies/inverse/top-k/few.toml --out {top_k}"
    ));
    place.succeed("index studies");
    let table = place.read("studies/README.md");
    let parts = [
        "## 1 First",
        "[tiny](records/tiny/index.html)",
        "accepted [−90, 90]",
        "## 4 Inverse bounds",
        "[copies](inverse/records/copies/index.html) ([design](inverse/copies.toml))",
        "## 7 Top-K",
        "[few](inverse/top-k/records/few/index.html) ([design](inverse/top-k/few.toml))",
        "box: inf E h² within 0.05 of the fit, accepted ≥ 0.001",
        "share 0.5: 0.0",
        "1 infimum in 1 case",
    ];
    let mut rest = table.as_str();
    for part in parts {
        let found = rest.find(part);
        rest = &rest[found.unwrap_or_else(|| panic!("no {part} in order in {table}"))..];
    }
    let page = place.read("studies/index.html");
    assert!(page.contains("inverse/top-k/records/few/infima.svg"));
    place.succeed("check studies");
    // The part is no part of the design: the record stays, the index does not.
    place.edit("studies/inverse/top-k/few.toml", "7 Top-K", "8 Top-K");
    let check = place.run("check studies");
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(check.out.contains("the index is stale"), "{}", check.out);
    place.succeed("index studies");
    let infima = place.path("studies/inverse/top-k/records/few");
    fs::remove_dir_all(infima).unwrap();
    let check = place.run("check studies");
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(
        check.out.contains("few: no recorded infima"),
        "{}",
        check.out
    );
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
