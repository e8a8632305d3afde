//! Voronoi losses: how far the atoms of a fit are from the atoms of the truth.
//!
//! Every fitted atom i belongs to the cell A_j of the true atom j nearest to it
//! (Euclidean distance between all parameters but the log-weight; ties go to
//! the lower j). With fitted masses omega_i, true masses omega*_j and S_j the
//! sum of omega_i over A_j, all losses but the sigmoid's have the form
//!
//! ```text
//! D   = inf over t0 of  sum over j of [ |S_j - e^t0 omega*_j| + C_j ]
//! C_j = sum over i in A_j of omega_i d(atom i, true atom j)
//! ```
//!
//! where d is a sum of powers of parameter differences, with larger powers in
//! cells that several fitted atoms share. An empty cell costs e^t0 omega*_j.
//!
//! | loss | omega_i | d, cell of one | d, cell of m > 1, r = rbar(m) |
//! |---|---|---|---|
//! | competition | exp(bias_i) | \|dW\| + \|dv\| | \|dW\|^2 + \|dv\|^2 |
//! | tilted | exp(bias_i + kappa^2 v_i / 2) | \|da\| + \|db\| + \|dv\| | \|da\|^2 + \|db - kappa s dv\|^r + \|dv\|^(r/2) |
//! | softmax_d1 | exp(gate_intercept_i) | \|(dg - t, dW, dv)\| | as for one |
//! | softmax_d2 | exp(gate_intercept_i) | \|(dg - t, dW, dv)\| | \|(dg - t, db)\|^r + \|(da, dv)\|^(r/2) |
//! | sigmoid | 1 | \|(dg, dg0, dW, dv)\| | \|(dg, dg0, dW, dv)\|^2 |
//!
//! Here a is the slope, b the intercept, W = (scale, a, b), v the variance,
//! (g, g0) the gate's slope and intercept, s the sign of the true expert's mean,
//! `d` in front of a letter the difference fitted minus true, and |.| the
//! Euclidean norm. rbar(2) = 4, rbar(3) = 6 and rbar(m) = 7, a lower bound, for
//! m >= 4.
//!
//! **Gauge.** Adding one constant to all biases, or one constant to all
//! gate_intercepts and one vector t to all gate_slopes, leaves the density as it
//! is. The infimum therefore runs over all translations of the truth: over t0,
//! e^t0 = 0 included, and over t, which moves the cells too. The fit's own t0
//! multiplies the papers' infimum; it is fixed by the sum of omega_i = 1. (The
//! true masses sum to one as well, which changes nothing.) D has no upper
//! bound: it grows with the parameter errors. Competition experts without bias
//! have no such freedom: when neither argument has biases, t0 = 0 and the masses
//! of both are divided by the sum of the true ones (1 / k_true each). The
//! sigmoid gate has no translation either.
//!
//! **Sparse truth.** When the truth keeps K experts, the sum over j becomes the
//! maximum over all sets of K true atoms, the sum of the K largest terms.
//!
//! **What is not divided out.** The hidden units' own symmetries, a sign flip of
//! (scale, slope, intercept) for tanh and the scaling of ReLU: two equal
//! densities can then have positive loss. Experts of different kinds are never
//! matched.

