//! The dendrogram of a mixing measure: how many experts, from one fit with too many.
//!
//! Dendrograms of mixing measures: arXiv 2403.01684 for mixtures, 2510.12744 for
//! softmax-gated experts. The body of the latter was not at hand: what stands here is
//! **as reconstructed** from its abstract and summaries (the Voronoi loss with exponents
//! r on (gate slope, intercept) and r / 2 on (slope, variance), augmented by the moments
//! of merged atoms), from the authors' published code of both papers (dissimilarity,
//! criterion, omega_n = log n, levels 2..K) and from the polynomial system behind the
//! exponents. Atoms are (mass e^c, gate slope u, slope a, intercept b, variance v), of
//! N(y; a.x + b, v) with weights proportional to e^(c + u.x), in standardised units.
//!
//! ```text
//! d(i, j) = (|u_i - u_j|^2 + (b_i - b_j)^2 + |(a_i - a_j, v_i - v_j)|) / (e^-c_i + e^-c_j)
//! merged:   e^c = e^c_i + e^c_j,  p = e^(c_i - c), e^(c_j - c)
//!           u = sum p u,   b = sum p b
//!           a = sum p (a_i + (b_i - b) (u_i - u)),   v = sum p (v_i + (b_i - b)^2)
//! ```
//!
//! The merged atom is the one whose law agrees with the pair's to first order in (u, a,
//! v) and to second order in b and between b and u: d/da = d/du d/db and
//! d/dv = d^2/db^2 / 2 make a pair spread along (u, b) look like one atom with another a
//! and v. The published code averages a and v without these terms, leaves
//! |u_i - u_j|^2 out of d, and does not normalise the masses, so that its answer depends
//! on which expert is the reference; here the masses sum to 1. A mass is the weight at
//! the centre of the data: under a steep gate it may be far from the share of rows, and
//! the criterion is then less reliable.

use super::{Attainment, Design, Optimum};
use crate::backend::Backend;
use crate::model::{Expert, ExpertGate, GateKind, Parameters, VarianceStructure};
use crate::num::log_space::log_sum_exp;
use std::fmt;

/// The tree of successive merges, and where it is cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Dendrogram {
    /// In the order made: K - 1 of them.
    pub merges: Vec<Merge>,
    /// The mixtures on the way: K experts first, 1 last.
    pub levels: Vec<Level>,
    /// The number of experts at which the criterion is smallest: 2 at least.
    pub selected: usize,
}

/// Two nodes become one. Leaves are nodes 0 to K - 1, the experts of the fit; merge m
/// makes node K + m.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merge {
    /// The nodes merged, the smaller number first.
    pub nodes: [usize; 2],
    /// d of the two, the smallest of any pair then. Heights may fall along the tree.
    pub height: f64,
}

/// One level of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// The mixture, every expert with a variance of its own.
    pub parameters: Parameters,
    /// The node of each expert.
    pub nodes: Vec<usize>,
    /// In raw units of y; nothing is fitted again.
    pub log_likelihood: f64,
    /// -(d + log n l / n), d the height of the merge that leaves this level and l the
    /// standardised log-likelihood; smaller is better. `None` for one expert.
    pub criterion: Option<f64>,
}

/// Why a model has no dendrogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undefined {
    /// Defined for softmax and constant gates only.
    Gate,
    /// Defined for gates that keep every expert only.
    TopK,
    /// Defined for affine means only.
    Mean,
    /// There is nothing to merge with.
    OneExpert,
    /// The gate runs away: masses and gate slopes have no limit.
    GateRunsAway,
}

impl fmt::Display for Undefined {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Undefined::Gate => "the dendrogram criterion is defined for softmax and constant gates",
            Undefined::TopK => {
                "the dendrogram criterion is defined for gates that keep every expert"
            }
            Undefined::Mean => "the dendrogram criterion is defined for affine experts",
            Undefined::OneExpert => "the dendrogram criterion needs at least two experts to merge",
            Undefined::GateRunsAway => {
                "the dendrogram criterion is not defined where the gate runs away: use fewer experts"
            }
        })
    }
}

/// An atom of the mixing measure.
#[derive(Clone, Debug, PartialEq)]
struct Atom {
    node: usize,
    log_mass: f64,
    gate_slope: Vec<f64>,
    slope: Vec<f64>,
    intercept: f64,
    variance: f64,
}

/// The dendrogram of an optimum of `design` with more experts than needed.
///
/// The criterion finds the number of experts of the truth, if that is at least 2 and
/// less than that of the fit, as n grows; it never chooses 1.
///
/// # Errors
/// Why it is not defined for this model.
pub fn dendrogram(
    backend: &dyn Backend,
    design: &Design,
    optimum: &Optimum,
) -> std::result::Result<Dendrogram, Undefined> {
    match optimum.attainment {
        Attainment::NotAttained(_) => Err(Undefined::GateRunsAway),
        _ => merge_all(backend, design, &optimum.parameters),
    }
}

