//! The processor: every operation is a call of its definition, after a check of
//! sizes.

use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::train::device::{BalanceTerm, Device, Meter, Tensor, TensorOf, expect};
use crate::train::moe::experts::{Saved, Shape as ExpertShape, Weights, Workspace};
use crate::train::moe::{Assignment, Capacity, Dispatch, competition, layer, losers};
use crate::train::ops::adamw::{AdamW, square_norm};
use crate::train::ops::attention::{self, Shape as AttentionShape};
use crate::train::ops::cross_entropy::{self, IGNORED};
use crate::train::ops::norm::{self, Norm};
use crate::train::ops::real::Real;
use crate::train::ops::rotary::{Rotary, Turn};
use crate::train::ops::{dropout, embedding, linear, rows};
use crate::train::router::balance::{self, Load, add_z_loss};
use crate::train::router::combine::{Selection, TopK};
use crate::train::router::competition::Competition;
use crate::train::router::cosine::{self, Cosine};
use crate::train::router::distillation::Choices;
use crate::train::router::diversity::{self, Pairs};
use crate::train::router::selection::{self, Groups};
use crate::train::router::{noisy, switch};
use std::marker::PhantomData;

/// The processor, with numbers of type `T`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu<T>(PhantomData<T>);

impl<T> Cpu<T> {
    /// All threads of the current rayon pool.
    pub fn new() -> Self {
        Cpu(PhantomData)
    }
}

fn same_shape<B>(what: &'static str, a: &Tensor<B>, b: &Tensor<B>) -> Result<()> {
    a.expect(what, b.rows, b.columns)
}

fn shape_of<B>(x: &Tensor<B>, weight: &Tensor<B>, y: &Tensor<B>) -> Result<linear::Shape> {
    expect("inputs of a linear map", weight.rows, x.columns)?;
    y.expect("output of a linear map", x.rows, weight.columns)?;
    Ok(linear::Shape {
        rows: x.rows,
        inputs: x.columns,
        outputs: weight.columns,
    })
}

/// The map x -> x table^T.
fn unembed_shape<B>(x: &Tensor<B>, table: &Tensor<B>, y: &Tensor<B>) -> Result<linear::Shape> {
    expect("width of a head's table", table.columns, x.columns)?;
    y.expect("logits", x.rows, table.rows)?;
    Ok(linear::Shape {
        rows: x.rows,
        inputs: x.columns,
        outputs: table.rows,
    })
}

fn check_cosine<B>(
    cosine: &Cosine,
    u: &Tensor<B>,
    v: &Tensor<B>,
    scores: &Tensor<B>,
) -> Result<()> {
    expect("width of projected tokens", cosine.width, u.columns)?;
    expect("width of experts' embeddings", cosine.width, v.columns)?;
    scores.expect("scores", u.rows, v.rows)
}

/// Ids must exist in the table; [`IGNORED`] passes where it means something.
fn check_ids(what: &'static str, ids: &[u32], below: usize, ignored: Option<u32>) -> Result<()> {
    let fits = |&id: &u32| (id as usize) < below || Some(id) == ignored;
    match ids.iter().find(|id| !fits(id)) {
        None => Ok(()),
        Some(id) => Err(Error::value(what, format!("{id} must be below {below}"))),
    }
}

/// One flag per token.
fn mask_of(counted: Option<&Vec<bool>>, tokens: usize) -> Result<Option<&[bool]>> {
    if let Some(counted) = counted {
        expect("flags of tokens", tokens, counted.len())?;
    }
    Ok(counted.map(Vec::as_slice))
}

type Matrix<T> = Tensor<Vec<T>>;

fn views<'a, T>(weights: &Weights<&'a Matrix<T>>) -> Weights<&'a [T]> {
    weights.each_ref().map(|w| w.values.as_slice())
}

