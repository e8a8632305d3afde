//! One-dimensional integration of several functions at once.

/// An integral and a bound on its error, for M integrands that share nodes.
#[derive(Clone, Copy, Debug)]
pub struct Integral<const M: usize> {
    /// The integrals.
    pub value: [f64; M],
    /// Estimated absolute errors, pessimistic for smooth integrands.
    pub error: [f64; M],
}

/// Nodes of an interval: those below, pair by pair, the centre last.
const RULE: usize = 15;
const SIGN: [f64; 2] = [-1.0, 1.0];

// Nodes and weights of the 7-point Gauss and 15-point Kronrod rules on [-1, 1]
// (Kronrod 1965), non-negative half; odd entries are the Gauss nodes.
const NODES: [f64; 8] = [
    0.991_455_371_120_812_6,
    0.949_107_912_342_758_5,
    0.864_864_423_359_769_1,
    0.741_531_185_599_394_4,
    0.586_087_235_467_691_1,
    0.405_845_151_377_397_2,
    0.207_784_955_007_898_47,
    0.0,
];
const KRONROD: [f64; 8] = [
    0.022_935_322_010_529_224,
    0.063_092_092_629_978_55,
    0.104_790_010_322_250_18,
    0.140_653_259_715_525_92,
    0.169_004_726_639_267_9,
    0.190_350_578_064_785_4,
    0.204_432_940_075_298_9,
    0.209_482_141_084_727_82,
];
const GAUSS: [f64; 4] = [
    0.129_484_966_168_869_7,
    0.279_705_391_489_276_64,
    0.381_830_050_505_118_9,
    0.417_959_183_673_469_4,
];

/// Integrates `f` over the intervals between consecutive `breaks`, halving the
/// worst interval until every integrand's error estimate is at most
/// `relative_tolerance` times its integral, or `max_intervals` are in use.
///
/// The pair is Gauss-Kronrod 7-15; break points belong wherever an integrand
/// has a kink or a jump. `breaks` is ascending and has at least two entries.
pub fn integrate<const M: usize>(
    mut f: impl FnMut(f64) -> [f64; M],
    breaks: &[f64],
    relative_tolerance: f64,
    max_intervals: usize,
) -> Integral<M> {
    let mut integration = Integration::new(breaks, relative_tolerance, max_intervals);
    loop {
        if let Some(integral) = integration.result() {
            return integral;
        }
        let values: Vec<[f64; M]> = integration.wanted().iter().map(|&x| f(x)).collect();
        integration.supply(&values);
    }
}

/// [`integrate`], step by step, for integrands whose values come from elsewhere:
/// many integrations can then share one evaluation of many nodes.
#[derive(Clone, Debug)]
pub struct Integration<const M: usize> {
    relative_tolerance: f64,
    max_intervals: usize,
    pieces: Vec<Piece<M>>,
    /// Intervals without values yet.
    new: Vec<(f64, f64)>,
    /// Their nodes, 15 each.
    nodes: Vec<f64>,
    result: Option<Integral<M>>,
}

/// An interval and the integral over it.
#[derive(Clone, Copy, Debug)]
struct Piece<const M: usize> {
    low: f64,
    high: f64,
    integral: Integral<M>,
}

impl<const M: usize> Integration<M> {
    /// Arguments as those of [`integrate`].
    pub fn new(breaks: &[f64], relative_tolerance: f64, max_intervals: usize) -> Self {
        let mut integration = Integration {
            relative_tolerance,
            max_intervals,
            pieces: Vec::new(),
            new: Vec::new(),
            nodes: Vec::new(),
            result: None,
        };
        let ends = breaks.windows(2).map(|w| (w[0], w[1]));
        integration.begin(ends.filter(|(low, high)| high > low).collect());
        if integration.new.is_empty() {
            integration.supply(&[]);
        }
        integration
    }

    /// Where the integrands are needed next; nowhere once there is a result.
    pub fn wanted(&self) -> &[f64] {
        &self.nodes
    }

    /// The integrals, once they are precise enough.
    pub fn result(&self) -> Option<Integral<M>> {
        self.result
    }

