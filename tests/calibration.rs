//! Whether the intervals cover and the limit constants are reached, through the
//! whole pipeline: study file, fits, rows, summary. Seeds are fixed, so a run
//! either always passes or always fails; the rates below say how likely a
//! correct program is to fail under another seed.

mod workplace;

use smoe_lab::sim::claim::Constant;
use smoe_lab::sim::run::{Request, run};
use smoe_lab::sim::study::read_study;
use smoe_lab::sim::summary::Finding;
use smoe_lab::sim::{Plan, RowFile, Summary};
use workplace::Workplace;

/// Groups of 20 replicates, as if each were a study of its own.
const GROUPS: u64 = 400;

/// The mean of a normal: E |mean - mu| = sqrt(2 / pi) n^(-1/2) for every n.
const NORMAL_MEAN: &str = r#"[input]
law = "uniform"
low = []
high = []
[gate]
kind = "constant"
[[expert]]
kind = "linear"
slope = []
intercept = 0.7
variance = 1.0
bias = 0.0
"#;

const COVERAGE: &str = r#"title = "The mean of a normal"
aim = "coverage"
reference = "elementary"
seed = 1
replicates = 8000
losses = ["voronoi"]
record_parameters = false
[truth]
file = "normal.toml"
[grid]
n = [10, 100, 1000]
[fit]
method = "em"
max_iterations = 10
gain = 1e-9
starts = [{ kind = "k-means" }]
limits = { coefficient = 10.0, bias = 1.0, gate_slope = 1.0, variance = [1.0, 1.0] }
[[claim]]
kind = "slope"
theorem = "exact"
loss = "voronoi"
curve = "n^-0.5"
window = [10, 1000]
accept = [-0.52, -0.48]
[[claim]]
kind = "coverage"
loss = "voronoi"
slope = -0.5
group = 20
"#;

const WILKS: &str = r#"title = "Two competing experts"
aim = "likelihood ratio"
reference = "Wilks"
seed = 1
replicates = 200
losses = ["hellinger_sq_mean"]
record_parameters = false
[truth]
file = "model.toml"
[grid]
n = [2000]
[fit]
method = "em"
max_iterations = 200
gain = 0.5
starts = [{ kind = "perturbed-truth", radius = 0.05 }]
limits = { coefficient = 10.0, bias = 5.0, gate_slope = 10.0, variance = [0.01, 10.0] }
"#;

/// Runs a study into a fresh folder and summarises it.
fn summary(place: &Workplace, study: &str) -> Summary {
    place.write("study.toml", study);
    let plan = Plan::new(read_study(&place.path("study.toml")).unwrap()).unwrap();
    let mut file = RowFile::open(&place.path("rows"), &plan).unwrap();
    run(&plan, &mut file, &Request::default(), |_, _, _| ()).unwrap();
    let summary = Summary::new(&plan, &file.rows);
    assert_eq!(summary.failures, 0);
    summary
}

/// Of 400 intervals at coverage 0.95, fewer than 356 or more than 397 cover with
/// probability 8e-7 (exact binomial). A coverage below 0.79 is caught with
/// probability 1 - 1e-6, one above 0.9995 with probability 0.999.
#[test]
fn the_slopes_interval_covers_at_its_nominal_rate() {
    let place = Workplace::new();
    place.write("normal.toml", NORMAL_MEAN);
    let summary = summary(&place, COVERAGE);
    assert_eq!(summary.rows, 3 * 20 * GROUPS as usize);
    let [slope, coverage] = &summary.claims[..] else {
        panic!("two claims, one series: {:?}", summary.claims);
    };
    // 8000 replicates: the standard error of the slope is 0.0018.
    let Finding::Slope {
        rate: Some(rate), ..
    } = slope.finding
    else {
        panic!("{slope:?}");
    };
    let error = (rate.line.slope + 0.5).abs();
    assert!(error < 4.89 * rate.line.slope_error, "{rate:?}");
    assert!(rate.line.slope_error < 0.003, "{rate:?}");
    let Finding::Coverage { covered, groups } = coverage.finding else {
        panic!("{coverage:?}");
    };
    assert_eq!(groups, GROUPS);
    assert!(
        (356..=397).contains(&covered),
        "covered {covered} of {groups}"
    );
}

/// The mean of 200 likelihood ratios has standard error sqrt(2 P / 200) = 0.26
/// with P = 7. A correct program fails with probability 1e-6 (4.89 standard
/// errors, 1.29); 0.2 more are allowed for n = 2000 being finite (Bartlett's
/// correction P b / n with b up to 57). With the same certainty the test
/// catches a mean off by more than 2.8, that is 40 %.
#[test]
fn the_mean_likelihood_ratio_is_the_number_of_parameters() {
    let summary = summary(&Workplace::new(), WILKS);
    let series = &summary.series[0];
    let cell = &series.cells[0];
    assert_eq!((series.parameters, cell.rows), (7, 200));
    assert_eq!((cell.below_truth, cell.on_bound), (0, 0));
    let p = series.parameters as f64;
    let bound = (4.89 * (2.0 * p / 200.0).sqrt() + 0.2) / p;
    for (constant, estimate) in &cell.constants {
        // 8 n E h^2 and n E d' I d have the same chi-squared limit; their
        // corrections at finite n are larger.
        let slack = match constant {
            Constant::LikelihoodRatio => 1.0,
            _ => 1.5,
        };
        let error = (estimate.value - 1.0).abs();
        assert!(error < slack * bound, "{constant:?}: {estimate:?}");
    }
    // These rows hold no parameters, so nothing is known of single coordinates.
    let found: Vec<Constant> = cell.constants.iter().map(|(c, _)| *c).collect();
    let known = Constant::ALL.into_iter();
    let of_whole: Vec<Constant> = known.filter(|c| *c != Constant::Coordinates).collect();
    assert_eq!(found, of_whole);
}
