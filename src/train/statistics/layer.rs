//! Everything about one sparse layer.

use crate::error::{Error, Result};
use crate::train::log::{number, numbers};
use crate::train::moe::Assignment;
use crate::train::ops::real::Real;
use crate::train::statistics::competition::{CompetitionStatistics, Contest};
use crate::train::statistics::outputs::{ExpertWeights, Outputs};
use crate::train::statistics::{choice, distribution, load};
use serde::{Deserialize, Serialize};

/// What is known of one sparse layer on one batch. What is absent is not measured.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a, T> {
    /// The layer's number in the transformer.
    pub layer: usize,
    /// The router's scores z. Shape: tokens, experts.
    pub scores: &'a [T],
    /// The router's choice, also on a batch on which experts competed.
    pub assignment: &'a Assignment<T>,
    /// Pairs that a capacity dropped.
    pub dropped: usize,
    /// An earlier choice on the same tokens.
    pub previous: Option<&'a Assignment<T>>,
    /// The final choice on the same tokens.
    pub last: Option<&'a Assignment<T>>,
    /// Ids of the tokens. Shape: tokens.
    pub ids: Option<&'a [u32]>,
    /// Outputs of the chosen experts.
    pub outputs: Option<Outputs<'a, T>>,
    /// Weights of all experts.
    pub weights: Option<ExpertWeights<'a, T>>,
    /// The competition on the same tokens.
    pub contest: Option<Contest<'a, T>>,
    /// Whether matrices over pairs of experts are kept.
    pub matrices: Matrices,
}

/// Whether matrices over pairs of experts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrices {
    /// Whole: E^2 numbers each.
    Kept,
    /// Only their mean and maximum off the diagonal.
    Summarised,
}

/// A matrix over pairs of experts, off its diagonal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Similarity {
    /// Mean off the diagonal; 0 for one expert.
    #[serde(deserialize_with = "number")]
    pub mean: f64,
    /// Maximum off the diagonal; 0 for one expert.
    #[serde(deserialize_with = "number")]
    pub maximum: f64,
    /// Row by row, where asked for; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "numbers")]
    pub matrix: Vec<f64>,
}

impl Similarity {
    fn of(matrix: Vec<f64>, experts: usize, matrices: Matrices) -> Similarity {
        let off = || {
            let at = |(k, &value): (usize, &f64)| (k % (experts + 1) != 0).then_some(value);
            matrix.iter().enumerate().filter_map(at)
        };
        Similarity {
            mean: super::mean(off()).unwrap_or(0.0),
            maximum: off().reduce(f64::max).unwrap_or(0.0),
            matrix: match matrices {
                Matrices::Kept => matrix,
                Matrices::Summarised => Vec::new(),
            },
        }
    }
}

/// Routing statistics of one sparse layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerStatistics {
    /// The layer's number in the transformer.
    pub layer: usize,
    /// Tokens of the batch.
    pub tokens: usize,
    /// Pairs per expert.
    pub load: Vec<u64>,
    /// max / mean of load, minus 1.
    pub maximum_violation: f64,
    /// Entropy of the load over log E.
    pub load_entropy: f64,
    /// Experts without any token.
    pub dead: usize,
    /// Dropped pairs over pairs.
    pub dropped: f64,
    /// Tokens without any expert.
    pub unrouted: u64,
    /// Element n: tokens with n experts.
    pub experts_per_token: Vec<u64>,
    /// Mean entropy of the router's distribution, in nats.
    #[serde(deserialize_with = "number")]
    pub router_entropy: f64,
    /// Mean probability by rank, the largest first.
    #[serde(deserialize_with = "numbers")]
    pub probabilities: Vec<f64>,
    /// Mean of the largest probability minus the second.
    #[serde(deserialize_with = "number")]
    pub margin: f64,
    /// Mean entropy of the weights of the chosen, in nats.
    pub weight_entropy: Option<f64>,
    /// Share of a token's experts that differ from the earlier choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_rate: Option<f64>,
    /// Share of a token's experts that the final router chooses too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturation: Option<f64>,
    /// Experts chosen together.
    pub coactivation: Similarity,
    /// How far a token's id decides, per expert.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub specialisation: Vec<Option<f64>>,
    /// Mean norm of outputs, per expert.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_norms: Vec<Option<f64>>,
    /// Mean cosine of the outputs that a token gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_cosine: Option<f64>,
    /// Cosines of experts' weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_cosine: Option<Similarity>,
    /// What the router has learnt of the competition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub competition: Option<CompetitionStatistics>,
}