mod arrangement;
mod convex;
mod difference;
#[cfg(test)]
mod interface_tests;
mod mass;
mod router;
#[cfg(test)]
mod router_tests;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::model::{
    Expert, ExpertGate, ExpertKind, GateKind, Model, Parameters, Response, Weights,
};
use difference::{Difference, differences, nearest};
use mass::{Cell, Gauge, infimum_over_factor, largest_sum, masses};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Which Voronoi loss; the module's table has the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VoronoiLoss {
    /// First and second powers.
    ///
    /// It bounds the distance of densities from below only where no true
    /// expert's log-weight is an affine function of its mean. With linear
    /// experts, an absolute response of constant sign calls for `Tilted`; under
    /// a constant gate over-specified cells obey rbar, not second powers.
    ///
    /// # Reference
    /// arXiv 2402.02526, Theorem 4.2, and 2505.13380, Theorem 3.2, both as
    /// reconstructed. Differs from the papers in: the gauge, fixed by the sum of
    /// fitted masses = 1 and an infimum over t0.
    #[serde(rename = "competition")]
    Competition,
    /// The loss for the absolute response with softmax weights and linear
    /// experts of constant sign s, where
    ///
    /// ```text
    /// e^(kappa s m) N(y; m, v) = e^(kappa s y + kappa^2 v / 2) N(y; m - kappa s v, v)
    /// ```
    ///
    /// makes the model a location-scale mixture in b - kappa s v and v.
    ///
    /// # Reference
    /// Ours: derived from the identity, exponents rbar of Ho and Nguyen (2016)
    /// in these coordinates. The differences carry the tilted masses too.
    #[serde(rename = "tilted")]
    Tilted,
    /// D_1 of the softmax router: first powers in every cell.
    ///
    /// # Reference
    /// arXiv 2305.03288, loss D_1; with top-K 2309.13850, as reconstructed.
    /// Differs from the papers in: the gauge, fixed by the sum of fitted masses
    /// = 1, and the joint norm when sparse.
    #[serde(rename = "softmax_d1")]
    Softmax,
    /// D_2 of the softmax router, for linear experts and over-specified fits.
    ///
    /// # Reference
    /// arXiv 2305.03288, loss D_2; with top-K 2309.13850, as reconstructed.
    /// Differs from the papers in: the gauge, fixed by the sum of fitted masses
    /// = 1, and the joint norm when sparse.
    #[serde(rename = "softmax_d2")]
    SoftmaxOverspecified,
    /// First and second powers of all parameters, cells weighted equally; an
    /// empty cell costs 1. It has no mass term, so copies of a true atom cost
    /// nothing: zero means equal densities for k_fit = k_true only.
    ///
    /// # Reference
    /// Ours.
    #[serde(rename = "sigmoid")]
    Sigmoid,
}

impl VoronoiLoss {
    /// All losses, in the order of the module's table.
    pub const ALL: [VoronoiLoss; 5] = [
        VoronoiLoss::Competition,
        VoronoiLoss::Tilted,
        VoronoiLoss::Softmax,
        VoronoiLoss::SoftmaxOverspecified,
        VoronoiLoss::Sigmoid,
    ];

    /// The name in study files and records.
    pub fn name(self) -> &'static str {
        match self {
            VoronoiLoss::Competition => "competition",
            VoronoiLoss::Tilted => "tilted",
            VoronoiLoss::Softmax => "softmax_d1",
            VoronoiLoss::SoftmaxOverspecified => "softmax_d2",
            VoronoiLoss::Sigmoid => "sigmoid",
        }
    }
}

impl FromStr for VoronoiLoss {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = VoronoiLoss::ALL.into_iter().find(|l| l.name() == name);
        known.ok_or_else(|| {
            let names = VoronoiLoss::ALL.map(VoronoiLoss::name).join("\", \"");
            Error::value(
                "loss",
                format!("must be one of \"{names}\", got \"{name}\""),
            )
        })
    }
}

/// The losses that are defined for this truth.
///
/// Competition and constant gates: `Competition`, and `Tilted` too where the
/// response is absolute, the weights softmax and every true expert linear with
/// a mean that is nowhere zero on the closed support of the input law. Softmax
/// router: `Softmax`, and `SoftmaxOverspecified` too for linear experts. Sigmoid
/// router: `Sigmoid`.
pub fn applicable(truth: &Model) -> Vec<VoronoiLoss> {
    let losses = VoronoiLoss::ALL.into_iter();
    losses.filter(|&l| metric(l, truth).is_ok()).collect()
}

/// The Voronoi loss between a fitted and a true mixture, by the formula in the
/// module's documentation; zero at the truth, its permutations and translations.
///
/// Exact up to rounding, but for the softmax losses with d > 1 inputs and
/// k_true^k_fit > 1024, where the infimum over t is a search that may miss the
/// best cells: the result is then an upper bound.
///
/// # Shapes
/// `fitted`: k_fit experts, `truth`: k_true experts, both over d inputs.
///
/// # Errors
/// [`Error::Dimension`] if the two disagree on d. [`Error::Value`] if the loss
/// is not [`applicable`] to the truth, if the fit has another kind of gate than
/// the truth or a kind of expert that the truth lacks, or if either is invalid.
///
/// # Reference
/// See [`VoronoiLoss`].
pub fn voronoi_loss(loss: VoronoiLoss, fitted: &Parameters, truth: &Model) -> Result<f64> {
    Ok(matching(loss, fitted, truth)?.loss)
}

