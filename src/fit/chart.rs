//! Curved coordinates for experts that are nearly equal.
//!
//! Two nearly equal experts i and j with shares p and q = 1 - p of their common
//! weight act on the density through the moments of a two-point law: its mass,
//! its means t, its second moments. Along the share l = log(p / q) the likelihood
//! is nearly flat, but a straight step changes the means at second order, and
//! those are known to n^(-1/2): in packed coordinates the likelihood has a curved
//! ridge, along which Newton crawls. In the coordinates
//!
//! ```text
//! c = log(e^c_i + e^c_j)      m = p t_i + q t_j
//! l = c_i - c_j               s = (p q)^(1/2) (t_i - t_j)
//! ```
//!
//! (t: slopes, intercept, log-variance, gate slopes) the share moves neither
//! mass, means nor second moments, for t_i = m + e^(-l/2) s, t_j = m - e^(l/2) s.
//!
//! A second kind of curve comes from the density's own differential equations.
//! A spread s of the mean of linear experts adds s^2 to their variance; it adds
//! s times the spread of a gate slope to the slope; and if the log-weight has
//! derivatives w', w'' in the mean, it adds w' s^2 to the mean and
//! (w'' - w'^2) s^2 / 2 to the log-mass. A step takes back what its change of s
//! adds.
//!
//! A chart never changes what is a maximum, only the path to it.

use super::bounds::Bounds;
use crate::model::{Coordinate, Data, ExpertGate, ExpertKind, GateKind, Layout, Parameters};
use ndarray::{Array1, Array2};

/// Largest mean squared distance, in units of the experts' variances, at which
/// two experts count as nearly equal.
const NEAR: f64 = 1.0;
/// Inputs at which experts are compared.
const PROBES: usize = 32;
/// Step of finite differences along a curve.
const DIFFERENCE: f64 = 1e-3;

/// What does not change while a fit goes on.
pub(super) struct Atlas<'a> {
    template: &'a Parameters,
    layout: &'a Layout,
    bounds: &'a Bounds,
    probes: Vec<Vec<f64>>,
}

/// The coordinates around one point: straight but for pairs of near experts.
pub(super) struct Chart<'a> {
    bounds: &'a Bounds,
    pairs: Vec<Pair>,
    /// Entries of the packed vector.
    size: usize,
    origins: Vec<Origin>,
}

/// A gate coordinate of the last expert, which has none: its value is 0, and a
/// change of it is a change of all others. Stands behind the packed entries.
struct Origin {
    others: Vec<usize>,
}

/// Positions of two experts' coordinates. Extended by the origins.
struct Pair {
    weights: [usize; 2],
    /// Whether the share of the two may move.
    share: Share,
    /// Coordinates t of both.
    twins: Vec<[usize; 2]>,
    exchanges: Vec<Exchange>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    Moves,
    Held,
}

/// The spreads of two twins, times `factor`, add to a coordinate of both experts.
struct Exchange {
    spreads: [usize; 2],
    to: [usize; 2],
    factor: f64,
}

/// Velocity and acceleration at one point of a curve.
pub(super) struct Motion {
    pub velocity: Array1<f64>,
    pub acceleration: Array1<f64>,
}

impl<'a> Atlas<'a> {
    pub fn new(
        template: &'a Parameters,
        layout: &'a Layout,
        bounds: &'a Bounds,
        data: &Data,
    ) -> Self {
        let stride = data.len().div_ceil(PROBES).max(1);
        Atlas {
            template,
            layout,
            bounds,
            probes: (0..data.len())
                .step_by(stride)
                .map(|i| data.row(i).0)
                .collect(),
        }
    }