    /// Takes the integrands' values at the wanted nodes, in their order.
    pub fn supply(&mut self, values: &[[f64; M]]) {
        assert_eq!(values.len(), self.nodes.len(), "one value per wanted node");
        let new = std::mem::take(&mut self.new);
        for (&(low, high), values) in new.iter().zip(values.as_chunks::<RULE>().0) {
            let integral = gauss_kronrod(values, low, high);
            self.pieces.push(Piece {
                low,
                high,
                integral,
            });
        }
        self.nodes.clear();
        let total = sum_of_pieces(&self.pieces);
        let target: [f64; M] = std::array::from_fn(|m| {
            self.relative_tolerance * total.value[m].abs() + f64::MIN_POSITIVE
        });
        let done = (0..M).all(|m| total.error[m] <= target[m]);
        if done || self.pieces.len() >= self.max_intervals {
            self.result = Some(total);
            return;
        }
        let badness = |piece: &Piece<M>| -> f64 {
            (0..M)
                .map(|m| piece.integral.error[m] / target[m])
                .fold(0.0, f64::max)
        };
        let worst = (0..self.pieces.len())
            .max_by(|&a, &b| badness(&self.pieces[a]).total_cmp(&badness(&self.pieces[b])))
            .expect("at least one interval");
        let Piece { low, high, .. } = self.pieces.swap_remove(worst);
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            self.result = Some(total);
            return;
        }
        self.begin(vec![(low, middle), (middle, high)]);
    }

    /// Asks for the values on new intervals.
    fn begin(&mut self, new: Vec<(f64, f64)>) {
        self.nodes.extend(new.iter().flat_map(|&(low, high)| {
            let (centre, half) = (0.5 * (low + high), 0.5 * (high - low));
            let node = move |k: usize| centre + half * SIGN[k % 2] * NODES[k / 2];
            (0..RULE).map(node)
        }));
        self.new = new;
    }
}

fn sum_of_pieces<const M: usize>(pieces: &[Piece<M>]) -> Integral<M> {
    let mut total = Integral {
        value: [0.0; M],
        error: [0.0; M],
    };
    for Piece { integral, .. } in pieces {
        for m in 0..M {
            total.value[m] += integral.value[m];
            total.error[m] += integral.error[m];
        }
    }
    total
}

/// One interval, from the values at its nodes. The error estimate is QUADPACK's:
/// |K - G| sharpened by the integrand's variation, with a floor at rounding
/// (Piessens et al. 1983).
fn gauss_kronrod<const M: usize>(values: &[[f64; M]; RULE], low: f64, high: f64) -> Integral<M> {
    let half = 0.5 * (high - low);
    let mut kronrod = [0.0; M];
    let mut gauss = [0.0; M];
    for (node, value) in values.iter().enumerate() {
        let k = node / 2;
        for m in 0..M {
            kronrod[m] += KRONROD[k] * value[m];
            if k % 2 == 1 {
                gauss[m] += GAUSS[k / 2] * value[m];
            }
        }
    }
    let weighted = || values.iter().enumerate().map(|(k, v)| (v, KRONROD[k / 2]));
    let error = std::array::from_fn(|m| {
        let mean = 0.5 * kronrod[m];
        let variation: f64 = weighted().map(|(v, w)| w * (v[m] - mean).abs()).sum();
        let size: f64 = weighted().map(|(v, w)| w * v[m].abs()).sum();
        let difference = (kronrod[m] - gauss[m]).abs();
        let sharpened = if variation > 0.0 && difference > 0.0 {
            variation * (200.0 * difference / variation).powf(1.5).min(1.0)
        } else {
            difference
        };
        half * sharpened.max(4.0 * f64::EPSILON * size)
    });
    Integral {
        value: kronrod.map(|v| half * v),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooth_integrands_reach_rounding_in_one_interval() {
        let result = integrate(|t| [t.exp(), t.powi(8)], &[0.0, 1.0], 1e-12, 50);
        assert!((result.value[0] - (1f64.exp() - 1.0)).abs() < 1e-15);
        assert!((result.value[1] - 1.0 / 9.0).abs() < 1e-16);
    }

    #[test]
    fn a_square_root_singularity_is_resolved_and_its_error_bounded() {
        let result = integrate(|t| [t.abs().sqrt()], &[-1.0, 0.3, 1.0], 1e-10, 400);
        let error = (result.value[0] - 4.0 / 3.0).abs();
        assert!(
            error < 2e-10 && error <= result.error[0],
            "{error:e} {result:?}"
        );
    }

    #[test]
    fn a_kink_at_a_break_costs_nothing() {
        let mut calls = 0;
        let result = integrate(
            |t: f64| {
                calls += 1;
                [t.abs()]
            },
            &[-1.0, 0.0, 2.0],
            1e-12,
            50,
        );
        assert!((result.value[0] - 2.5).abs() < 1e-15);
        assert_eq!(calls, 30);
    }
}