/// Measures one sparse layer.
///
/// # Errors
/// [`Error::Dimension`] if sizes differ.
pub fn layer<T: Real>(input: &Layer<T>) -> Result<LayerStatistics> {
    let assignment = input.assignment;
    let (tokens, experts) = (assignment.tokens(), assignment.expert_count());
    same("scores of the router", tokens * experts, input.scores.len())?;
    for (what, other) in [
        ("tokens of the earlier choice", input.previous),
        ("tokens of the final choice", input.last),
        ("tokens of the winners", input.contest.map(|c| c.winners)),
    ] {
        same(what, tokens, other.map_or(tokens, Assignment::tokens))?;
    }
    same(
        "ids of tokens",
        tokens,
        input.ids.map_or(tokens, <[u32]>::len),
    )?;
    if let Some(outputs) = input.outputs {
        outputs.check()?;
        let pairs = assignment.experts().len();
        same(
            "pairs of the outputs",
            pairs,
            outputs.dispatch.slots().len(),
        )?;
    }
    let load = load::counts(assignment);
    let experts_per_token = load::experts_per_token(assignment);
    let sureness = distribution::sureness(input.scores, experts);
    let similarity = |matrix| Similarity::of(matrix, experts, input.matrices);
    let weights = input.weights.map(|weights| weights.cosines()).transpose()?;
    let contest = input.contest.map(|c| c.against(input.scores, assignment));
    Ok(LayerStatistics {
        layer: input.layer,
        tokens,
        maximum_violation: load::maximum_violation(&load),
        load_entropy: load::normalised_entropy(&load),
        dead: load::dead(&load),
        load,
        dropped: input.dropped as f64 / assignment.experts().len().max(1) as f64,
        unrouted: experts_per_token.first().copied().unwrap_or(0),
        experts_per_token,
        router_entropy: sureness.entropy,
        probabilities: sureness.sorted,
        margin: sureness.margin,
        weight_entropy: distribution::weight_entropy(assignment),
        change_rate: input
            .previous
            .and_then(|previous| choice::overlap(assignment, previous))
            .map(|overlap| 1.0 - overlap),
        saturation: input
            .last
            .and_then(|last| choice::overlap(assignment, last)),
        coactivation: similarity(choice::coactivation(assignment)),
        specialisation: input
            .ids
            .map(|ids| choice::specialisation(assignment, ids))
            .unwrap_or_default(),
        output_norms: input.outputs.map(|o| o.norms()).unwrap_or_default(),
        output_cosine: input.outputs.and_then(|o| o.cosine(assignment)),
        weight_cosine: weights.map(similarity),
        competition: contest.transpose()?,
    })
}

