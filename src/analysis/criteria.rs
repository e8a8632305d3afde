//! Information criteria: likelihood against size. Smaller is better everywhere.

use super::responsibility::{entropy, responsibilities};
use super::{Attainment, Design, Optimum};
use crate::model::Coordinate;
use std::fmt;

/// Criteria of one optimum, l its log-likelihood in raw units of y.
#[derive(Clone, Debug, PartialEq)]
pub struct Criteria {
    /// P: coordinates whose bounds differ; those held at a value do not count.
    pub parameters: usize,
    /// n
    pub rows: f64,
    /// l
    pub log_likelihood: f64,
    /// -sum over rows and experts of r log r, r the responsibilities.
    pub entropy: f64,
    /// 2 P - 2 l (Akaike 1974)
    pub aic: f64,
    /// P log n - 2 l (Schwarz 1978)
    pub bic: f64,
    /// BIC + 2 entropy: the integrated completed likelihood of Biernacki, Celeux and
    /// Govaert (2000), times -2, with the labels averaged over the responsibilities
    /// (McLachlan and Peel 2000, chapter 6). With each row's likeliest label
    /// instead, 2 entropy becomes -2 sum log max r, which is at most that.
    pub icl: f64,
    /// What to bear in mind.
    pub remark: Option<Remark>,
}

/// Why criteria of an optimum are to be read with care.
#[derive(Clone, Debug, PartialEq)]
pub enum Remark {
    /// The gate runs away along these coordinates: l is a supremum, the limit is a step
    /// whose place is all the data tell, and P counts every coordinate.
    GateRunsAway(Vec<Coordinate>),
    /// These coordinates sit on the boundary of the parameter set; P counts them.
    OnBound(Vec<Coordinate>),
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Remark::GateRunsAway(coordinates) => write!(
                f,
                "the gate runs away ({}): the log-likelihood is a supremum that is not \
                 attained, and the theory behind the criteria does not cover this model",
                list(coordinates)
            ),
            Remark::OnBound(coordinates) => write!(
                f,
                "on the boundary of the parameter set ({}): they count as parameters",
                list(coordinates)
            ),
        }
    }
}

fn list(coordinates: &[Coordinate]) -> String {
    let names: Vec<String> = coordinates.iter().map(Coordinate::to_string).collect();
    names.join(", ")
}

/// The criteria of an optimum of `design`.
pub fn criteria(design: &Design, optimum: &Optimum) -> Criteria {
    let data = &design.data;
    let parameters = optimum.bounds.dimension();
    let (p, n) = (parameters as f64, data.sample_size());
    let entropy = entropy(&responsibilities(&optimum.parameters, data), data);
    let deviance = -2.0 * optimum.log_likelihood;
    let bic = p * n.ln() + deviance;
    Criteria {
        parameters,
        rows: n,
        log_likelihood: optimum.log_likelihood,
        entropy,
        aic: 2.0 * p + deviance,
        bic,
        icl: bic + 2.0 * entropy,
        remark: match &optimum.attainment {
            Attainment::Interior => None,
            Attainment::NotAttained(which) => Some(Remark::GateRunsAway(which.clone())),
            Attainment::OnBound(which) => Some(Remark::OnBound(which.clone())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Specification;
    use crate::analysis::example::{design, line, softmax};
    use crate::backend::{Backend, Cpu};
    use crate::fit::Stop;
    use ndarray::{Array1, Array2};

    fn example() -> (Design, Optimum) {
        let inputs = Array2::from_shape_fn((40, 1), |(i, _)| (i as f64 - 19.5) / 11.5);
        let responses = Array1::from_shape_fn(40, |i| if i % 3 == 0 { 1.0 } else { -0.5 });
        let mut design = design(inputs, responses, 10.0, 4.0);
        design.gate.features.clear();
        let parameters = softmax(vec![
            line(0.1, 1.0, 0.2, [0.0, -0.7]),
            line(-0.1, -0.5, 0.3, [0.0, 0.0]),
        ]);
        let bounds = Specification::default().bounds(&design, &parameters, 1.0);
        let standardised = Cpu::new().log_likelihood(&parameters, &design.data);
        let optimum = Optimum {
            log_likelihood: standardised - 40.0 * 4f64.ln(),
            parameters,
            hits: vec![1],
            stop: Stop::Converged,
            attainment: Attainment::Interior,
            bounds,
            effective_rows: vec![13.0, 27.0],
            spurious: None,
        };
        (design, optimum)
    }

    #[test]
    fn criteria_follow_their_formulas_and_leave_out_what_is_held() {
        let (design, optimum) = example();
        let criteria = criteria(&design, &optimum);
        // Two lines, two variances, one gate intercept; the gate's slope is held.
        assert_eq!(criteria.parameters, 7);
        let l = optimum.log_likelihood;
        assert!((criteria.aic - (14.0 - 2.0 * l)).abs() < 1e-12);
        assert!((criteria.bic - (7.0 * 40f64.ln() - 2.0 * l)).abs() < 1e-12);
        assert!(criteria.entropy > 0.0);
        assert_eq!(criteria.icl, criteria.bic + 2.0 * criteria.entropy);
        assert_eq!(criteria.remark, None);
    }

    #[test]
    fn icl_is_bic_minus_twice_the_expected_log_likelihood_of_the_labels() {
        let (design, optimum) = example();
        let mut completed = 0.0;
        for i in 0..design.data.len() {
            let (x, y) = design.data.row(i);
            let law = optimum.parameters.conditional(&x);
            for k in 0..2 {
                let r = (law.log_term(k, y) - law.log_density(y)).exp();
                completed += r * (law.log_term(k, y) - 4f64.ln());
            }
        }
        let by_labels = 7.0 * 40f64.ln() - 2.0 * completed;
        assert!((criteria(&design, &optimum).icl - by_labels).abs() < 1e-9);
    }

    #[test]
    fn a_gate_that_runs_away_counts_its_parameters_and_says_so() {
        let (design, mut optimum) = example();
        optimum.attainment = Attainment::NotAttained(vec![Coordinate::GateSlope(0, 0)]);
        let criteria = criteria(&design, &optimum);
        assert_eq!(criteria.parameters, 7);
        let remark = criteria.remark.unwrap().to_string();
        assert!(remark.contains("gate_slope[0][0]") && remark.contains("not attained"));
    }
}
