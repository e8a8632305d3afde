//! How fast a loss falls with n, with honest intervals.
//!
//! The slope is that of a weighted least-squares line through
//! (log n, log statistic of the loss), weights 1/SE^2; for the mean
//! SE(log mean) = s / (mean sqrt R).
//! Its 95 % interval is a bootstrap over replicates, studentised by the line's
//! own standard error (Hall 1992, section 3.3), which stays near its nominal
//! coverage at small R; the `calibration` study measures that.

use super::statistic::Statistic;
use crate::num::sum::quantile;
use crate::rng::Stream;
use rand::RngExt;

/// Fewer losses than this at a sample size say nothing about its error.
const FEWEST: usize = 10;
/// Bootstrap resamples behind an interval.
const RESAMPLES: usize = 1999;

/// The losses of the successful replicates at one sample size.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Sample size.
    pub n: f64,
    /// Losses, in replicate order.
    pub losses: Vec<f64>,
}

/// A straight line in log-log coordinates: log mean = intercept + slope log n.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Slope.
    pub slope: f64,
    /// Value at log n = 0.
    pub intercept: f64,
    /// Standard error of the slope, from the weights.
    pub slope_error: f64,
}

/// A fitted rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The line.
    pub line: Line,
    /// 95 % interval of the slope.
    pub interval: [f64; 2],
}

/// A sample size with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleSize {
    /// n at which the line reaches the accuracy.
    pub n: f64,
    /// Its 95 % bootstrap interval.
    pub interval: [f64; 2],
}

/// The rate of a statistic of the loss; `None` with fewer than two usable sample
/// sizes.
pub fn rate(samples: &[Sample], statistic: Statistic, stream: &Stream) -> Option<Rate> {
    let line = fitted_line(samples, statistic)?;
    let mut ratios: Vec<f64> = resampled_lines(samples, statistic, stream)
        .into_iter()
        .filter(|l| l.slope_error > 0.0)
        .map(|l| (l.slope - line.slope) / l.slope_error)
        .collect();
    if ratios.is_empty() {
        return None;
    }
    ratios.sort_by(f64::total_cmp);
    let bound = |p: f64| line.slope - quantile(&ratios, p) * line.slope_error;
    Some(Rate {
        line,
        interval: [bound(0.975), bound(0.025)],
    })
}

/// The sample size at which the mean loss falls to `accuracy`; the interval is
/// the percentile bootstrap's. Infinite where a line does not fall.
pub fn sample_size(samples: &[Sample], accuracy: f64, stream: &Stream) -> Option<SampleSize> {
    let needed = |line: &Line| {
        if line.slope < 0.0 {
            ((accuracy.ln() - line.intercept) / line.slope).exp()
        } else {
            f64::INFINITY
        }
    };
    let line = fitted_line(samples, Statistic::Mean)?;
    let mut sizes: Vec<f64> = resampled_lines(samples, Statistic::Mean, stream)
        .iter()
        .map(needed)
        .collect();
    if sizes.is_empty() {
        return None;
    }
    sizes.sort_by(f64::total_cmp);
    Some(SampleSize {
        n: needed(&line),
        interval: [quantile(&sizes, 0.025), quantile(&sizes, 0.975)],
    })
}

/// The slope that the same regression finds for a curve without noise.
pub fn local_slope(
    samples: &[Sample],
    statistic: Statistic,
    curve: impl Fn(f64) -> f64,
) -> Option<f64> {
    let points: Vec<(f64, f64, f64)> = samples
        .iter()
        .filter_map(|s| point(s.n, &s.losses, statistic))
        .map(|(log_n, _, weight)| (log_n, curve(log_n.exp()).ln(), weight))
        .collect();
    weighted_line(&points).map(|line| line.slope)
}

fn fitted_line(samples: &[Sample], statistic: Statistic) -> Option<Line> {
    let points: Vec<_> = samples
        .iter()
        .filter_map(|s| point(s.n, &s.losses, statistic))
        .collect();
    weighted_line(&points)
}

/// (log n, log statistic, 1 / SE^2); `None` where the logarithm or its error is
/// undefined.
fn point(n: f64, losses: &[f64], statistic: Statistic) -> Option<(f64, f64, f64)> {
    if losses.len() < FEWEST {
        return None;
    }
    let found = statistic.log_value(losses)?;
    Some((n.ln(), found.value, 1.0 / (found.error * found.error)))
}

/// Slope of y on x, all points alike; `None` for fewer than two.
pub(super) fn unweighted_slope(points: &[(f64, f64)]) -> Option<f64> {
    let weighted: Vec<_> = points.iter().map(|(x, y)| (*x, *y, 1.0)).collect();
    weighted_line(&weighted).map(|line| line.slope)
}

