//! Claims about rows made by hand: what holds and what fails.

mod workplace;

use smoe_lab::sim::claim::Constant;
use smoe_lab::sim::row::Row;
use smoe_lab::sim::study::read_study;
use smoe_lab::sim::summary::{ClaimResult, Finding};
use smoe_lab::sim::{Cell, Plan, Summary, Verdict};
use workplace::{SIGNS, Workplace};

const STUDY: &str = r#"title = "By hand"
aim = "none"
reference = "none"
seed = 1
replicates = 50
losses = ["voronoi"]
record_standard_errors = true
[truth]
file = "signs.toml"
[grid]
n = [100, 1000, 10000]
[fit]
method = "em"
max_iterations = 20
gain = 0.1
starts = [{ kind = "k-means" }]
limits = { coefficient = 10.0, bias = 5.0, gate_slope = 10.0, variance = [0.01, 10.0] }
"#;

fn plan(study: &str) -> Plan {
    let place = Workplace::new();
    place.write("signs.toml", SIGNS);
    place.write("study.toml", study);
    Plan::new(read_study(&place.path("study.toml")).unwrap()).unwrap()
}

/// A certified fit of loss 1 at the truth.
fn row(plan: &Plan, cell: &Cell, replicate: u64) -> Row {
    let packed = plan.truths[cell.truth].regularity.packed();
    Row {
        study: plan.hash.clone(),
        cell: cell.name.clone(),
        replicate,
        n: cell.n,
        stop: "Converged".to_string(),
        converged: true,
        detail: String::new(),
        starts: "k-means -10 Converged 9.00".to_string(),
        em: 5,
        gradient: 0,
        newton: 3,
        passes: 12.0,
        scaled_score: 1e-9,
        on_bound: String::new(),
        log_likelihood: -10.0,
        log_likelihood_truth: -10.0,
        losses: vec![1.0],
        information_distance: 7.0,
        standard_errors: Some(vec![1.0; packed.len()]),
        parameters: packed,
        seconds: 0.0,
    }
}

/// Rows of all cells, changed by `change`.
fn rows(plan: &Plan, replicates: u64, change: impl Fn(&Cell, &mut Row)) -> Vec<Row> {
    let mut rows = Vec::new();
    for cell in &plan.cells {
        for replicate in 0..replicates {
            let mut row = row(plan, cell, replicate);
            change(cell, &mut row);
            rows.push(row);
        }
    }
    rows
}

fn claims(plan: &Plan, rows: &[Row]) -> Vec<ClaimResult> {
    Summary::new(plan, rows).claims
}

/// Numbers in (-1, 1) with mean near zero, the same for every cell.
fn noise(replicate: u64) -> f64 {
    2.0 * (0.618_034 * (replicate + 1) as f64).fract() - 1.0
}

/// Seven fits in twenty follow n^(-1/8), the others n^(-1/2). A resample of 200 has
/// its 80 % quantile or its median in the other regime at 4.5 standard errors only.
#[test]
fn quantiles_tell_two_regimes_apart_that_the_mean_mixes() {
    let slope = |statistic: &str| {
        format!(
            "[[claim]]\nkind = \"slope\"\ntheorem = \"none\"\nloss = \"voronoi\"\n{statistic}\
             curve = \"n^-0.125\"\nwindow = [100, 10000]\naccept = [-0.13, -0.12]\n"
        )
    };
    let statistics = [
        "",
        "statistic = \"q80\"\n",
        "statistic = \"median\"\n",
        "statistic = \"moment4\"\n",
    ];
    let study = STUDY.to_string() + &statistics.map(slope).concat();
    let plan = plan(&study);
    let rows = rows(&plan, 200, |cell, row| {
        let power = if row.replicate % 20 < 7 { -0.125 } else { -0.5 };
        row.losses = vec![(cell.n as f64).powf(power) * (1.0 + 0.01 * noise(row.replicate))];
    });
    let claims = claims(&plan, &rows);
    let slopes: Vec<f64> = claims
        .iter()
        .map(|claim| match claim.finding {
            Finding::Slope {
                rate: Some(rate), ..
            } => rate.line.slope,
            _ => panic!("{claim:?}"),
        })
        .collect();
    let [mean, upper, median, moment] = slopes[..] else {
        panic!("{slopes:?}");
    };
    assert!((upper + 0.125).abs() < 1e-12, "{upper}");
    assert!((median + 0.5).abs() < 1e-12, "{median}");
    assert!(-0.2 < mean && mean < -0.14, "{mean}");
    assert!(mean < moment && moment < -0.125, "{moment}");
    let verdicts: Vec<Verdict> = claims.iter().map(|c| c.verdict).collect();
    assert_eq!(
        verdicts[..3],
        [Verdict::Fails, Verdict::Holds, Verdict::Fails]
    );
}

