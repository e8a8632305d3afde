//! Where ticks stand and what they say.

use super::axis::Scale;

/// How much a tick is stressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TickKind {
    /// Labelled, with a grid line.
    Major,
    /// Not labelled, with a paler grid line.
    Minor,
}

/// One tick of an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) label: String,
    pub(super) kind: TickKind,
}

/// The ticks within `range`, with at most about `target` labels.
pub(super) fn ticks(scale: Scale, range: (f64, f64), target: usize) -> Vec<Tick> {
    let target = target.max(2);
    match scale {
        Scale::Linear => linear_ticks(range, target, 0.0),
        Scale::Whole => linear_ticks(range, target, 1.0),
        Scale::Log10 => log_ticks(range, target),
    }
}

/// Ticks at round numbers; with `least` = 1 at whole ones only, with 0 at any.
fn linear_ticks((low, high): (f64, f64), target: usize, least: f64) -> Vec<Tick> {
    let raw_step = ((high - low) / target as f64).max(least);
    let exponent = raw_step.log10().floor() as i32;
    let unit = 10f64.powi(exponent);
    let (mantissa, extra_digits) = [(1.0, 0), (2.0, 0), (2.5, 1), (5.0, 0), (10.0, -1)]
        .into_iter()
        .find(|&(mantissa, _)| {
            let step: f64 = mantissa * unit;
            step >= raw_step * (1.0 - 1e-9) && (least == 0.0 || step.fract() == 0.0)
        })
        .unwrap_or((10.0, -1));
    let step = mantissa * unit;
    let decimals = extra_digits - exponent;
    let largest = low.abs().max(high.abs());
    let slack = 1e-9;
    let first = (low / step - slack).ceil();
    let count = ((high / step + slack).floor() - first).clamp(-1.0, 100.0) as i64 + 1;
    (0..count)
        .map(|i| (first + i as f64) * step)
        .map(|value| Tick {
            value,
            label: if (1e-4..1e6).contains(&largest) && decimals <= 6 {
                decimal(value, decimals.max(0) as usize)
            } else {
                scientific(value, largest, decimals)
            },
            kind: TickKind::Major,
        })
        .collect()
}

/// `value` with fixed decimals and a true minus sign.
fn decimal(value: f64, decimals: usize) -> String {
    let digits = format!("{:.decimals$}", value.abs());
    let is_zero = digits.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    if value < 0.0 && !is_zero {
        format!("\u{2212}{digits}")
    } else {
        digits
    }
}

/// `value` as a multiple of the power of ten of the `largest` on its axis.
fn scientific(value: f64, largest: f64, decimals: i32) -> String {
    let exponent = largest.log10().floor() as i32;
    let mantissa = decimal(
        value / 10f64.powi(exponent),
        (decimals + exponent).clamp(0, 12) as usize,
    );
    if value == 0.0 {
        "0".to_string()
    } else {
        format!("{mantissa}×{}", power_of_ten(exponent))
    }
}

/// `10` with a superscript exponent.
fn power_of_ten(exponent: i32) -> String {
    let superscript = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        _ => char::from_u32('⁰' as u32 + c.to_digit(10).unwrap_or(0)).unwrap_or('⁰'),
    };
    let exponent: String = exponent.to_string().chars().map(superscript).collect();
    format!("10{exponent}")
}

/// Multiples of powers of ten, `(multiple, exponent)`, within the range.
fn log_values((low, high): (f64, f64), multiples: &[u8], step: i32) -> Vec<(u8, i32)> {
    let first = low.log10().floor() as i32;
    let last = high.log10().floor() as i32;
    let slack = 1e-9;
    (first..=last)
        .filter(|exponent| exponent.rem_euclid(step) == 0)
        .flat_map(|exponent| multiples.iter().map(move |&multiple| (multiple, exponent)))
        .filter(|&pair| {
            let value = log_value(pair);
            value >= low * (1.0 - slack) && value <= high * (1.0 + slack)
        })
        .collect()
}

fn log_value((multiple, exponent): (u8, i32)) -> f64 {
    f64::from(multiple) * 10f64.powi(exponent)
}