impl<T: Real> Cpu<T> {
    fn check_layer(
        shape: ExpertShape,
        weights: &Weights<&[T]>,
        x: &Matrix<T>,
        assignment: &Assignment<T>,
        y: &Matrix<T>,
    ) -> Result<()> {
        shape.check(weights)?;
        x.expect("input of experts", assignment.tokens(), shape.width)?;
        y.expect("output of experts", assignment.tokens(), shape.width)?;
        expect(
            "experts of an assignment",
            shape.experts,
            assignment.expert_count(),
        )
    }
}

impl<T: Real> Device for Cpu<T> {
    type Number = T;
    type Buffer = Vec<T>;
    type Ids = Vec<u32>;
    type Meters = Vec<f64>;
    type Assignment = Assignment<T>;
    type Dispatch = Dispatch;
    type Mask = Vec<bool>;
    type Load = Load;
    type Saved = Saved<T>;
    type Workspace = Workspace<T>;

    fn zeros(&self, rows: usize, columns: usize) -> Result<TensorOf<Self>> {
        Ok(Tensor {
            values: vec![T::ZERO; rows * columns],
            rows,
            columns,
        })
    }

    fn upload(&self, values: &[T], columns: usize) -> Result<TensorOf<Self>> {
        let rows = values.len() / columns.max(1);
        expect("numbers of a tensor", rows * columns, values.len())?;
        Ok(Tensor {
            values: values.to_vec(),
            rows,
            columns,
        })
    }

    fn download(&self, tensor: &TensorOf<Self>) -> Result<Vec<T>> {
        Ok(tensor.values.clone())
    }

    fn ids(&self, ids: &[u32]) -> Result<Vec<u32>> {
        Ok(ids.to_vec())
    }

    fn mask(&self, counted: &[bool]) -> Result<Vec<bool>> {
        Ok(counted.to_vec())
    }

    fn meters(&self, count: usize) -> Result<Vec<f64>> {
        Ok(vec![0.0; count])
    }

    fn read(&self, meters: &mut Vec<f64>) -> Result<Vec<f64>> {
        let zeros = vec![0.0; meters.len()];
        Ok(std::mem::replace(meters, zeros))
    }

    fn clear(&self, tensor: &mut TensorOf<Self>) -> Result<()> {
        rows::fill(&mut tensor.values, T::ZERO);
        Ok(())
    }

    fn copy(&self, from: &TensorOf<Self>, to: &mut TensorOf<Self>) -> Result<()> {
        same_shape("copy of a tensor", to, from)?;
        rows::copy(&mut to.values, &from.values);
        Ok(())
    }

    fn add(&self, from: &TensorOf<Self>, to: &mut TensorOf<Self>) -> Result<()> {
        same_shape("sum of tensors", to, from)?;
        rows::add(&mut to.values, &from.values);
        Ok(())
    }

    fn scale(&self, factor: f64, x: &mut TensorOf<Self>) -> Result<()> {
        let factor = T::of(factor);
        rows::for_each(&mut x.values, x.columns, |_, row| {
            row.iter_mut().for_each(|x| *x *= factor);
        });
        Ok(())
    }

    fn average(
        &self,
        a: &TensorOf<Self>,
        b: &TensorOf<Self>,
        out: &mut TensorOf<Self>,
    ) -> Result<()> {
        same_shape("average of tensors", b, a)?;
        same_shape("average of tensors", out, a)?;
        let (columns, half) = (a.columns, T::of(0.5));
        rows::for_each(&mut out.values, columns, |row, out| {
            let at = row * columns..(row + 1) * columns;
            let pairs = a.values[at.clone()].iter().zip(&b.values[at]);
            for (out, (&a, &b)) in out.iter_mut().zip(pairs) {
                *out = half * (a + b);
            }
        });
        Ok(())
    }

    fn assignment(&self, assignment: &Assignment<T>) -> Result<Assignment<T>> {
        Ok(assignment.clone())
    }

    fn load(&self, load: &Load) -> Result<Load> {
        Ok(load.clone())
    }

    fn dropped(&self, dispatch: &Dispatch) -> Result<usize> {
        Ok(dispatch.dropped())
    }