/// The index of the true atom in whose cell each fitted atom lies; for softmax
/// routers at the translation that attains the loss.
///
/// # Shapes
/// Returns k_fit indices below k_true.
///
/// # Errors
/// As [`voronoi_loss`].
pub fn cells(loss: VoronoiLoss, fitted: &Parameters, truth: &Model) -> Result<Vec<usize>> {
    Ok(matching(loss, fitted, truth)?.cells)
}

/// A loss and where it is attained.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching {
    /// The loss.
    pub loss: f64,
    /// The true atom of each fitted one. Shape: k_fit.
    pub cells: Vec<usize>,
    /// The t that softmax losses subtract from the fitted gate slopes; where the
    /// infimum is not attained, a border of its cells. Empty for other gates.
    /// Shape: d.
    pub gate_translation: Vec<f64>,
}

/// What a loss needs to know about the truth before it can measure.
enum Metric {
    Competition,
    /// kappa s for each true atom.
    Tilted(Vec<f64>),
    Softmax(router::Powers),
    Sigmoid,
}

/// [`voronoi_loss`], [`cells`] and the gauge in one.
///
/// # Errors
/// As [`voronoi_loss`].
pub fn matching(loss: VoronoiLoss, fitted: &Parameters, truth: &Model) -> Result<Matching> {
    let metric = metric(loss, truth)?;
    let truth = &truth.parameters;
    truth.validate()?;
    fitted.validate()?;
    check_comparable(fitted, truth)?;

    let differences = differences(&fitted.experts, &truth.experts);
    let kept = truth.active_experts();
    let log_mass = |expert: &Expert| match (&metric, truth.gate.kind) {
        (Metric::Tilted(_), GateKind::Competition { kappa, .. }) => {
            expert.bias() + 0.5 * kappa * kappa * expert.variance
        }
        _ => expert.log_mass(),
    };
    let gauge = gauge(fitted, truth);
    let (omega, omega_true) = match metric {
        Metric::Sigmoid => (
            vec![1.0; fitted.experts.len()],
            vec![1.0; truth.experts.len()],
        ),
        _ => masses(&fitted.experts, &truth.experts, log_mass, gauge),
    };

    if let Metric::Softmax(powers) = metric {
        let found = router::infimum(&differences, &omega, &omega_true, kept, powers);
        return Ok(Matching {
            loss: found.loss,
            cells: found.cells,
            gate_translation: found.translation,
        });
    }
    let distance_sq = |difference: &Difference| match metric {
        Metric::Sigmoid => difference.all_sq(),
        _ => difference.expert_sq(),
    };
    let cells = nearest(&differences, distance_sq);
    let sizes = cell_sizes(&cells, truth.experts.len());
    let mut totals: Vec<Cell> = omega_true.iter().map(|&m| Cell::empty(m)).collect();
    for (i, &j) in cells.iter().enumerate() {
        let (difference, size) = (&differences[i][j], sizes[j]);
        let distance = match &metric {
            Metric::Tilted(tilts) => tilted_term(difference, size, tilts[j]),
            Metric::Sigmoid => sigmoid_term(difference, size),
            _ => competition_term(difference, size),
        };
        totals[j].add(omega[i], distance);
    }
    let loss = if let Metric::Sigmoid = metric {
        let missing = |size| if size == 0 { 1.0 } else { 0.0 };
        let cells = std::iter::zip(&totals, &sizes);
        let mut terms: Vec<f64> = cells.map(|(c, &n)| c.spread + missing(n)).collect();
        largest_sum(&mut terms, kept)
    } else {
        infimum_over_factor(&totals, kept, gauge)
    };
    Ok(Matching {
        loss,
        cells,
        gate_translation: Vec::new(),
    })
}