#[test]
fn a_level_holds_where_the_loss_at_the_largest_size_is_accepted() {
    let study = STUDY.to_string()
        + "[[claim]]\nkind = \"level\"\ntheorem = \"none\"\nloss = \"voronoi\"\naccept = [0.4, 0.6]\n";
    let plan = plan(&study);
    for (level, verdict) in [
        (0.5, Verdict::Holds),
        (0.6, Verdict::Undecided),
        (0.7, Verdict::Fails),
        (f64::NAN, Verdict::Missing),
    ] {
        let rows = rows(&plan, 50, |cell, row| {
            let level = if cell.n == 10_000 { level } else { 9.0 };
            row.losses = vec![level + 0.01 * noise(row.replicate)];
        });
        assert_eq!(claims(&plan, &rows)[0].verdict, verdict, "{level}");
    }
}

/// The interval reaches 2.5758 (2 / (P R))^(1/2) = 0.1947 with P = 7 and R = 50.
#[test]
fn a_chi_square_claim_judges_every_size_by_the_law_of_the_mean() {
    let study = STUDY.to_string()
        + "[[claim]]\nkind = \"chi-square\"\ntheorem = \"Wilks\"\nconstant = \"likelihood_ratio\"\n\
           from = 1000.0\nconfidence = 0.99\n";
    let plan = plan(&study);
    let verdict = |ratio: [f64; 3]| {
        let rows = rows(&plan, 50, |cell, row| {
            let k = [100, 1000, 10_000].iter().position(|n| *n == cell.n);
            row.log_likelihood_truth = row.log_likelihood - 3.5 * ratio[k.unwrap()];
        });
        claims(&plan, &rows).remove(0)
    };
    let reach = 2.575_829 * (2.0f64 / 350.0).sqrt();
    assert_eq!(verdict([9.0, 1.0, 1.0]).verdict, Verdict::Holds);
    assert_eq!(
        verdict([1.0, 1.0 + 0.999 * reach, 1.0 - 0.999 * reach]).verdict,
        Verdict::Holds
    );
    assert_eq!(
        verdict([1.0, 1.0 + 1.001 * reach, 1.0]).verdict,
        Verdict::Fails
    );
    assert_eq!(
        verdict([1.0, 1.0, 1.0 - 1.001 * reach]).verdict,
        Verdict::Fails
    );
    assert_eq!(verdict([1.0, f64::NAN, f64::NAN]).verdict, Verdict::Missing);
    let Finding::ChiSquare {
        constant, ratios, ..
    } = verdict([1.0; 3]).finding
    else {
        panic!("another finding");
    };
    assert_eq!(constant, Constant::LikelihoodRatio);
    let sizes: Vec<u64> = ratios.iter().map(|r| r.n).collect();
    assert_eq!(sizes, [1000, 10_000]);
    assert!((ratios[0].interval[1] - 1.0 - reach).abs() < 1e-6);
}

