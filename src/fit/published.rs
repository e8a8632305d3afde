//! Where the published simulations of over-specified softmax gating start: near
//! the truth, each fitted expert at one of the true ones.
//!
//! ```text
//! expert i starts at true expert z_i + N(0, (scale n^-exponent)^2),   {z_i} = all true ones
//! ```
//!
//! The numbers by default are those of `ParamNMoE.R` of the R package meteoritsSim,
//! which made the results of arXiv 2305.03288 with k > k_*. Scales are standard
//! deviations (`rnorm(sd = ...)`): two copies of one expert then start a median
//! 0.9539 * 0.05 n^-0.083 = 0.0222 apart in the intercept at n = 10^4, and the fits
//! saved with that paper are 0.0230 apart.

use super::bounds::Bounds;
use super::start::StartContext;
use crate::error::{Error, Result};
use crate::model::{Coordinate, Expert, ExpertGate, GateKind, Layout, Parameters};
use rand::RngExt;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

/// Noise whose standard deviation falls with the sample size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShrinkingNoise {
    /// Standard deviation at n = 1.
    pub scale: f64,
    /// The standard deviation is scale n^-exponent.
    pub exponent: f64,
}

/// Which true expert each fitted one starts at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assignment {
    /// Independent and uniform given that every true expert is covered; the last
    /// fitted expert, whose gate is the origin, stands for the last true one.
    #[default]
    Random,
    /// As the copies stand in the fit's template.
    Template,
}

/// What a copy weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyWeight {
    /// As much as the true expert: m copies weigh m times as much together.
    #[default]
    Whole,
    /// An equal share: the start without noise is the truth.
    Shared,
}

/// Which number starts as the variance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartingVariance {
    /// The true standard deviation: the code passes it on as if it were the
    /// variance. The first iteration repairs it.
    #[default]
    StandardDeviation,
    /// The true variance.
    Variance,
}

/// How many draws an expert's parameters share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseDraws {
    /// One for its mean and one for its gate: slope and intercept move together.
    #[default]
    PerExpert,
    /// One for each coordinate.
    PerCoordinate,
}

/// A published start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishedStart {
    /// Which true expert each fitted one starts at.
    pub assignment: Assignment,
    /// What a copy weighs.
    pub copy_weight: CopyWeight,
    /// Which number starts as the variance.
    pub starting_variance: StartingVariance,
    /// How many draws an expert's parameters share.
    pub draws: NoiseDraws,
    /// Noise on gate slopes and intercepts, or biases.
    pub gate_noise: ShrinkingNoise,
    /// Noise on the means' parameters.
    pub expert_noise: ShrinkingNoise,
    /// Noise whose absolute value is added to the starting variance.
    pub variance_noise: ShrinkingNoise,
}

impl Default for PublishedStart {
    fn default() -> Self {
        let noise = |scale, exponent| ShrinkingNoise { scale, exponent };
        PublishedStart {
            assignment: Assignment::default(),
            copy_weight: CopyWeight::default(),
            starting_variance: StartingVariance::default(),
            draws: NoiseDraws::default(),
            gate_noise: noise(0.005, 0.083),
            expert_noise: noise(0.05, 0.083),
            variance_noise: noise(0.005, 0.25),
        }
    }
}

impl ShrinkingNoise {
    /// The standard deviation at sample size n.
    pub fn standard_deviation(&self, n: f64) -> f64 {
        self.scale * n.powf(-self.exponent)
    }
}

impl std::fmt::Display for ShrinkingNoise {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}n^-{}", self.scale, self.exponent)
    }
}

impl PublishedStart {
    pub(super) fn name(&self) -> String {
        let PublishedStart {
            gate_noise,
            expert_noise,
            variance_noise,
            ..
        } = self;
        format!("published(gate {gate_noise}, expert {expert_noise}, variance {variance_noise})")
    }