fn weighted_line(points: &[(f64, f64, f64)]) -> Option<Line> {
    if points.len() < 2 {
        return None;
    }
    let total: f64 = points.iter().map(|p| p.2).sum();
    let mean =
        |f: fn(&(f64, f64, f64)) -> f64| points.iter().map(|p| p.2 * f(p)).sum::<f64>() / total;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| p.2 * (p.0 - x) * (p.0 - x)).sum();
    let slope = points
        .iter()
        .map(|p| p.2 * (p.0 - x) * (p.1 - y))
        .sum::<f64>()
        / spread;
    Some(Line {
        slope,
        intercept: y - slope * x,
        slope_error: 1.0 / spread.sqrt(),
    })
}

/// Lines through resamples of the replicates, drawn within each sample size.
fn resampled_lines(samples: &[Sample], statistic: Statistic, stream: &Stream) -> Vec<Line> {
    let mut rng = stream.generator();
    let mut buffer = Vec::new();
    let mut points = Vec::with_capacity(samples.len());
    (0..RESAMPLES)
        .filter_map(|_| {
            points.clear();
            for sample in samples.iter().filter(|s| !s.losses.is_empty()) {
                buffer.clear();
                let count = sample.losses.len();
                buffer.extend((0..count).map(|_| sample.losses[rng.random_range(0..count)]));
                points.extend(point(sample.n, &buffer, statistic));
            }
            weighted_line(&points)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn stream(k: u64) -> Stream {
        Stream::named(k, "rate", 0, Purpose::Bootstrap)
    }

    /// Half-normal losses with mean proportional to n^slope.
    fn samples(slope: f64, replicates: u64, seed: u64) -> Vec<Sample> {
        [100.0, 1000.0, 10_000.0f64]
            .into_iter()
            .enumerate()
            .map(|(k, n)| {
                let draws = Stream::named(seed, &format!("n={n}"), k as u64, Purpose::Data);
                let losses = (0..replicates)
                    .map(|r| n.powf(slope) * draws.standard_normal(r, 0).abs())
                    .collect();
                Sample { n, losses }
            })
            .collect()
    }

    #[test]
    fn a_line_without_noise_is_found_exactly() {
        let exact: Vec<Sample> = [10.0, 100.0, 1000.0f64]
            .iter()
            .map(|&n| Sample {
                n,
                losses: [0.9, 1.1]
                    .repeat(5)
                    .iter()
                    .map(|v| v * n.powf(-0.5))
                    .collect(),
            })
            .collect();
        let rate = rate(&exact, Statistic::Mean, &stream(0)).unwrap();
        assert!((rate.line.slope + 0.5).abs() < 1e-12);
        assert!(rate.line.intercept.abs() < 1e-12);
        let size = sample_size(&exact, 0.02, &stream(0)).unwrap();
        assert!((size.n - 2500.0).abs() < 1e-6, "{size:?}");
    }

    /// 400 independent intervals at nominal coverage 0.95: a false failure needs
    /// 4.89 binomial standard errors (rate 1e-6); coverage below 0.87 is caught
    /// with the same certainty.
    #[test]
    fn the_interval_covers_a_known_slope_at_its_nominal_rate() {
        let covered = (0..400)
            .filter(|&k| {
                let rate = rate(&samples(-0.5, 60, 1000 + k), Statistic::Mean, &stream(k)).unwrap();
                rate.interval[0] <= -0.5 && -0.5 <= rate.interval[1]
            })
            .count();
        let deviation = (400.0 * 0.95 * 0.05f64).sqrt();
        assert!(
            (covered as f64 - 380.0).abs() < 4.89 * deviation,
            "covered {covered} of 400"
        );
    }

    #[test]
    fn the_local_slope_of_the_log_corrected_curve_is_below_a_half() {
        let slope = local_slope(&samples(-0.5, 50, 3), Statistic::Mean, |n| {
            (n.ln() / n).sqrt()
        })
        .unwrap();
        assert!(-0.45 < slope && slope < -0.42, "{slope}");
    }

    #[test]
    fn too_few_usable_sizes_give_no_rate() {
        let one = vec![Sample {
            n: 10.0,
            losses: [1.0, 2.0].repeat(5),
        }];
        assert!(rate(&one, Statistic::Mean, &stream(0)).is_none());
        let flat = vec![
            Sample {
                n: 10.0,
                losses: vec![],
            },
            Sample {
                n: 20.0,
                losses: vec![0.0; 20],
            },
        ];
        assert!(rate(&flat, Statistic::Mean, &stream(0)).is_none());
    }
}