    fn slots(&self, dispatch: &Dispatch) -> Result<Vec<u32>> {
        Ok(dispatch.slots().to_vec())
    }

    fn outputs(&self, saved: &Saved<T>) -> Result<Vec<T>> {
        Ok(saved.outputs().to_vec())
    }

    fn embed(&self, table: &TensorOf<Self>, ids: &Vec<u32>, y: &mut TensorOf<Self>) -> Result<()> {
        y.expect("embedded tokens", ids.len(), table.columns)?;
        check_ids("id of a token", ids, table.rows, None)?;
        embedding::forward(&table.values, table.columns, ids, &mut y.values);
        Ok(())
    }

    fn embed_backward(
        &self,
        ids: &Vec<u32>,
        dy: &TensorOf<Self>,
        d_table: &mut TensorOf<Self>,
    ) -> Result<()> {
        dy.expect("gradient of embedded tokens", ids.len(), d_table.columns)?;
        check_ids("id of a token", ids, d_table.rows, None)?;
        embedding::backward(d_table.columns, ids, &dy.values, &mut d_table.values);
        Ok(())
    }

    fn linear(
        &self,
        x: &TensorOf<Self>,
        weight: &TensorOf<Self>,
        bias: Option<&TensorOf<Self>>,
        y: &mut TensorOf<Self>,
    ) -> Result<()> {
        let shape = shape_of(x, weight, y)?;
        if let Some(bias) = bias {
            bias.expect("bias of a linear map", 1, shape.outputs)?;
        }
        let bias = bias.map(|b| b.values.as_slice());
        linear::forward(shape, &x.values, &weight.values, bias, &mut y.values);
        Ok(())
    }

    fn linear_backward(
        &self,
        x: &TensorOf<Self>,
        weight: &TensorOf<Self>,
        dy: &TensorOf<Self>,
        dx: Option<&mut TensorOf<Self>>,
        gradients: Option<(&mut TensorOf<Self>, Option<&mut TensorOf<Self>>)>,
    ) -> Result<()> {
        let shape = shape_of(x, weight, dy)?;
        if let Some(dx) = &dx {
            same_shape("gradient of a linear map's input", dx, x)?;
        }
        if let Some((d_weight, d_bias)) = &gradients {
            same_shape("gradient of a linear map's weight", d_weight, weight)?;
            if let Some(d_bias) = d_bias {
                d_bias.expect("gradient of a linear map's bias", 1, shape.outputs)?;
            }
        }
        linear::backward(
            shape,
            &x.values,
            &weight.values,
            &dy.values,
            dx.map(|dx| dx.values.as_mut_slice()),
            gradients.map(|(weight, bias)| linear::Gradients {
                weight: &mut weight.values,
                bias: bias.map(|b| b.values.as_mut_slice()),
            }),
        );
        Ok(())
    }

    fn unembed(
        &self,
        x: &TensorOf<Self>,
        table: &TensorOf<Self>,
        logits: &mut TensorOf<Self>,
    ) -> Result<()> {
        let shape = unembed_shape(x, table, logits)?;
        linear::transposed_forward(shape, &x.values, &table.values, &mut logits.values);
        Ok(())
    }

    fn unembed_backward(
        &self,
        x: &TensorOf<Self>,
        table: &TensorOf<Self>,
        d_logits: &TensorOf<Self>,
        dx: &mut TensorOf<Self>,
        d_table: &mut TensorOf<Self>,
    ) -> Result<()> {
        let shape = unembed_shape(x, table, d_logits)?;
        same_shape("gradient of a head's input", dx, x)?;
        same_shape("gradient of a head's table", d_table, table)?;
        linear::transposed_backward(
            shape,
            &x.values,
            &table.values,
            &d_logits.values,
            &mut dx.values,
            &mut d_table.values,
        );
        Ok(())
    }