    /// Packed starting values; the truth may have its own number of experts or,
    /// split, that of the fit.
    pub(super) fn packed(
        &self,
        context: StartContext,
        rng: &mut impl rand::Rng,
    ) -> Result<Vec<f64>> {
        let template = context.template;
        let truth = context
            .truth
            .ok_or_else(|| Error::value("start", "published needs a known truth"))?;
        if truth.gate.kind != template.gate.kind || truth.dimension() != template.dimension() {
            return Err(Error::value(
                "start",
                "published needs a fit with the truth's own gate and inputs",
            ));
        }
        let (experts, copies_of) = merged(truth);
        let labels = match self.assignment {
            Assignment::Random => covering(experts.len(), template.experts.len(), rng)?,
            Assignment::Template if truth.layout() == template.layout() => copies_of,
            Assignment::Template => {
                return Err(Error::value(
                    "start",
                    "an assignment by the template needs a truth split as the fit is",
                ));
            }
        };
        let origin = self.without_noise(template, &experts, &labels)?;
        let layout = template.layout();
        let mut packed = layout.pack(&origin);
        check_inside(context.bounds, &layout, &packed)?;
        self.add_noise(&layout, context, &mut packed, rng);
        Ok(packed)
    }

    fn without_noise(
        &self,
        template: &Parameters,
        experts: &[Expert],
        labels: &[usize],
    ) -> Result<Parameters> {
        let mut copies = vec![0usize; experts.len()];
        labels.iter().for_each(|&j| copies[j] += 1);
        let split = copies.iter().any(|&count| count > 1);
        if self.copy_weight == CopyWeight::Shared
            && split
            && template.gate.kind == GateKind::Sigmoid
        {
            return Err(Error::value(
                "start",
                "equal experts cannot share a weight under a sigmoid router",
            ));
        }
        let start_at = |&j: &usize| {
            let mut expert = experts[j].clone();
            if self.starting_variance == StartingVariance::StandardDeviation {
                expert.variance = expert.variance.sqrt();
            }
            if self.copy_weight == CopyWeight::Shared {
                add_log_weight(&mut expert, -(copies[j] as f64).ln());
            }
            expert
        };
        Ok(Parameters {
            experts: labels.iter().map(start_at).collect(),
            ..template.clone()
        })
    }

    fn add_noise(
        &self,
        layout: &Layout,
        context: StartContext,
        packed: &mut [f64],
        rng: &mut impl rand::Rng,
    ) {
        let n = context.data.sample_size();
        let gate = self.gate_noise.standard_deviation(n);
        let expert = self.expert_noise.standard_deviation(n);
        let variance = self.variance_noise.standard_deviation(n);
        let mut normal = || -> f64 { rng.sample(StandardNormal) };
        let together: Vec<[f64; 2]> = (0..context.template.experts.len())
            .map(|_| [normal(), normal()])
            .collect();
        for (j, coordinate) in layout.coordinates().iter().enumerate() {
            let own = normal();
            let draw = |i: usize, part: usize| match self.draws {
                NoiseDraws::PerExpert => together[i][part],
                NoiseDraws::PerCoordinate => own,
            };
            let moved = match *coordinate {
                Coordinate::Scale(i) | Coordinate::Slope(i, _) | Coordinate::Intercept(i) => {
                    packed[j] + expert * draw(i, 0)
                }
                Coordinate::Bias(i)
                | Coordinate::GateSlope(i, _)
                | Coordinate::GateIntercept(i) => packed[j] + gate * draw(i, 1),
                Coordinate::LogVariance(_) => (packed[j].exp() + variance * own.abs()).ln(),
            };
            if !context.bounds.is_pinned(j) {
                packed[j] = moved;
            }
        }
    }
}

fn add_log_weight(expert: &mut Expert, amount: f64) {
    match &mut expert.gate {
        ExpertGate::None => {}
        ExpertGate::Bias(bias) => *bias += amount,
        ExpertGate::Router { intercept, .. } => *intercept += amount,
    }
}