#[test]
fn intervals_are_judged_by_the_share_of_coordinates_that_they_cover() {
    let claim = |accept: &str| {
        format!(
            "[[claim]]\nkind = \"intervals\"\ntheorem = \"none\"\nfrom = 1000.0\naccept = {accept}\n"
        )
    };
    let accepts = ["[0.9, 1.0]", "[0.94, 0.96]", "[0.5, 0.8]"];
    let plan = plan(&(STUDY.to_string() + &accepts.map(claim).concat()));
    let found = |missed: u64, error: f64| {
        let rows = rows(&plan, 100, |cell, row| {
            // Below `from` nothing covers. Else one replicate in `missed` misses by
            // a hair, and the others cover by one.
            let deviation = match (cell.n, row.replicate % missed) {
                (100, _) => 9.0,
                (_, 0) => 1.96,
                _ => 1.9599,
            };
            row.parameters
                .iter_mut()
                .for_each(|p| *p += deviation * 0.1);
            row.standard_errors = Some(vec![0.1 * error; 7]);
        });
        claims(&plan, &rows)
    };
    let verdicts = |results: &[ClaimResult]| results.iter().map(|c| c.verdict).collect::<Vec<_>>();
    let good = found(20, 1.0);
    let Finding::Intervals {
        coverage: Some(coverage),
        ..
    } = good[0].finding
    else {
        panic!("{good:?}");
    };
    assert!((coverage.value - 0.95).abs() < 1e-12, "{coverage:?}");
    let expected = [Verdict::Holds, Verdict::Undecided, Verdict::Fails];
    assert_eq!(verdicts(&good), expected);
    // Errors ten per cent too small; errors that are missing cover nothing.
    assert_eq!(verdicts(&found(20, 0.9))[0], Verdict::Fails);
    assert_eq!(verdicts(&found(20, f64::NAN))[0], Verdict::Fails);
}

const TWO_FITS: &str = r#"
[[grid.fit]]
name = "own"
[[grid.fit]]
name = "router"
family = "router"
[fit]"#;

const EFFICIENCY: &str = r#"
[[claim]]
kind = "efficiency"
theorem = "none"
of = "router"
reference = "own"
from = 1000.0
tolerance = 0.05
"#;

/// Errors of the size of the bounds, times a factor per estimator that depends on
/// the replicate.
fn scaled_rows(plan: &Plan, factor: impl Fn(&str, u64) -> f64) -> Vec<Row> {
    rows(plan, 50, |cell, row| {
        let bounds = plan.truths[cell.truth].regularity.bounds();
        let size = factor(&cell.series, row.replicate);
        for (p, bound) in row.parameters.iter_mut().zip(bounds) {
            *p += size * (bound / cell.n as f64).sqrt();
        }
    })
}

#[test]
fn an_efficiency_is_compared_with_the_ratio_of_the_bounds() {
    let plan = plan(&(STUDY.replace("\n[fit]", TWO_FITS) + EFFICIENCY));
    // The factors of the router are those of another replicate: equal in the mean.
    let size = |replicate: u64| 1.0 + 0.1 * noise(replicate % 50);
    let found = |times: f64| {
        let rows = scaled_rows(&plan, |series, replicate| match series {
            "fit=router" => times * size(replicate + 1),
            _ => size(replicate),
        });
        claims(&plan, &rows).remove(0)
    };
    let good = found(1.0);
    assert_eq!(
        (good.series.as_str(), good.verdict),
        ("fit=router", Verdict::Holds)
    );
    let Finding::Efficiency {
        estimate: Some(estimate),
        bound,
    } = good.finding
    else {
        panic!("{good:?}");
    };
    // The mean of the ratios of the six bounds: freeing the router costs something.
    let [own, router] = [0, 1].map(|k| plan.truths[k].regularity.bounds());
    let expected = (0..6).map(|j| router[j] / own[j]).sum::<f64>() / 6.0;
    assert!((bound - expected).abs() < 1e-12 && bound > 1.01, "{bound}");
    assert!((estimate.value / bound - 1.0).abs() < 1e-12, "{estimate:?}");
    assert_eq!(found(1.05).verdict, Verdict::Fails);
    assert_eq!(found(0.9).verdict, Verdict::Fails);
}

