//! Numbers as people read them: rounded to what their error supports.

/// `value` with fixed decimals and a true minus sign; a dash if not a number.
pub fn decimal(value: f64, decimals: usize) -> String {
    if value.is_nan() {
        return "–".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "−∞" }.to_string();
    }
    let digits = format!("{:.decimals$}", value.abs());
    let is_zero = digits.bytes().all(|b| matches!(b, b'0' | b'.'));
    if value < 0.0 && !is_zero {
        format!("−{digits}")
    } else {
        digits
    }
}

/// An interval with fixed decimals.
pub fn interval(ends: [f64; 2], decimals: usize) -> String {
    format!(
        "[{}, {}]",
        decimal(ends[0], decimals),
        decimal(ends[1], decimals)
    )
}

/// A stated number, such as a range in a study file: as short as it is exact.
pub fn stated(value: f64) -> String {
    if value.is_infinite() || value.is_nan() {
        return decimal(value, 0);
    }
    value.to_string().replace('-', "−")
}

/// A stated range.
pub fn stated_interval(ends: [f64; 2]) -> String {
    format!("[{}, {}]", stated(ends[0]), stated(ends[1]))
}

/// A mean and its standard error, the error with two significant digits and the
/// mean to the same place.
pub fn with_error(value: f64, error: f64) -> (String, String) {
    if !(error > 0.0 && error.is_finite()) {
        return (rounded(value, 4), "0".to_string());
    }
    let place = exponent(error) - 1;
    let size = exponent(value).max(place);
    if is_plain(size) {
        let decimals = (-place).max(0) as usize;
        return (decimal(value, decimals), decimal(error, decimals));
    }
    (
        scientific(value, size, (size - place) as usize),
        rounded(error, 2),
    )
}

/// `value` with this many significant digits.
pub fn rounded(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return decimal(value, 0);
    }
    let size = exponent(value);
    if is_plain(size) {
        decimal(value, (digits - 1 - size).max(0) as usize)
    } else {
        scientific(value, size, (digits - 1).max(0) as usize)
    }
}

/// A sample size, with at most four significant digits.
pub fn size(n: f64) -> String {
    if !n.is_finite() {
        return decimal(n, 0);
    }
    let unit = 10f64.powi((exponent(n.max(1.0)) - 3).max(0));
    let whole = (n / unit).round() * unit;
    if whole < 1e7 {
        thousands(whole as u64)
    } else {
        shortened(&rounded(n, 3))
    }
}

/// A rounded number without the zeros that end its decimals: "10¹²" for
/// "1.00×10¹²". For stated numbers, where zeros are no measured digits.
pub fn shortened(text: &str) -> String {
    let (mantissa, power) = match text.split_once('×') {
        Some((mantissa, power)) => (mantissa, format!("×{power}")),
        None => (text, String::new()),
    };
    let mantissa = match mantissa.contains('.') {
        true => mantissa.trim_end_matches('0').trim_end_matches('.'),
        false => mantissa,
    };
    match (mantissa, power.strip_prefix('×')) {
        ("1", Some(power)) => power.to_string(),
        _ => format!("{mantissa}{power}"),
    }
}

/// A count with thin spaces between groups of three digits, from 10 000 on.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut grouped = String::new();
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// A share as a percentage: "1.3 %".
pub fn percent(share: f64) -> String {
    if share.is_nan() {
        return decimal(share, 0);
    }
    let percentage = 100.0 * share;
    let decimals = if percentage == 0.0 || percentage >= 10.0 {
        0
    } else if percentage >= 1.0 {
        1
    } else {
        2
    };
    format!("{} %", decimal(percentage, decimals))
}

/// "1 fit", "2 fits".
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(count as u64))
}

fn exponent(value: f64) -> i32 {
    if value == 0.0 {
        i32::MIN / 2
    } else {
        value.abs().log10().floor() as i32
    }
}

/// Whether numbers of this power of ten are written without an exponent.
fn is_plain(size: i32) -> bool {
    (-5..=5).contains(&size)
}

fn scientific(value: f64, size: i32, decimals: usize) -> String {
    let superscript: String = size
        .to_string()
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            _ => char::from_u32('⁰' as u32 + c.to_digit(10).unwrap_or(0)).unwrap_or('⁰'),
        })
        .collect();
    let mantissa = decimal(value / 10f64.powi(size), decimals);
    format!("{mantissa}×10{superscript}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stated_numbers_end_without_zeros() {
        let texts = [
            ("1.00×10¹²", "10¹²"),
            ("2.50×10⁸", "2.5×10⁸"),
            ("0.00100", "0.001"),
            ("100", "100"),
        ];
        for (long, short) in texts {
            assert_eq!(shortened(long), short);
        }
    }

    #[test]
    fn a_mean_is_rounded_to_what_its_error_supports() {
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(with_error(0.031_234, 0.000_41), pair("0.03123", "0.00041"));
        assert_eq!(with_error(-1.5, 0.25), pair("−1.50", "0.25"));
        assert_eq!(
            with_error(1.2342e-6, 3.1e-8),
            pair("1.234×10⁻⁶", "3.1×10⁻⁸")
        );
        assert_eq!(with_error(2.0, 0.0), pair("2.000", "0"));
        assert_eq!(with_error(f64::NAN, f64::NAN).0, "–");
        assert_eq!(with_error(1234.0, 456.0), pair("1234", "456"));
    }

    #[test]
    fn sample_sizes_have_at_most_four_digits() {
        assert_eq!(size(1234.4), "1234");
        assert_eq!(size(123_456.0), "123\u{202f}500");
        assert_eq!(size(f64::INFINITY), "∞");
        assert_eq!(size(1.234e9), "1.23×10⁹");
    }
}