fn log_ticks(range: (f64, f64), target: usize) -> Vec<Tick> {
    const ALL: [u8; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    const CHOICES: [&[u8]; 5] = [&[1, 2, 5], &[1, 3], &[1, 2, 3, 5], &[1, 2, 4, 6, 8], &ALL];
    let decades = log_values(range, &[1], 1);
    let fits = |values: &Vec<(u8, i32)>| (3..=target.max(3)).contains(&values.len());
    let labelled = if decades.len() >= 3 {
        (1..)
            .map(|step| log_values(range, &[1], step))
            .find(|values| values.len() <= target)
            .unwrap_or(decades)
    } else if let Some(values) = CHOICES
        .into_iter()
        .map(|multiples| log_values(range, multiples, 1))
        .find(fits)
    {
        values
    } else if range.1 < 5.0 * range.0 {
        return linear_ticks(range, target, 0.0);
    } else {
        log_values(range, &[1, 2, 5], 1)
    };
    let plain = labelled.iter().all(|&(multiple, exponent)| match multiple {
        1 if labelled.iter().all(|&(m, _)| m == 1) => (-3..=3).contains(&exponent),
        _ => (-4..=5).contains(&exponent),
    });
    let label = |(multiple, exponent): (u8, i32)| {
        if plain {
            decimal(log_value((multiple, exponent)), (-exponent).max(0) as usize)
        } else if multiple == 1 {
            power_of_ten(exponent)
        } else {
            format!("{multiple}×{}", power_of_ten(exponent))
        }
    };
    let is_wide = (range.1 / range.0).log10() > 8.0;
    let minor: &[u8] = if is_wide { &[1] } else { &ALL };
    log_values(range, minor, 1)
        .into_iter()
        .map(|pair| {
            let is_labelled = labelled.contains(&pair);
            Tick {
                value: log_value(pair),
                label: if is_labelled {
                    label(pair)
                } else {
                    String::new()
                },
                kind: if is_labelled {
                    TickKind::Major
                } else {
                    TickKind::Minor
                },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, low: f64, high: f64, target: usize) -> Vec<String> {
        ticks(scale, (low, high), target)
            .into_iter()
            .filter(|tick| tick.kind == TickKind::Major)
            .map(|tick| tick.label)
            .collect()
    }

    #[test]
    fn ticks_of_counts_are_whole_numbers_however_few_there_are() {
        assert_eq!(labels(Scale::Whole, -0.15, 3.15, 8), ["0", "1", "2", "3"]);
        assert_eq!(labels(Scale::Whole, 0.9, 1.1, 8), ["1"]);
        assert_eq!(
            labels(Scale::Whole, 0.0, 31.0, 8),
            ["0", "5", "10", "15", "20", "25", "30"]
        );
        assert_eq!(labels(Scale::Whole, 0.0, 19.0, 8), ["0", "5", "10", "15"]);
    }

    #[test]
    fn linear_ticks_are_round_numbers_with_equal_decimals() {
        assert_eq!(
            labels(Scale::Linear, -0.05, 1.05, 6),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(
            labels(Scale::Linear, -11.0, 11.0, 5),
            ["\u{2212}10", "\u{2212}5", "0", "5", "10"]
        );
    }

    #[test]
    fn large_and_small_linear_values_are_labelled_with_a_power_of_ten() {
        assert_eq!(
            labels(Scale::Linear, 0.0, 3e6, 3),
            ["0", "1×10⁶", "2×10⁶", "3×10⁶"]
        );
        assert_eq!(
            labels(Scale::Linear, 0.0, 2e-7, 2),
            ["0", "1×10⁻⁷", "2×10⁻⁷"]
        );
    }

    #[test]
    fn logarithmic_ticks_over_three_decades_are_powers_of_ten() {
        assert_eq!(
            labels(Scale::Log10, 250.0, 126_000.0, 7),
            ["10³", "10⁴", "10⁵"]
        );
        assert_eq!(labels(Scale::Log10, 0.005, 2.0, 7), ["0.01", "0.1", "1"]);
    }

    #[test]
    fn logarithmic_ticks_over_few_decades_are_plain_numbers_between_them() {
        assert_eq!(
            labels(Scale::Log10, 0.0025, 0.06, 7),
            ["0.005", "0.01", "0.02", "0.05"]
        );
        assert_eq!(
            labels(Scale::Log10, 1.02, 1.09, 4),
            ["1.02", "1.04", "1.06", "1.08"]
        );
    }

    #[test]
    fn a_logarithmic_axis_without_a_power_of_ten_still_has_labels() {
        assert_eq!(
            labels(Scale::Log10, 0.014, 0.092, 5),
            ["0.02", "0.03", "0.05"]
        );
        assert_eq!(
            labels(Scale::Log10, 0.052, 0.26, 8),
            ["0.06", "0.08", "0.1", "0.2"]
        );
        for low in 1..100 {
            for ratio in 2..1000 {
                let low = 1e-3 * f64::from(low);
                let high = low * f64::from(ratio).sqrt();
                for target in [4, 5, 7] {
                    assert!(labels(Scale::Log10, low, high, target).len() > 1);
                }
            }
        }
    }

    #[test]
    fn many_decades_are_thinned_to_the_target() {
        let labels = labels(Scale::Log10, 1e-40, 1e40, 6);
        assert!((2..=6).contains(&labels.len()), "{labels:?}");
        assert!(labels.contains(&"10⁰".to_string()));
    }

    #[test]
    fn minor_ticks_have_no_label() {
        let ticks = ticks(Scale::Log10, (1.0, 1000.0), 7);
        assert_eq!(ticks.len(), 28);
        assert!(
            ticks
                .iter()
                .all(|tick| tick.label.is_empty() == (tick.kind == TickKind::Minor))
        );
    }
}