/// With errors of the reference all alike, the logarithm of the ratio has the
/// standard error s / (m R^(1/2)) of the other estimator's squared errors.
#[test]
fn the_error_of_an_efficiency_is_that_of_pairs() {
    let plan = plan(&(STUDY.replace("\n[fit]", TWO_FITS) + EFFICIENCY));
    let mut rows = scaled_rows(&plan, |series, replicate| match series {
        "fit=router" => [0.5f64, 1.5][replicate as usize % 2].sqrt(),
        _ => 1.0,
    });
    let estimate = |rows: &[Row]| match claims(&plan, rows).remove(0).finding {
        Finding::Efficiency { estimate, .. } => estimate,
        other => panic!("{other:?}"),
    };
    let found = estimate(&rows).unwrap();
    // Two sizes, 50 pairs each.
    let expected = 0.5 * (100.0f64 / 99.0).sqrt() / 10.0;
    assert!(
        (found.error / found.value / expected - 1.0).abs() < 1e-9,
        "{found:?}"
    );
    assert!((found.interval[0] * found.interval[1]).sqrt() / found.value - 1.0 < 1e-9);
    // A replicate enters with both fits or with none.
    for row in &mut rows {
        if row.cell.contains("fit=own") && row.replicate % 2 == 0 {
            row.converged = false;
            row.parameters[0] += 99.0;
        }
    }
    let found = estimate(&rows).unwrap();
    assert!(found.error / found.value < 1e-9, "{found:?}");
}

/// Certified above and below the truth, uncertified above and below, no fit.
#[test]
fn admission_decides_the_means_and_never_the_failures() {
    for (rule, counted) in [("certified", 40), ("above-truth", 50), ("any", 80)] {
        let study = STUDY.replacen("seed", &format!("admit = \"{rule}\"\nseed"), 1);
        let plan = plan(&study);
        let rows = rows(&plan, 100, |_, row| {
            let kind = row.replicate / 10;
            row.converged = kind < 4;
            row.log_likelihood = match kind {
                0..2 | 4 => -9.0,
                2..4 | 5..8 => -11.0,
                8 => f64::NEG_INFINITY,
                _ => f64::NAN,
            };
            row.losses = vec![if kind < 8 { kind as f64 } else { f64::NAN }];
        });
        let summary = Summary::new(&plan, &rows);
        let cell = &summary.series[0].cells[0];
        assert_eq!((cell.rows, cell.failures), (100, 60), "{rule}");
        assert_eq!(cell.counted, counted, "{rule}");
        let kinds = (counted / 10) as f64;
        let mean = cell.losses[0].mean.value;
        assert!((mean - (kinds - 1.0) / 2.0).abs() < 1e-12, "{rule}: {mean}");
    }
}

#[test]
fn constants_are_left_out_where_their_limit_is_another() {
    let fits = r#"
[[grid.fit]]
name = "own"
[[grid.fit]]
name = "oracle"
labels = "known"
[[grid.fit]]
name = "sparse"
top_k = 1
[fit]"#;
    let study = STUDY.replace("\n[fit]", fits);
    let plan = plan(&study.replace("[\"voronoi\"]", "[\"hellinger_sq_mean\"]"));
    let summary = Summary::new(&plan, &rows(&plan, 50, |_, _| ()));
    let constants = |k: usize| -> Vec<Constant> {
        let cell = &summary.series[k].cells[0];
        cell.constants
            .iter()
            .map(|(constant, _)| *constant)
            .collect()
    };
    assert_eq!(constants(0), Constant::ALL);
    assert_eq!(constants(1), Constant::ALL[1..]);
    assert_eq!(constants(2), []);
}