    fn dropout(
        &self,
        stream: &Stream,
        share: f64,
        first_token: u64,
        x: &mut TensorOf<Self>,
    ) -> Result<()> {
        if !(0.0..1.0).contains(&share) {
            return Err(Error::value("dropout", "must be at least 0 and below 1"));
        }
        dropout::apply(stream, share, first_token, x.columns, &mut x.values);
        Ok(())
    }

    fn norm(
        &self,
        norm: Norm,
        epsilon: f64,
        x: &TensorOf<Self>,
        gain: &TensorOf<Self>,
        shift: Option<&TensorOf<Self>>,
        y: &mut TensorOf<Self>,
        moments: &mut TensorOf<Self>,
    ) -> Result<()> {
        gain.expect("gain of a norm", 1, x.columns)?;
        if let Some(shift) = shift {
            shift.expect("shift of a norm", 1, x.columns)?;
        }
        same_shape("output of a norm", y, x)?;
        moments.expect("moments of a norm", x.rows, 2)?;
        let shift = shift.map(|s| s.values.as_slice());
        let (moments, _) = moments.values.as_chunks_mut::<2>();
        norm::forward(
            norm,
            epsilon,
            &x.values,
            &gain.values,
            shift,
            &mut y.values,
            moments,
        );
        Ok(())
    }

    fn norm_backward(
        &self,
        norm: Norm,
        x: &TensorOf<Self>,
        gain: &TensorOf<Self>,
        moments: &TensorOf<Self>,
        dy: &TensorOf<Self>,
        dx: &mut TensorOf<Self>,
        (d_gain, d_shift): (&mut TensorOf<Self>, Option<&mut TensorOf<Self>>),
    ) -> Result<()> {
        gain.expect("gain of a norm", 1, x.columns)?;
        same_shape("gradient of a norm's gain", d_gain, gain)?;
        if let Some(d_shift) = &d_shift {
            same_shape("gradient of a norm's shift", d_shift, gain)?;
        }
        moments.expect("moments of a norm", x.rows, 2)?;
        same_shape("gradient of a norm's output", dy, x)?;
        same_shape("gradient of a norm's input", dx, x)?;
        let gradients = norm::Gradients {
            gain: &mut d_gain.values,
            shift: d_shift.map(|s| s.values.as_mut_slice()),
        };
        let (moments, _) = moments.values.as_chunks::<2>();
        let (x, gain) = (&x.values, &gain.values);
        norm::backward(
            norm,
            x,
            gain,
            moments,
            &dy.values,
            &mut dx.values,
            gradients,
        );
        Ok(())
    }

    fn rotate(
        &self,
        rotary: &Rotary<T>,
        shape: AttentionShape,
        qkv: &mut TensorOf<Self>,
        turn: Turn,
    ) -> Result<()> {
        let columns = 3 * shape.columns();
        qkv.expect("queries, keys and values", shape.tokens(), columns)?;
        rotary.check(shape.length, shape.width)?;
        let starts = shape.query_and_key_starts();
        rotary.apply(&mut qkv.values, columns, shape.length, &starts, turn);
        Ok(())
    }

    fn attend(
        &self,
        shape: AttentionShape,
        qkv: &TensorOf<Self>,
        o: &mut TensorOf<Self>,
        log_sums: &mut TensorOf<Self>,
    ) -> Result<()> {
        qkv.expect(
            "queries, keys and values",
            shape.tokens(),
            3 * shape.columns(),
        )?;
        o.expect("output of attention", shape.tokens(), shape.columns())?;
        log_sums.expect(
            "log sums of attention",
            shape.sequences * shape.heads,
            shape.length,
        )?;
        attention::forward(shape, &qkv.values, &mut o.values, &mut log_sums.values);
        Ok(())
    }