/// The dendrogram of `parameters`.
pub(super) fn merge_all(
    backend: &dyn Backend,
    design: &Design,
    parameters: &Parameters,
) -> std::result::Result<Dendrogram, Undefined> {
    let mut atoms = atoms(parameters)?;
    let experts = atoms.len();
    let n = design.data.sample_size();
    let level = |atoms: &[Atom]| {
        let mixture = mixture(parameters, atoms);
        let standardised = backend.log_likelihood(&mixture, &design.data);
        let level = Level {
            parameters: mixture,
            nodes: atoms.iter().map(|a| a.node).collect(),
            log_likelihood: design.raw_log_likelihood(standardised),
            criterion: None,
        };
        (level, standardised)
    };
    let (mut merges, mut levels) = (Vec::new(), Vec::new());
    while atoms.len() > 1 {
        let (height, i, j) = closest(&atoms);
        let (mut current, standardised) = level(&atoms);
        current.criterion = Some(-(height + n.ln() * standardised / n));
        levels.push(current);
        let second = atoms.remove(j);
        let merged = merged(
            &atoms[i],
            &second,
            &design.expert.features,
            experts + merges.len(),
        );
        let (a, b) = (atoms[i].node, second.node);
        merges.push(Merge {
            nodes: [a.min(b), a.max(b)],
            height,
        });
        atoms[i] = merged;
    }
    levels.push(level(&atoms).0);
    let candidates = levels
        .iter()
        .filter_map(|l| Some((l.criterion?, l.nodes.len())));
    let selected = candidates
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, experts)| experts)
        .expect("at least two experts");
    Ok(Dendrogram {
        merges,
        levels,
        selected,
    })
}

fn atoms(parameters: &Parameters) -> std::result::Result<Vec<Atom>, Undefined> {
    if !matches!(parameters.gate.kind, GateKind::Softmax | GateKind::Constant) {
        return Err(Undefined::Gate);
    }
    if parameters.is_sparse() {
        return Err(Undefined::TopK);
    }
    if !parameters.experts.iter().all(Expert::is_linear) {
        return Err(Undefined::Mean);
    }
    if parameters.experts.len() < 2 {
        return Err(Undefined::OneExpert);
    }
    let masses: Vec<f64> = parameters.experts.iter().map(Expert::log_mass).collect();
    let total = log_sum_exp(&masses);
    let experts = parameters.experts.iter().zip(&masses).enumerate();
    let atom = |(node, (expert, mass)): (usize, (&Expert, &f64))| Atom {
        node,
        log_mass: mass - total,
        gate_slope: match &expert.gate {
            ExpertGate::Router { slope, .. } => slope.clone(),
            _ => vec![0.0; expert.slope.len()],
        },
        slope: expert.slope.clone(),
        intercept: expert.intercept,
        variance: expert.variance,
    };
    Ok(experts.map(atom).collect())
}

/// The smallest dissimilarity and its pair, the first among equals.
fn closest(atoms: &[Atom]) -> (f64, usize, usize) {
    let pairs = (0..atoms.len()).flat_map(|i| (i + 1..atoms.len()).map(move |j| (i, j)));
    pairs
        .map(|(i, j)| (dissimilarity(&atoms[i], &atoms[j]), i, j))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .expect("at least two atoms")
}

fn dissimilarity(a: &Atom, b: &Atom) -> f64 {
    let mass = (-log_sum_exp(&[-a.log_mass, -b.log_mass])).exp();
    let squares = |a: &[f64], b: &[f64]| -> f64 {
        let terms = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
        terms.sum()
    };
    let slow = squares(&a.gate_slope, &b.gate_slope) + (a.intercept - b.intercept).powi(2);
    let fast = squares(&a.slope, &b.slope) + (a.variance - b.variance).powi(2);
    mass * (slow + fast.sqrt())
}

/// The atom that stands for two. Slopes of features that experts do not use stay 0.
fn merged(a: &Atom, b: &Atom, features: &[usize], node: usize) -> Atom {
    let log_mass = log_sum_exp(&[a.log_mass, b.log_mass]);
    let shares = [(a.log_mass - log_mass).exp(), (b.log_mass - log_mass).exp()];
    let average = |of: &dyn Fn(&Atom) -> f64| shares[0] * of(a) + shares[1] * of(b);
    let intercept = average(&|atom| atom.intercept);
    let gate_slope: Vec<f64> = (0..a.gate_slope.len())
        .map(|j| average(&|atom| atom.gate_slope[j]))
        .collect();
    let mut slope = vec![0.0; a.slope.len()];
    for &j in features {
        slope[j] = average(&|atom| {
            atom.slope[j] + (atom.intercept - intercept) * (atom.gate_slope[j] - gate_slope[j])
        });
    }
    Atom {
        node,
        log_mass,
        variance: average(&|atom| atom.variance + (atom.intercept - intercept).powi(2)),
        gate_slope,
        slope,
        intercept,
    }
}

/// The mixture of these atoms, gated as `model`.
fn mixture(model: &Parameters, atoms: &[Atom]) -> Parameters {
    let expert = |atom: &Atom| Expert {
        slope: atom.slope.clone(),
        intercept: atom.intercept,
        variance: atom.variance,
        gate: match model.gate.kind {
            GateKind::Constant => ExpertGate::Bias(atom.log_mass),
            _ => ExpertGate::Router {
                slope: atom.gate_slope.clone(),
                intercept: atom.log_mass,
            },
        },
        ..model.experts[0].clone()
    };
    let mut gate = model.gate;
    gate.top_k = None;
    Parameters {
        gate,
        variance_structure: VarianceStructure::PerExpert,
        experts: atoms.iter().map(expert).collect(),
    }
}
