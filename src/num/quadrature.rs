//! One-dimensional integration of several functions at once.

/// An integral and a bound on its error, for M integrands that share nodes.
#[derive(Clone, Copy, Debug)]
pub struct Integral<const M: usize> {
    /// The integrals.
    pub value: [f64; M],
    /// Estimated absolute errors, pessimistic for smooth integrands.
    pub error: [f64; M],
}

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
    let mut pieces: Vec<(f64, f64, Integral<M>)> = breaks
        .windows(2)
        .filter(|w| w[1] > w[0])
        .map(|w| (w[0], w[1], gauss_kronrod(&mut f, w[0], w[1])))
        .collect();
    loop {
        let total = sum_of_pieces(&pieces);
        let target: [f64; M] =
            std::array::from_fn(|m| relative_tolerance * total.value[m].abs() + f64::MIN_POSITIVE);
        let done = (0..M).all(|m| total.error[m] <= target[m]);
        if done || pieces.len() >= max_intervals {
            return total;
        }
        let badness = |piece: &Integral<M>| -> f64 {
            (0..M)
                .map(|m| piece.error[m] / target[m])
                .fold(0.0, f64::max)
        };
        let worst = (0..pieces.len())
            .max_by(|&a, &b| badness(&pieces[a].2).total_cmp(&badness(&pieces[b].2)))
            .expect("at least one interval");
        let (low, high, _) = pieces.swap_remove(worst);
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return total;
        }
        pieces.push((low, middle, gauss_kronrod(&mut f, low, middle)));
        pieces.push((middle, high, gauss_kronrod(&mut f, middle, high)));
    }
}

fn sum_of_pieces<const M: usize>(pieces: &[(f64, f64, Integral<M>)]) -> Integral<M> {
    let mut total = Integral {
        value: [0.0; M],
        error: [0.0; M],
    };
    for (_, _, piece) in pieces {
        for m in 0..M {
            total.value[m] += piece.value[m];
            total.error[m] += piece.error[m];
        }
    }
    total
}

/// One interval. The error estimate is QUADPACK's: |K - G| sharpened by the
/// integrand's variation, with a floor at rounding (Piessens et al. 1983).
fn gauss_kronrod<const M: usize>(
    f: &mut impl FnMut(f64) -> [f64; M],
    low: f64,
    high: f64,
) -> Integral<M> {
    let (centre, half) = (0.5 * (low + high), 0.5 * (high - low));
    let mut kronrod = [0.0; M];
    let mut gauss = [0.0; M];
    let mut samples = [([0.0; M], 0.0); 15];
    for (k, &node) in NODES.iter().enumerate() {
        let sides: &[f64] = if node == 0.0 { &[0.0] } else { &[-1.0, 1.0] };
        for (side, &sign) in sides.iter().enumerate() {
            let value = f(centre + half * sign * node);
            samples[2 * k + side] = (value, KRONROD[k]);
            for m in 0..M {
                kronrod[m] += KRONROD[k] * value[m];
                if k % 2 == 1 {
                    gauss[m] += GAUSS[k / 2] * value[m];
                }
            }
        }
    }
    let error = std::array::from_fn(|m| {
        let mean = 0.5 * kronrod[m];
        let variation: f64 = samples.iter().map(|(v, w)| w * (v[m] - mean).abs()).sum();
        let size: f64 = samples.iter().map(|(v, w)| w * v[m].abs()).sum();
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