    fn attend_backward(
        &self,
        shape: AttentionShape,
        qkv: &TensorOf<Self>,
        o: &TensorOf<Self>,
        log_sums: &TensorOf<Self>,
        d_o: &TensorOf<Self>,
        d_qkv: &mut TensorOf<Self>,
    ) -> Result<()> {
        qkv.expect(
            "queries, keys and values",
            shape.tokens(),
            3 * shape.columns(),
        )?;
        o.expect("output of attention", shape.tokens(), shape.columns())?;
        log_sums.expect(
            "log sums of attention",
            shape.sequences * shape.heads,
            shape.length,
        )?;
        same_shape("gradient of attention's output", d_o, o)?;
        same_shape("gradient of queries, keys and values", d_qkv, qkv)?;
        let (o, log_sums) = (&o.values, &log_sums.values);
        attention::backward(
            shape,
            &qkv.values,
            o,
            log_sums,
            &d_o.values,
            &mut d_qkv.values,
        );
        Ok(())
    }

    fn cross_entropy(
        &self,
        logits: &mut TensorOf<Self>,
        targets: &Vec<u32>,
        scale: f64,
        nats: Meter<Vec<f64>>,
    ) -> Result<()> {
        expect("targets", logits.rows, targets.len())?;
        check_ids("target", targets, logits.columns, Some(IGNORED))?;
        let vocabulary = logits.columns;
        let total = cross_entropy::forward_backward(&mut logits.values, vocabulary, targets, scale);
        nats.meters[nats.index] += total.nats;
        Ok(())
    }

    fn jitter(
        &self,
        stream: &Stream,
        amplitude: f64,
        first_token: u64,
        x: &mut TensorOf<Self>,
    ) -> Result<()> {
        switch::jitter(stream, amplitude, first_token, x.columns, &mut x.values);
        Ok(())
    }

    fn noisy(
        &self,
        stream: &Stream,
        first_token: u64,
        noise: &TensorOf<Self>,
        scores: &mut TensorOf<Self>,
    ) -> Result<()> {
        same_shape("noise of scores", noise, scores)?;
        let (experts, scores) = (scores.columns, &mut scores.values);
        noisy::forward(stream, first_token, experts, &noise.values, scores);
        Ok(())
    }

    fn noisy_backward(
        &self,
        stream: &Stream,
        first_token: u64,
        noise: &TensorOf<Self>,
        d_scores: &TensorOf<Self>,
        d_noise: &mut TensorOf<Self>,
    ) -> Result<()> {
        same_shape("noise of scores", noise, d_scores)?;
        same_shape("gradient of noise", d_noise, noise)?;
        let (noise, d_noise) = (&noise.values, &mut d_noise.values);
        let experts = d_scores.columns;
        noisy::backward(
            stream,
            first_token,
            experts,
            noise,
            &d_scores.values,
            d_noise,
        );
        Ok(())
    }

    fn cosine(
        &self,
        cosine: &Cosine,
        temperature: f64,
        u: &TensorOf<Self>,
        v: &TensorOf<Self>,
        scores: &mut TensorOf<Self>,
    ) -> Result<()> {
        check_cosine(cosine, u, v, scores)?;
        cosine.forward(&u.values, &v.values, temperature, &mut scores.values);
        Ok(())
    }

    fn cosine_backward(
        &self,
        cosine: &Cosine,
        temperature: f64,
        u: &TensorOf<Self>,
        v: &TensorOf<Self>,
        scores: &TensorOf<Self>,
        d_scores: &TensorOf<Self>,
        d_u: &mut TensorOf<Self>,
        d_v: &mut TensorOf<Self>,
    ) -> Result<()> {
        check_cosine(cosine, u, v, scores)?;
        same_shape("gradient of scores", d_scores, scores)?;
        same_shape("gradient of projected tokens", d_u, u)?;
        same_shape("gradient of experts' embeddings", d_v, v)?;
        let gradients = cosine::Gradients {
            u: &mut d_u.values,
            v: &mut d_v.values,
            tau: &mut 0.0,
        };
        cosine.backward(
            &u.values,
            &v.values,
            temperature,
            &scores.values,
            &d_scores.values,
            gradients,
        );
        Ok(())
    }