fn metric(loss: VoronoiLoss, truth: &Model) -> Result<Metric> {
    let parameters = &truth.parameters;
    let all_linear = parameters
        .experts
        .iter()
        .all(|e| e.kind == ExpertKind::Linear);
    let metric = match (loss, parameters.gate.kind) {
        (VoronoiLoss::Competition, GateKind::Competition { .. } | GateKind::Constant) => {
            Some(Metric::Competition)
        }
        (
            VoronoiLoss::Tilted,
            GateKind::Competition {
                response: Response::Absolute,
                weights: Weights::Softmax,
                kappa,
            },
        ) if all_linear => {
            let experts = parameters.experts.iter();
            let signs = experts.map(|e| e.constant_sign(&truth.input));
            let tilts = signs.map(|s| s.map(|s| kappa * s)).collect::<Option<_>>();
            tilts.map(Metric::Tilted)
        }
        (VoronoiLoss::Softmax, GateKind::Softmax) => Some(Metric::Softmax(router::Powers::Exact)),
        (VoronoiLoss::SoftmaxOverspecified, GateKind::Softmax) if all_linear => {
            Some(Metric::Softmax(router::Powers::Overspecified))
        }
        (VoronoiLoss::Sigmoid, GateKind::Sigmoid) => Some(Metric::Sigmoid),
        _ => None,
    };
    metric.ok_or_else(|| {
        let message = format!("`{}` is not defined for this truth", loss.name());
        Error::value("loss", message)
    })
}

fn check_comparable(fitted: &Parameters, truth: &Parameters) -> Result<()> {
    if fitted.dimension() != truth.dimension() {
        return Err(Error::Dimension {
            what: "input of the fitted experts",
            expected: truth.dimension(),
            got: fitted.dimension(),
        });
    }
    if fitted.gate.kind != truth.gate.kind {
        let message = "must be the truth's, with the same response and kappa";
        return Err(Error::value("gate.kind", message));
    }
    for (i, expert) in fitted.experts.iter().enumerate() {
        if truth.experts.iter().all(|e| e.kind != expert.kind) {
            let message = "no true expert is of this kind";
            return Err(Error::value(format!("expert[{i}].kind"), message));
        }
    }
    Ok(())
}

fn gauge(fitted: &Parameters, truth: &Parameters) -> Gauge {
    let no_bias = |p: &Parameters| matches!(p.experts[0].gate, ExpertGate::None);
    if no_bias(fitted) && no_bias(truth) {
        Gauge::Fixed
    } else {
        Gauge::Free
    }
}

fn cell_sizes(cells: &[usize], k_true: usize) -> Vec<usize> {
    let mut sizes = vec![0; k_true];
    cells.iter().for_each(|&j| sizes[j] += 1);
    sizes
}

/// rbar(m), the power of a cell of m > 1 atoms: the least order at which the
/// moment equations of m merging Gaussian atoms have no solution (Ho and Nguyen
/// 2016); known for m = 2 and 3, at least 7 beyond.
fn overspecified_power(size: usize) -> i32 {
    debug_assert!(size > 1);
    match size {
        2 => 4,
        3 => 6,
        _ => 7,
    }
}

fn competition_term(difference: &Difference, size: usize) -> f64 {
    let mean_sq = difference.slope_sq + difference.intercept.powi(2);
    let variance_sq = difference.variance.powi(2);
    if size == 1 {
        mean_sq.sqrt() + variance_sq.sqrt()
    } else {
        mean_sq + variance_sq
    }
}

/// `tilt`: kappa s.
fn tilted_term(difference: &Difference, size: usize, tilt: f64) -> f64 {
    let (intercept, variance) = (difference.intercept, difference.variance);
    if size == 1 {
        return difference.slope_sq.sqrt() + intercept.abs() + variance.abs();
    }
    let power = overspecified_power(size);
    let location = (intercept - tilt * variance).abs();
    difference.slope_sq + location.powi(power) + variance.abs().powf(0.5 * f64::from(power))
}

fn sigmoid_term(difference: &Difference, size: usize) -> f64 {
    let squared = difference.all_sq();
    if size == 1 { squared.sqrt() } else { squared }
}