/// The distinct experts of a mixture, copies with their weights added up, and for
/// each expert which of them it is.
fn merged(truth: &Parameters) -> (Vec<Expert>, Vec<usize>) {
    let without_weight = |expert: &Expert| {
        let mut bare = expert.clone();
        add_log_weight(&mut bare, -expert.log_mass());
        bare
    };
    let mut distinct: Vec<Expert> = Vec::new();
    let mut masses: Vec<f64> = Vec::new();
    let mut labels = Vec::new();
    for expert in &truth.experts {
        let bare = without_weight(expert);
        let label = match distinct.iter().position(|other| *other == bare) {
            Some(label) => label,
            None => {
                distinct.push(bare);
                masses.push(0.0);
                distinct.len() - 1
            }
        };
        masses[label] += expert.log_mass().exp();
        labels.push(label);
    }
    for (expert, mass) in distinct.iter_mut().zip(masses) {
        add_log_weight(expert, mass.ln());
    }
    (distinct, labels)
}

/// Labels of `fitted` experts, uniform given that all of `count` occur and that
/// the last expert has the last label.
fn covering(count: usize, fitted: usize, rng: &mut impl rand::Rng) -> Result<Vec<usize>> {
    if fitted < count {
        return Err(Error::value(
            "start",
            "published needs at least as many fitted experts as true ones",
        ));
    }
    // A surplus of none is an order of the true experts, which labels do not need.
    if fitted == count {
        return Ok((0..count).collect());
    }
    loop {
        let mut labels: Vec<usize> = (0..fitted).map(|_| rng.random_range(0..count)).collect();
        labels[fitted - 1] = count - 1;
        if (0..count).all(|j| labels.contains(&j)) {
            return Ok(labels);
        }
    }
}

/// A start outside the box would be moved to another start without a word.
fn check_inside(bounds: &Bounds, layout: &Layout, packed: &[f64]) -> Result<()> {
    let outside = |j: usize| packed[j] < bounds.low[j] || packed[j] > bounds.high[j];
    match (0..packed.len()).find(|&j| !bounds.is_pinned(j) && outside(j)) {
        None => Ok(()),
        Some(j) => Err(Error::value(
            "fit.limits",
            format!(
                "the published start has {} = {}, outside [{}, {}]",
                layout.coordinates()[j],
                packed[j],
                bounds.low[j],
                bounds.high[j]
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ExpertKind, Gate, Selection, VarianceStructure};
    use crate::rng::{Purpose, Stream};

    fn truth() -> Parameters {
        let expert = |a: f64, b: f64, sd: f64, gate: [f64; 2]| Expert {
            kind: ExpertKind::Linear,
            slope: vec![a],
            intercept: b,
            scale: None,
            variance: sd * sd,
            gate: ExpertGate::Router {
                slope: vec![gate[0]],
                intercept: gate[1],
            },
        };
        Parameters {
            gate: Gate {
                kind: GateKind::Softmax,
                top_k: None,
                selection: Selection::Score,
            },
            variance_structure: VarianceStructure::PerExpert,
            experts: vec![
                expert(-20.0, 15.0, 0.3, [25.0, -8.0]),
                expert(20.0, -5.0, 0.4, [0.0, 0.0]),
            ],
        }
    }

    #[test]
    fn copies_are_recognised_with_their_weights_added_up() {
        let split = truth().split(&[2, 1]).unwrap();
        let (distinct, labels) = merged(&split);
        assert_eq!(labels, [0, 0, 1]);
        assert_eq!(distinct.len(), 2);
        for (found, wanted) in distinct.iter().zip(&truth().experts) {
            assert!((found.log_mass() - wanted.log_mass()).abs() < 1e-12);
            assert_eq!(found.slope, wanted.slope);
        }
    }

    #[test]
    fn every_true_expert_is_covered_and_the_last_is_the_origin() {
        let mut rng = Stream::named(1, "covering", 0, Purpose::Start(0)).generator();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let labels = covering(2, 4, &mut rng).unwrap();
            assert!(labels.contains(&0) && labels[3] == 1);
            seen.insert(labels);
        }
        // Eight ways to label three, less the one that leaves out the first.
        assert_eq!(seen.len(), 7);
    }

    /// The figure that fixes the reading of the scales.
    #[test]
    fn copies_start_as_far_apart_as_the_published_fits_ended() {
        let noise = PublishedStart::default().expert_noise;
        // The median of |N(0, 2 s^2)|.
        let median = 0.674_489_75 * 2f64.sqrt() * noise.standard_deviation(1e4);
        assert!((median - 0.0222).abs() < 5e-5, "{median}");
    }
}