    /// The chart at `packed`, where `score` says which bounds hold.
    pub fn chart(&self, packed: &[f64], score: &Array1<f64>) -> Chart<'a> {
        let mut chart = Chart {
            bounds: self.bounds,
            pairs: Vec::new(),
            size: packed.len(),
            origins: Vec::new(),
        };
        let kind = self.template.gate.kind;
        let weighed = !matches!(self.template.experts[0].gate, ExpertGate::None);
        if !weighed || self.template.is_sparse() || !kind.is_translation_invariant() {
            return chart;
        }
        let parameters = self.layout.unpack(self.template, packed);
        let near = self.near_pairs(&parameters);
        if near.is_empty() {
            return chart;
        }
        chart.origins = self.origins();
        let held = |j: usize| self.bounds.blocks(packed, j, score[j]);
        chart.pairs = near
            .into_iter()
            .map(|pair| self.pair(pair, &parameters, &chart, held))
            .collect();
        chart
    }

    /// Disjoint pairs of near experts, nearest first.
    fn near_pairs(&self, parameters: &Parameters) -> Vec<[usize; 2]> {
        let experts = &parameters.experts;
        let mut found: Vec<(f64, [usize; 2])> = Vec::new();
        for j in 1..experts.len() {
            for i in 0..j {
                let (a, b) = (&experts[i], &experts[j]);
                if !a.is_alike(b) {
                    continue;
                }
                let squares = self.probes.iter().map(|x| (a.mean(x) - b.mean(x)).powi(2));
                let apart = squares.sum::<f64>() / self.probes.len() as f64;
                let ratio = (a.variance / b.variance).ln();
                let distance = apart / a.variance.min(b.variance) + ratio * ratio;
                if distance < NEAR {
                    found.push((distance, [i, j]));
                }
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut pairs: Vec<[usize; 2]> = Vec::new();
        for (_, pair) in found {
            if pairs.iter().flatten().all(|used| !pair.contains(used)) {
                pairs.push(pair);
            }
        }
        pairs
    }

    /// One origin for biases or gate intercepts, then one per gate slope.
    fn origins(&self) -> Vec<Origin> {
        let dimension = self.template.dimension();
        let mut origins: Vec<Origin> = (0..=dimension)
            .map(|_| Origin { others: Vec::new() })
            .collect();
        for (k, coordinate) in self.layout.coordinates().iter().enumerate() {
            match *coordinate {
                Coordinate::Bias(_) | Coordinate::GateIntercept(_) => origins[0].others.push(k),
                Coordinate::GateSlope(_, j) => origins[1 + j].others.push(k),
                _ => {}
            }
        }
        origins
    }

    fn pair(
        &self,
        [i, j]: [usize; 2],
        parameters: &Parameters,
        chart: &Chart,
        held: impl Fn(usize) -> bool,
    ) -> Pair {
        let position = |coordinate: Coordinate| {
            let mut known = self.layout.coordinates().iter();
            known.position(|c| *c == coordinate)
        };
        let free = |k: usize| match k.checked_sub(chart.size) {
            None => !held(k),
            Some(origin) => !chart.origins[origin].others.iter().any(|&k| held(k)),
        };
        let both = |of: &dyn Fn(usize) -> Coordinate, origin: usize| {
            let at = |expert: usize| position(of(expert)).unwrap_or(chart.size + origin);
            [at(i), at(j)]
        };
        let router = matches!(parameters.gate.kind, GateKind::Softmax);
        let weights = match router {
            true => both(&Coordinate::GateIntercept, 0),
            false => both(&Coordinate::Bias, 0),
        };
        let share = match weights.into_iter().all(&free) {
            true => Share::Moves,
            false => Share::Held,
        };
        let mut twins: Vec<[usize; 2]> = Vec::new();
        // The twins' place in the list, if both may move.
        let mut twin = |positions: Option<[usize; 2]>| {
            let positions = positions.filter(|p| p[0] != p[1] && p.iter().all(|&k| free(k)))?;
            twins.push(positions);
            Some(twins.len() - 1)
        };
        let own = |of: &dyn Fn(usize) -> Coordinate| Some([position(of(i))?, position(of(j))?]);
        twin(own(&Coordinate::Scale));
        let intercept = twin(own(&Coordinate::Intercept));
        let variance = twin(own(&Coordinate::LogVariance));
        let dimensions = 0..self.template.dimension();
        let slopes: Vec<_> = dimensions
            .map(|k| {
                let slope = twin(own(&|expert| Coordinate::Slope(expert, k)));
                let gate = router.then(|| both(&|expert| Coordinate::GateSlope(expert, k), 1 + k));
                (slope, twin(gate))
            })
            .collect();

        let mut exchanges = Vec::new();
        let expert = &parameters.experts[i];
        if let Some(mean) = intercept
            && expert.kind == ExpertKind::Linear
        {
            let spreads = [mean, mean];
            if let Some(variance) = variance {
                exchanges.push(Exchange {
                    spreads,
                    to: twins[variance],
                    factor: 1.0 / expert.variance,
                });
            }
            if let GateKind::Competition { .. } = parameters.gate.kind {
                let weight = parameters.gate.kind.log_weight(expert.intercept);
                exchanges.push(Exchange {
                    spreads,
                    to: twins[mean],
                    factor: weight.first,
                });
                if share == Share::Moves {
                    exchanges.push(Exchange {
                        spreads,
                        to: weights,
                        factor: 0.5 * (weight.second - weight.first * weight.first),
                    });
                }
            }
            for (slope, gate) in slopes {
                if let (Some(slope), Some(gate)) = (slope, gate) {
                    exchanges.push(Exchange {
                        spreads: [gate, mean],
                        to: twins[slope],
                        factor: 1.0,
                    });
                }
            }
        }
        exchanges.retain(|e| e.factor.is_finite());
        Pair {
            weights,
            share,
            twins,
            exchanges,
        }
    }
}

/// log(1 / (1 + e^-l))
fn log_share(l: f64) -> f64 {
    -(-l).exp().ln_1p()
}

/// The pair's share at one point, and how a straight step changes it.
struct SharedState {
    l: f64,
    p: f64,
    q: f64,
}

impl Pair {
    fn state(&self, extended: &[f64]) -> SharedState {
        let l = extended[self.weights[0]] - extended[self.weights[1]];
        let p = 1.0 / (1.0 + (-l).exp());
        SharedState { l, p, q: 1.0 - p }
    }

    /// The derivatives of the spread of twin k as (position, value).
    fn spread_gradient(&self, k: usize, at: &SharedState, extended: &[f64]) -> [(usize, f64); 4] {
        let [a, b] = self.twins[k];
        let root = (at.p * at.q).sqrt();
        let by_share = match self.share {
            Share::Moves => 0.5 * (at.q - at.p) * root * (extended[a] - extended[b]),
            Share::Held => 0.0,
        };
        let [i, j] = self.weights;
        [(a, root), (b, -root), (i, by_share), (j, -by_share)]
    }
}

impl Chart<'_> {
    /// True if curves are straight lines.
    pub fn is_straight(&self) -> bool {
        self.pairs.is_empty()
    }

    /// `values` and one entry per origin, 0.
    fn extended(&self, values: &[f64]) -> Vec<f64> {
        let mut extended = values.to_vec();
        extended.resize(self.size + self.origins.len(), 0.0);
        extended
    }

    /// B in l(curve(1)) = l + s'd + d'(H + B) d / 2 + ..., the score times the
    /// second derivatives of the curves. Shape: P, P.
    pub fn bend(&self, packed: &[f64], score: &Array1<f64>) -> Array2<f64> {
        let mut bend = Array2::zeros((self.size, self.size));
        if self.is_straight() {
            return bend;
        }
        let values = self.extended(packed);
        let mut scores = score.to_vec();
        // The likelihood does not feel a common translation.
        for origin in &self.origins {
            scores.push(-origin.others.iter().map(|&k| score[k]).sum::<f64>());
        }
        let mut add = |a: &[(usize, f64)], b: &[(usize, f64)], factor: f64| {
            for &(j, u) in a.iter().filter(|(j, _)| *j < self.size) {
                for &(k, v) in b.iter().filter(|(k, _)| *k < self.size) {
                    bend[[j, k]] += 0.5 * factor * u * v;
                    bend[[k, j]] += 0.5 * factor * u * v;
                }
            }
        };
        for pair in &self.pairs {
            let at = pair.state(&values);
            let [i, j] = pair.weights;
            if pair.share == Share::Moves {
                let share = [(i, 1.0), (j, -1.0)];
                let (down, up) = ((-0.5 * at.l).exp(), (0.5 * at.l).exp());
                let mut square = -at.p * at.q * (scores[i] + scores[j]);
                for (k, &[a, b]) in pair.twins.iter().enumerate() {
                    let spread = (at.p * at.q).sqrt() * (values[a] - values[b]);
                    square += 0.25 * spread * (scores[a] * down - scores[b] * up);
                    let cross = -(scores[a] * down + scores[b] * up);
                    add(&share, &pair.spread_gradient(k, &at, &values), cross);
                }
                add(&share, &share, square);
            }
            for exchange in &pair.exchanges {
                let [a, b] = exchange.to;
                let factor = -2.0 * exchange.factor * (scores[a] + scores[b]);
                let [first, second] = exchange
                    .spreads
                    .map(|k| pair.spread_gradient(k, &at, &values));
                add(&first, &second, factor);
            }
        }
        bend
    }

    /// The point at `time` of the curve that leaves `packed` in the direction
    /// `step` and ends at time 1; it may leave the box between bounds.
    pub fn curve(&self, packed: &[f64], step: &Array1<f64>, time: f64) -> Vec<f64> {
        let straight = packed.iter().zip(step).map(|(p, d)| p + time * d);
        let mut moved: Vec<f64> = straight.collect();
        if self.is_straight() {
            return moved;
        }
        let values = self.extended(packed);
        let steps = self.extended(&step.to_vec());
        moved = self.extended(&moved);
        for pair in &self.pairs {
            let at = pair.state(&values);
            let [i, j] = pair.weights;
            let change = |k: usize| -> f64 {
                let gradient = pair.spread_gradient(k, &at, &values);
                time * gradient.iter().map(|(j, v)| v * steps[*j]).sum::<f64>()
            };
            if pair.share == Share::Moves {
                let mass = at.p * steps[i] + at.q * steps[j];
                let turn = time * self.turn(pair, &at, &values, &steps, mass);
                let l = at.l + turn;
                moved[i] = values[i] + time * mass + log_share(l) - log_share(at.l);
                moved[j] = values[j] + time * mass + log_share(-l) - log_share(-at.l);
                for (k, &[a, b]) in pair.twins.iter().enumerate() {
                    let gap = values[a] - values[b];
                    let along = at.p * steps[a] + at.q * steps[b];
                    let share = at.p * at.q * (steps[i] - steps[j]);
                    let mean = at.p * values[a] + at.q * values[b] + time * (along + share * gap);
                    let spread = (at.p * at.q).sqrt() * gap + change(k);
                    moved[a] = mean + (-0.5 * l).exp() * spread;
                    moved[b] = mean - (0.5 * l).exp() * spread;
                }
            }
            for exchange in &pair.exchanges {
                let [first, second] = exchange.spreads;
                let taken = exchange.factor * change(first) * change(second);
                exchange.to.iter().for_each(|&k| moved[k] -= taken);
            }
        }
        for (origin, k) in self.origins.iter().zip(self.size..) {
            let shift = moved[k];
            origin
                .others
                .iter()
                .for_each(|&other| moved[other] -= shift);
        }
        moved.truncate(self.size);
        moved
    }

    /// The change of the share over a whole step: such that a weight that the
    /// straight step takes to a bound arrives there.
    fn turn(&self, pair: &Pair, at: &SharedState, values: &[f64], steps: &[f64], mass: f64) -> f64 {
        let arrival = |k: usize, l: f64| -> Option<f64> {
            let (low, high) = (*self.bounds.low.get(k)?, self.bounds.high[k]);
            let end = values[k] + steps[k];
            let bound = if end >= high {
                high
            } else if end <= low {
                low
            } else {
                return None;
            };
            let wanted = bound - values[k] - mass + log_share(l);
            (wanted < -1e-12).then(|| -(-wanted).exp_m1().ln() - l)
        };
        let [i, j] = pair.weights;
        arrival(i, at.l)
            .or_else(|| Some(-arrival(j, -at.l)?))
            .unwrap_or(steps[i] - steps[j])
    }

    /// Velocity and acceleration of the curve at `time`.
    pub fn motion(&self, packed: &[f64], step: &Array1<f64>, time: f64) -> Motion {
        if self.is_straight() {
            return Motion {
                velocity: step.clone(),
                acceleration: Array1::zeros(step.len()),
            };
        }
        let at = |time: f64| Array1::from(self.curve(packed, step, time));
        let (before, here, after) = (at(time - DIFFERENCE), at(time), at(time + DIFFERENCE));
        Motion {
            velocity: (&after - &before) / (2.0 * DIFFERENCE),
            acceleration: (&after + &before - 2.0 * &here) / (DIFFERENCE * DIFFERENCE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Backend, Cpu};
    use crate::model::{Model, draw_sample, read_model};
    use crate::rng::{Purpose, Stream};

    fn model(name: &str) -> Model {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        read_model(&folder.join(format!("sims/truths/{name}.toml"))).unwrap()
    }

    /// A point with a pair of near experts, a wide box, and a step.
    fn near(model: &Model, copies: &[usize]) -> (Parameters, Vec<f64>, Bounds, Array1<f64>) {
        let template = model.parameters.split(copies).unwrap();
        let mut packed = template.layout().pack(&template);
        let bounds = Bounds {
            low: packed.iter().map(|v| v - 5.0).collect(),
            high: packed.iter().map(|v| v + 5.0).collect(),
        };
        let wave = |j: usize, frequency: f64| (1.0 + frequency * j as f64).sin();
        for (j, value) in packed.iter_mut().enumerate() {
            *value += 0.05 * wave(j, 1.7);
        }
        let step = (0..packed.len()).map(|j| 0.1 * wave(j, 2.9)).collect();
        (template, packed, bounds, step)
    }

    #[test]
    fn the_bend_is_the_second_derivative_along_curves() {
        for name in ["s4-absolute", "s5-softmax", "s6-softplus"] {
            for copies in [[2, 1], [1, 2], [2, 2]] {
                let model = model(name);
                let (template, packed, bounds, step) = near(&model, &copies);
                let stream = Stream::named(1, "chart", 0, Purpose::Data);
                let data = draw_sample(&model, 0, 1000, &stream);
                let layout = template.layout();
                let here = Cpu::new().derivatives(&layout.unpack(&template, &packed), &data);
                let atlas = Atlas::new(&template, &layout, &bounds, &data);
                let chart = atlas.chart(&packed, &here.gradient);
                assert!(!chart.is_straight());
                let value = |time: f64| {
                    let moved = chart.curve(&packed, &step, time);
                    Cpu::new().log_likelihood(&layout.unpack(&template, &moved), &data)
                };
                let h = 1e-3;
                let slope = (value(h) - value(-h)) / (2.0 * h);
                let second = (value(h) - 2.0 * value(0.0) + value(-h)) / (h * h);
                let matrix = &here.hessian + &chart.bend(&packed, &here.gradient);
                let predicted = step.dot(&matrix.dot(&step));
                assert!((slope - here.gradient.dot(&step)).abs() < 1e-3 * (1.0 + slope.abs()));
                let error = (second - predicted).abs();
                assert!(
                    error < 1e-3 * (1.0 + second.abs()),
                    "{name} {copies:?}: {second} {predicted}"
                );
            }
        }
    }

    /// Along the share alone, mass, means and second moments of the pair stay.
    #[test]
    fn the_share_leaves_the_moments_alone() {
        let model = model("s5-softmax");
        let (template, packed, bounds, _) = near(&model, &[2, 1]);
        let layout = template.layout();
        let stream = Stream::named(1, "chart", 0, Purpose::Data);
        let data = draw_sample(&model, 0, 1000, &stream);
        let atlas = Atlas::new(&template, &layout, &bounds, &data);
        let chart = atlas.chart(&packed, &Array1::zeros(packed.len()));
        let [pair] = chart.pairs.as_slice() else {
            panic!("one pair");
        };
        // The velocity of the share: c, m and s rest.
        let at = pair.state(&packed);
        let mut step = Array1::zeros(packed.len());
        step[pair.weights[0]] = at.q;
        step[pair.weights[1]] = -at.p;
        for &[a, b] in &pair.twins {
            let s = (at.p * at.q).sqrt() * (packed[a] - packed[b]);
            step[a] = -0.5 * (-0.5 * at.l).exp() * s;
            step[b] = -0.5 * (0.5 * at.l).exp() * s;
        }
        let moved = chart.curve(&packed, &step, 0.7);
        let moments = |v: &[f64]| -> Vec<f64> {
            let [i, j] = pair.weights;
            let (wi, wj) = (v[i].exp(), v[j].exp());
            let mut found = vec![wi + wj];
            for &[a, b] in &pair.twins {
                found.push(wi * v[a] + wj * v[b]);
                for &[c, d] in &pair.twins {
                    found.push(wi * v[a] * v[c] + wj * v[b] * v[d]);
                }
            }
            found
        };
        assert!((moved[pair.weights[0]] - packed[pair.weights[0]]).abs() > 0.1);
        for (before, after) in moments(&packed).iter().zip(moments(&moved)) {
            assert!((before - after).abs() < 1e-12, "{before} {after}");
        }
    }

    #[test]
    fn a_weight_that_a_step_takes_to_a_bound_arrives_there() {
        let model = model("s6-softplus");
        let (template, packed, bounds, mut step) = near(&model, &[2, 1]);
        let layout = template.layout();
        let stream = Stream::named(1, "chart", 0, Purpose::Data);
        let data = draw_sample(&model, 0, 1000, &stream);
        let bias = layout.len() - 2;
        assert_eq!(layout.coordinates()[bias], Coordinate::Bias(0));
        step[bias] = bounds.low[bias] - packed[bias];
        let atlas = Atlas::new(&template, &layout, &bounds, &data);
        let chart = atlas.chart(&packed, &Array1::zeros(packed.len()));
        let moved = chart.curve(&packed, &step, 1.0);
        // But for what the exchanges take from both weights.
        let error = moved[bias] - bounds.low[bias];
        assert!(error.abs() < 0.02, "{error}");
    }

    #[test]
    fn distant_experts_are_on_a_straight_chart() {
        let model = model("s5-softmax");
        let parameters = &model.parameters;
        let layout = parameters.layout();
        let bounds = Bounds {
            low: vec![-9.0; layout.len()],
            high: vec![9.0; layout.len()],
        };
        let stream = Stream::named(1, "chart", 0, Purpose::Data);
        let data = draw_sample(&model, 0, 1000, &stream);
        let atlas = Atlas::new(parameters, &layout, &bounds, &data);
        let packed = layout.pack(parameters);
        let chart = atlas.chart(&packed, &Array1::zeros(packed.len()));
        assert!(chart.is_straight());
        let step = Array1::from_elem(packed.len(), 0.5);
        let moved = chart.curve(&packed, &step, 1.0);
        assert!(packed.iter().zip(&moved).all(|(a, b)| *b == a + 0.5));
    }
}