    fn choose(
        &self,
        rule: &TopK,
        groups: Groups,
        bias: Option<&TensorOf<Self>>,
        scores: &TensorOf<Self>,
    ) -> Result<Assignment<T>> {
        let bias = bias.map(|b| b.values.as_slice());
        let selection = Selection { groups, bias };
        rule.choose(selection, &scores.values, scores.columns)
    }

    fn move_bias(&self, load: &Load, rate: f64, bias: &mut TensorOf<Self>) -> Result<()> {
        bias.expect("bias of a choice", 1, load.all.len())?;
        selection::move_bias(load, rate, &mut bias.values);
        Ok(())
    }

    fn everyone(&self, tokens: usize, experts: usize) -> Result<Assignment<T>> {
        Assignment::everyone(tokens, experts)
    }

    fn choose_backward(
        &self,
        rule: &TopK,
        scores: &TensorOf<Self>,
        assignment: &Assignment<T>,
        d_weights: &TensorOf<Self>,
        d_scores: &mut TensorOf<Self>,
    ) -> Result<()> {
        scores.expect("scores", assignment.tokens(), assignment.expert_count())?;
        same_shape("gradient of scores", d_scores, scores)?;
        d_weights.expect("gradient of weights", 1, assignment.weights().len())?;
        let d_scores = &mut d_scores.values;
        rule.backward(&scores.values, assignment, &d_weights.values, d_scores);
        Ok(())
    }

    fn dispatch(&self, assignment: &Assignment<T>, capacity: Option<Capacity>) -> Result<Dispatch> {
        Ok(Dispatch::new(assignment, capacity))
    }

    fn experts(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        x: &TensorOf<Self>,
        assignment: &Assignment<T>,
        dispatch: &Dispatch,
        saved: &mut Saved<T>,
        y: &mut TensorOf<Self>,
    ) -> Result<()> {
        let weights = views(weights);
        Self::check_layer(shape, &weights, x, assignment, y)?;
        layer::forward(
            shape,
            &weights,
            &x.values,
            assignment,
            dispatch,
            saved,
            &mut y.values,
        );
        Ok(())
    }

    fn winners(
        &self,
        assignment: &Assignment<T>,
        dispatch: &Dispatch,
        saved: &mut Saved<T>,
        y: &mut TensorOf<Self>,
    ) -> Result<()> {
        y.expect("output of experts", assignment.tokens(), y.columns)?;
        let pairs = assignment.experts().len();
        expect("outputs of winners", pairs * y.columns, saved.kept())?;
        layer::forward_of_winners(y.columns, assignment, dispatch, saved, &mut y.values);
        Ok(())
    }

    fn weight_gradients(
        &self,
        assignment: &Assignment<T>,
        dispatch: &Dispatch,
        saved: &Saved<T>,
        dy: &TensorOf<Self>,
    ) -> Result<TensorOf<Self>> {
        let slots = dispatch.tokens().len();
        expect(
            "saved outputs of experts",
            slots * dy.columns,
            saved.outputs().len(),
        )?;
        let values = layer::weight_gradients(dy.columns, assignment, dispatch, saved, &dy.values);
        self.upload(&values, values.len())
    }

    fn experts_backward(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        x: &TensorOf<Self>,
        assignment: &Assignment<T>,
        dispatch: &Dispatch,
        saved: &Saved<T>,
        workspace: &mut Workspace<T>,
        dy: &TensorOf<Self>,
        d_outputs: Option<&TensorOf<Self>>,
        dx: &mut TensorOf<Self>,
        gradients: Weights<&mut TensorOf<Self>>,
    ) -> Result<()> {
        let weights = views(weights);
        Self::check_layer(shape, &weights, x, assignment, dy)?;
        same_shape("gradient of experts' input", dx, x)?;
        let gradients = gradients.map(|g| g.values.as_mut_slice());
        shape.check(&gradients)?;
        if let Some(d_outputs) = d_outputs {
            let slots = dispatch.tokens().len();
            d_outputs.expect("gradient of experts' outputs", slots, shape.width)?;
        }
        let upstream = layer::Upstream {
            dy: &dy.values,
            d_outputs: d_outputs.map(|d| d.values.as_slice()),
        };
        layer::backward(
            shape,
            &weights,
            &x.values,
            assignment,
            dispatch,
            saved,
            workspace,
            upstream,
            &mut dx.values,
            gradients,
        );
        Ok(())
    }

