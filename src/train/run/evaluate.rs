//! The loss of a text, and what routers do with it.

use crate::error::Result;
use crate::train::data::{EvaluationWindows, Vocabulary};
use crate::train::device::{Device, TensorOf};
use crate::train::model::{Batch, Losses, Observe, Phase, SparseTape, Tape, Transformer};
use crate::train::moe::{Assignment, Dispatch};
use crate::train::ops::cross_entropy::IGNORED;
use crate::train::statistics::{
    Contest, ExpertWeights, Layer, LayerStatistics, Matrices, Outputs, layer,
};

/// The loss of a split or of some of its windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Nats of all predicted tokens.
    pub nats: f64,
    /// Predicted tokens.
    pub tokens: usize,
    /// Bytes of their text.
    pub bytes: usize,
}

impl Measured {
    /// Nats per token.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens.max(1) as f64
    }

    /// nats / (bytes log 2)
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / (self.bytes.max(1) as f64 * std::f64::consts::LN_2)
    }

    /// exp(nats per token)
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }
}

/// Measures windows with K = `active` experts per token.
///
/// # Errors
/// Those of reading; what the device refuses.
pub fn evaluate<D: Device>(
    device: &D,
    transformer: &Transformer<D>,
    tape: &mut Tape<D>,
    windows: &EvaluationWindows,
    vocabulary: &Vocabulary,
    active: usize,
) -> Result<Measured> {
    let [sequences, length] = tape.sizes();
    let phase = Phase::Evaluation {
        active,
        observe: Observe::Loss,
    };
    let mut meters = device.meters(Losses::METERS)?;
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    let (mut tokens, mut bytes) = (0, 0);
    for first in (0..windows.len()).step_by(sequences) {
        windows.read(first..first + sequences, &mut ids, &mut targets)?;
        let batch = Batch::new(device, &ids, &targets, length)?;
        transformer.forward(device, &batch, &phase, tape)?;
        transformer.loss(device, &batch, tape, &mut meters)?;
        tokens += batch.counted().tokens;
        let predicted = targets.iter().filter(|&&t| t != IGNORED);
        bytes += predicted.map(|&t| vocabulary.bytes_of(t)).sum::<usize>();
    }
    let losses = Losses::of(&device.read(&mut meters)?);
    Ok(Measured {
        nats: losses.nats,
        tokens,
        bytes,
    })
}

/// A choice on the host.
pub type Choice<D> = Assignment<<D as Device>::Number>;

/// What all routers do with some tokens, and their choices. `previous` are the choices
/// of an earlier call on the same tokens.
///
/// # Errors
/// What the device refuses.
pub fn observe<D: Device>(
    device: &D,
    transformer: &Transformer<D>,
    tape: &mut Tape<D>,
    (ids, targets): (&[u32], &[u32]),
    active: usize,
    previous: Option<&[Choice<D>]>,
) -> Result<(Vec<LayerStatistics>, Vec<Choice<D>>)> {
    let [_, length] = tape.sizes();
    let batch = Batch::new(device, ids, targets, length)?;
    let phase = Phase::Evaluation {
        active,
        observe: Observe::Responses,
    };
    transformer.forward(device, &batch, &phase, tape)?;
    let (mut statistics, mut choices) = (Vec::new(), Vec::new());
    for (index, (number, up, sparse)) in transformer.sparse_layers(tape).enumerate() {
        let seen = Seen::of(device, sparse, up)?;
        let previous = previous.and_then(|p| p.get(index));
        statistics.push(seen.measure(number, ids, previous)?);
        choices.push(seen.choice);
    }
    Ok((statistics, choices))
}

/// A sparse layer's arrays on the host.
struct Seen<D: Device> {
    scores: Vec<D::Number>,
    choice: Choice<D>,
    dropped: usize,
    responses: Option<(Vec<D::Number>, Choice<D>)>,
    /// By slot, where nothing was dropped.
    outputs: Option<(Vec<D::Number>, Dispatch)>,
    up: Vec<D::Number>,
}

impl<D: Device> Seen<D> {
    fn of(device: &D, tape: &SparseTape<D>, up: &TensorOf<D>) -> Result<Self> {
        let responses = match (&tape.responses, &tape.winners) {
            (Some(responses), Some(winners)) => {
                Some((device.download(responses)?, device.assignment(winners)?))
            }
            _ => None,
        };
        let chosen = tape.chosen().expect("a forward pass has chosen");
        let dispatch = tape.dispatch.as_ref().expect("and sorted");
        // Experts that decide alone are their own router.
        let scores = match (&tape.scores, &responses) {
            (Some(scores), _) => device.download(scores)?,
            (None, Some((responses, _))) => responses.clone(),
            (None, None) => Vec::new(),
        };
        let choice = device.assignment(chosen)?;
        let dropped = device.dropped(dispatch)?;
        let sorted = || Ok((device.outputs(&tape.saved)?, Dispatch::new(&choice, None)));
        let outputs = (dropped == 0).then(sorted).transpose()?;
        Ok(Seen {
            scores,
            choice,
            dropped,
            responses,
            outputs,
            up: device.download(up)?,
        })
    }

    fn measure(
        &self,
        number: usize,
        ids: &[u32],
        previous: Option<&Choice<D>>,
    ) -> Result<LayerStatistics> {
        let contest = self.responses.as_ref();
        let parts = [self.up.as_slice()];
        layer(&Layer {
            layer: number,
            scores: &self.scores,
            assignment: &self.choice,
            dropped: self.dropped,
            previous,
            last: None,
            ids: Some(ids),
            outputs: self.outputs.as_ref().map(|(values, dispatch)| Outputs {
                values,
                dispatch,
                width: values.len() / dispatch.tokens().len().max(1),
            }),
            weights: Some(ExpertWeights {
                parts: &parts,
                experts: self.choice.expert_count(),
            }),
            contest: contest.map(|(affinities, winners)| Contest {
                affinities,
                winners,
                target: None,
                combined: None,
            }),
            matrices: Matrices::Summarised,
        })
    }
}