fn same(what: &'static str, expected: usize, got: usize) -> Result<()> {
    match expected == got {
        true => Ok(()),
        false => Err(Error::Dimension {
            what,
            expected,
            got,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::moe::Dispatch;
    use crate::train::ops::check::normals;
    use crate::train::statistics::sample::{chosen, route};

    fn bare<'a>(scores: &'a [f64], assignment: &'a Assignment<f64>) -> Layer<'a, f64> {
        Layer {
            layer: 3,
            scores,
            assignment,
            dropped: 0,
            previous: None,
            last: None,
            ids: None,
            outputs: None,
            weights: None,
            contest: None,
            matrices: Matrices::Summarised,
        }
    }

    #[test]
    fn what_is_not_given_is_neither_measured_nor_written() {
        let scores = normals(1, 40);
        let assignment = route(&scores, 4, 2);
        let measured = layer(&bare(&scores, &assignment)).unwrap();
        assert_eq!((measured.tokens, measured.unrouted), (10, 0));
        assert_eq!(measured.experts_per_token, [0, 0, 10]);
        let text = serde_json::to_string(&measured).unwrap();
        for key in ["change_rate", "competition", "matrix", "specialisation"] {
            assert!(!text.contains(&format!("\"{key}\":")), "{text}");
        }
        let read: LayerStatistics = serde_json::from_str(&text).unwrap();
        assert_eq!(read, measured);
    }

    #[test]
    fn everything_at_once_is_what_the_single_functions_say() {
        let (scores, earlier, a) = (normals(1, 40), normals(2, 40), normals(3, 40));
        let assignment = route(&scores, 4, 2);
        let (previous, winners) = (route(&earlier, 4, 2), route(&a, 4, 2));
        let dispatch = Dispatch::new(&assignment, None);
        let values = normals(4, 60);
        let outputs = Outputs {
            values: &values,
            dispatch: &dispatch,
            width: 3,
        };
        let matrix = normals(5, 24);
        let full = Layer {
            dropped: 5,
            previous: Some(&previous),
            last: Some(&assignment),
            ids: Some(&[1; 10]),
            outputs: Some(outputs),
            weights: Some(ExpertWeights {
                parts: &[&matrix],
                experts: 4,
            }),
            contest: Some(Contest {
                affinities: &a,
                winners: &winners,
                target: None,
                combined: None,
            }),
            matrices: Matrices::Kept,
            ..bare(&scores, &assignment)
        };
        let measured = layer(&full).unwrap();
        let agreed = choice::overlap(&assignment, &previous).unwrap();
        assert_eq!(measured.change_rate, Some(1.0 - agreed));
        assert_eq!(measured.saturation, Some(1.0));
        assert_eq!(measured.dropped, 0.25);
        assert_eq!(measured.output_norms, outputs.norms());
        assert_eq!(measured.coactivation.matrix.len(), 16);
        let weights = measured.weight_cosine.as_ref().unwrap();
        let off: Vec<f64> = (0..16)
            .filter(|k| k % 5 != 0)
            .map(|k| weights.matrix[k])
            .collect();
        assert!((weights.mean - off.iter().sum::<f64>() / 12.0).abs() < 1e-15);
        assert!(weights.maximum < 0.999 && off.contains(&weights.maximum));
        let text = serde_json::to_string(&measured).unwrap();
        let read: LayerStatistics = serde_json::from_str(&text).unwrap();
        assert_eq!(read, measured);
    }

    #[test]
    fn arrays_of_other_batches_are_refused_by_name() {
        let scores = normals(1, 40);
        let assignment = route(&scores, 4, 2);
        let shorter = chosen(&[&[0, 1]], 4);
        let good = bare(&scores, &assignment);
        let wrong = |input: Layer<f64>| layer(&input).unwrap_err().to_string();
        let scores = wrong(Layer {
            scores: &[0.0],
            ..good
        });
        assert!(scores.contains("scores of the router"));
        let previous = wrong(Layer {
            previous: Some(&shorter),
            ..good
        });
        assert!(previous.contains("earlier choice"));
        let ids = wrong(Layer {
            ids: Some(&[1]),
            ..good
        });
        assert!(ids.contains("ids of tokens"));
    }

    #[test]
    fn not_a_number_survives_the_log() {
        let assignment = chosen(&[&[0]], 2);
        let measured = layer(&bare(&[f64::NAN; 2], &assignment)).unwrap();
        assert!(measured.router_entropy.is_nan() && measured.margin.is_nan());
        let text = serde_json::to_string(&measured).unwrap();
        let read: LayerStatistics = serde_json::from_str(&text).unwrap();
        assert!(read.router_entropy.is_nan() && read.margin.is_nan());
    }
}