    fn affinities(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        competition: &Competition,
        x: &TensorOf<Self>,
        affinities: &mut TensorOf<Self>,
    ) -> Result<()> {
        let weights = views(weights);
        shape.check(&weights)?;
        expect("width of tokens", shape.width, x.columns)?;
        affinities.expect("affinities", x.rows, shape.experts)?;
        let out = &mut affinities.values;
        competition::affinities(shape, &weights, competition.response, &x.values, out);
        Ok(())
    }

    fn compete(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        competition: &Competition,
        scores: Option<&TensorOf<Self>>,
        x: &TensorOf<Self>,
        affinities: &mut TensorOf<Self>,
        saved: &mut Saved<T>,
        workspace: &mut Workspace<T>,
    ) -> Result<Assignment<T>> {
        let weights = views(weights);
        shape.check(&weights)?;
        expect("width of tokens", shape.width, x.columns)?;
        affinities.expect("affinities", x.rows, shape.experts)?;
        if let Some(scores) = scores {
            same_shape("scores", scores, affinities)?;
        }
        competition::compete(
            shape,
            &weights,
            competition,
            scores.map(|scores| scores.values.as_slice()),
            &x.values,
            &mut affinities.values,
            saved,
            workspace,
        )
    }

    fn output_gradients(
        &self,
        competition: &Competition,
        d_affinities: &TensorOf<Self>,
        assignment: &Assignment<T>,
        dispatch: &Dispatch,
        saved: &Saved<T>,
        diversity: Option<(Pairs, f64)>,
        counted: Option<&Vec<bool>>,
        meter: Meter<Vec<f64>>,
    ) -> Result<TensorOf<Self>> {
        let (tokens, experts) = (assignment.tokens(), assignment.expert_count());
        d_affinities.expect("gradient of affinities", tokens, experts)?;
        let counted = mask_of(counted, assignment.tokens())?;
        let outputs = saved.outputs();
        let slots = dispatch.tokens().len();
        let width = outputs.len() / slots.max(1);
        let mut result = self.zeros(slots, width)?;
        competition.add_output_gradients(
            &d_affinities.values,
            assignment,
            dispatch,
            width,
            outputs,
            &mut result.values,
        );
        if let Some((pairs, coefficient)) = diversity {
            let value = diversity::add(
                pairs,
                assignment,
                dispatch,
                width,
                outputs,
                counted,
                coefficient,
                &mut result.values,
            );
            meter.meters[meter.index] += coefficient * value;
        }
        Ok(result)
    }

    fn losers_backward(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        competition: &Competition,
        x: &TensorOf<Self>,
        winners: &Assignment<T>,
        d_affinities: &TensorOf<Self>,
        dx: &mut TensorOf<Self>,
        gradients: Weights<&mut TensorOf<Self>>,
    ) -> Result<()> {
        let weights = views(weights);
        Self::check_layer(shape, &weights, x, winners, dx)?;
        d_affinities.expect("gradient of affinities", x.rows, shape.experts)?;
        let gradients = gradients.map(|g| g.values.as_mut_slice());
        shape.check(&gradients)?;
        losers::backward(
            shape,
            &weights,
            competition.response,
            &x.values,
            winners,
            &d_affinities.values,
            &mut dx.values,
            gradients,
        );
        Ok(())
    }

    fn distil(
        &self,
        competition: &Competition,
        affinities: &TensorOf<Self>,
        winners: &Assignment<T>,
        scores: &TensorOf<Self>,
        routed: &Assignment<T>,
        counted: Option<&Vec<bool>>,
        coefficient: f64,
        d_scores: &mut TensorOf<Self>,
        d_affinities: Option<&mut TensorOf<Self>>,
        meter: Meter<Vec<f64>>,
    ) -> Result<()> {
        scores.expect("scores", winners.tokens(), winners.expert_count())?;
        same_shape("affinities", affinities, scores)?;
        same_shape("gradient of scores", d_scores, scores)?;
        let counted = mask_of(counted, scores.rows)?;
        if let Some(d_affinities) = &d_affinities {
            same_shape("gradient of affinities", d_affinities, scores)?;
        }
        let (rule, sharpening) = (competition.target, competition.sharpening);
        let responses = &affinities.values;
        let target = rule.probabilities(responses, winners, sharpening);
        let choices = Choices { winners, routed };
        let (z, loss) = (&scores.values, competition.distillation);
        let d_z = &mut d_scores.values;
        let value = loss.add(z, &target, choices, counted, coefficient, d_z);
        if let Some(d_affinities) = d_affinities {
            let mut gradient = loss.target_gradient(z, &target, choices, counted, coefficient);
            rule.backward(
                responses,
                &target,
                sharpening,
                scores.columns,
                &mut gradient,
                &mut d_affinities.values,
            );
        }
        meter.meters[meter.index] += coefficient * value;
        Ok(())
    }

    fn count(
        &self,
        assignment: &Assignment<T>,
        counted: Option<&Vec<bool>>,
        load: &mut Load,
    ) -> Result<()> {
        let counted = mask_of(counted, assignment.tokens())?;
        load.add(&Load::of(assignment, counted, 0..assignment.tokens()));
        Ok(())
    }

    fn balance(
        &self,
        term: &BalanceTerm,
        scores: &TensorOf<Self>,
        assignment: &Assignment<T>,
        counted: Option<&Vec<bool>>,
        load: Option<&Load>,
        d_scores: &mut TensorOf<Self>,
        meter: Meter<Vec<f64>>,
    ) -> Result<()> {
        scores.expect("scores", assignment.tokens(), assignment.expert_count())?;
        same_shape("gradient of scores", d_scores, scores)?;
        if let Some(load) = load {
            expect(
                "experts of a load",
                assignment.expert_count(),
                load.all.len(),
            )?;
        }
        let loss = balance::Loss {
            balance: term.balance,
            scope: term.scope,
            distribution: term.distribution,
            coefficient: term.coefficient,
            counted: mask_of(counted, scores.rows)?,
            load,
        };
        let value = loss.add(&scores.values, assignment, &mut d_scores.values);
        meter.meters[meter.index] += term.coefficient * value;
        Ok(())
    }

    fn z_loss(
        &self,
        coefficient: f64,
        scores: &TensorOf<Self>,
        counted: Option<&Vec<bool>>,
        d_scores: &mut TensorOf<Self>,
        meter: Meter<Vec<f64>>,
    ) -> Result<()> {
        same_shape("gradient of scores", d_scores, scores)?;
        let counted = mask_of(counted, scores.rows)?;
        let d_scores = &mut d_scores.values;
        let value = add_z_loss(
            &scores.values,
            scores.columns,
            counted,
            coefficient,
            d_scores,
        );
        meter.meters[meter.index] += coefficient * value;
        Ok(())
    }

    fn square_norm(&self, gradient: &TensorOf<Self>, meter: Meter<Vec<f64>>) -> Result<()> {
        meter.meters[meter.index] += square_norm(&gradient.values);
        Ok(())
    }

    fn update(
        &self,
        rule: &AdamW,
        step: u64,
        scale: f64,
        parameters: &mut TensorOf<Self>,
        gradient: &mut TensorOf<Self>,
        mean: &mut TensorOf<Self>,
        square: &mut TensorOf<Self>,
    ) -> Result<()> {
        same_shape("gradient of parameters", gradient, parameters)?;
        same_shape("mean of gradients", mean, parameters)?;
        same_shape("mean square of gradients", square, parameters)?;
        rule.update(
            step,
            scale,
            &mut parameters.values,
            &mut gradient.values,
            &mut mean.values,
            &mut square.values,
        );
        Ok(())
    }
}
