//! Cells of the parameter set on which every row keeps its selection.
//!
//! On one input the rows, in the order of x, fall into segments of one selection
//! T. A row keeps it as long as every kept expert i scores above every dropped
//! expert j, which is affine in the parameters:
//!
//! ```text
//! router, increasing response    score_i(x) - score_j(x) >= 0
//! even response (|t|, t^2 / 2)   sign_i m_i(x) - m_j(x) >= 0  and  sign_i m_i(x) + m_j(x) >= 0
//! ```
//!
//! with sign_i the sign of the kept mean. The differences are affine in x as
//! well, so a segment obeys if its two end rows do, and the cell is a polyhedron
//! with a few faces for each segment, whatever n is.

use super::program::HalfSpace;
use crate::model::{
    Coordinate, Data, ExpertKind, Gate, GateKind, Layout, Parameters, Response, Selection,
};
use ndarray::Array1;
use std::ops::Range;

/// A boundary keeps this share of the distance between two observations away from
/// both: the supremum over a cell may lie on its open end, and this is how close
/// a fit goes.
const INSET: f64 = 1e-8;
/// But at least this share of the largest |x|, so that rounding moves no row
/// across; observations closer than a few of these are not separated.
const RESOLUTION: f64 = 1e-12;

/// The rows in the order of their one input.
pub(super) struct Line {
    /// Shape: n.
    order: Vec<usize>,
    /// In ascending order. Shape: n.
    x: Vec<f64>,
    resolution: f64,
}

impl Line {
    pub(super) fn new(data: &Data) -> Self {
        let column = data.column(0);
        let mut order: Vec<usize> = (0..data.len()).collect();
        order.sort_by(|&a, &b| column[a].total_cmp(&column[b]));
        let x: Vec<f64> = order.iter().map(|&row| column[row]).collect();
        let largest = x.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        Line {
            order,
            x,
            resolution: RESOLUTION * largest.max(f64::MIN_POSITIVE),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The row of the data at a place in the order.
    pub(super) fn row(&self, place: usize) -> usize {
        self.order[place]
    }

    /// True if a boundary fits between the places `end - 1` and `end`.
    pub(super) fn separates(&self, end: usize) -> bool {
        end == 0 || end == self.len() || self.x[end] - self.x[end - 1] > 4.0 * self.resolution
    }

    /// How far a boundary stays from the observations at `end - 1` and `end`.
    fn inset(&self, end: usize) -> f64 {
        match end == 0 || end == self.len() {
            true => self.resolution,
            false => (INSET * (self.x[end] - self.x[end - 1])).max(self.resolution),
        }
    }
}

/// What is kept along a segment.
///
/// Marks of equal kept experts with different signs are different regimes of one
/// density.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Regime {
    /// T as marks. Shape: N.
    pub(super) kept: Vec<bool>,
    /// True for a kept expert whose mean is positive, where the response is even;
    /// else false. Shape: N.
    positive: Vec<bool>,
}

impl Regime {
    fn at(parameters: &Parameters, x: f64) -> Self {
        let means: Vec<f64> = parameters.experts.iter().map(|e| e.mean(&[x])).collect();
        let kept = parameters.selection(&[x], &means);
        let even = has_even_response(&parameters.gate);
        let positive = kept.iter().zip(&means);
        Regime {
            positive: positive.map(|(&k, &m)| even && k && m > 0.0).collect(),
            kept,
        }
    }

    /// The regimes with one kept expert exchanged for a dropped one: those on the
    /// other side of one face.
    pub(super) fn exchanges(&self, gate: &Gate) -> Vec<Regime> {
        let count = self.kept.len();
        let pairs = (0..count).flat_map(|i| (0..count).map(move |j| (i, j)));
        let signs: &[bool] = match has_even_response(gate) {
            true => &[false, true],
            false => &[false],
        };
        pairs
            .filter(|&(i, j)| self.kept[i] && !self.kept[j])
            .flat_map(|(i, j)| signs.iter().map(move |&sign| (i, j, sign)))
            .map(|(i, j, sign)| {
                let mut other = self.clone();
                (other.kept[i], other.positive[i]) = (false, false);
                (other.kept[j], other.positive[j]) = (true, sign);
                other
            })
            .collect()
    }
}

/// A run of neighbouring rows under one regime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) regime: Regime,
    /// The place after the last row.
    pub(super) end: usize,
}

/// Which segment every row belongs to; at least one segment, none empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) segments: Vec<Segment>,
}

/// True if the likelihood may jump between cells that are polyhedra over one input:
/// top-K, and selection by a router's score or by linear experts' means. There a fit
/// needs the search along boundaries.
pub fn has_jumps(parameters: &Parameters) -> bool {
    let experts = &parameters.experts;
    let affine = match parameters.gate.kind {
        GateKind::Competition { .. } => experts.iter().all(|e| e.is_linear()),
        // A ReLU has kinks inside the cells.
        GateKind::Softmax | GateKind::Sigmoid => experts.iter().all(|e| e.kind != ExpertKind::Relu),
        // Its selection does not depend on the input: there is no boundary.
        GateKind::Constant => false,
    };
    parameters.is_sparse() && affine && parameters.dimension() == 1
}

fn has_even_response(gate: &Gate) -> bool {
    matches!(
        gate.kind,
        GateKind::Competition {
            response: Response::Absolute | Response::Square,
            ..
        }
    )
}

impl Cell {
    /// The cell of `parameters`.
    pub(super) fn at(parameters: &Parameters, line: &Line) -> Self {
        let mut segments: Vec<Segment> = Vec::new();
        for (place, &x) in line.x.iter().enumerate() {
            let regime = Regime::at(parameters, x);
            match segments.last_mut() {
                Some(last) if last.regime == regime => last.end = place + 1,
                _ => segments.push(Segment {
                    regime,
                    end: place + 1,
                }),
            }
        }
        Cell { segments }
    }

    /// True if `parameters` lie in the cell and not only where scores tie at every
    /// input, which no face excludes: by the end rows of the segments.
    pub(super) fn holds(&self, parameters: &Parameters, line: &Line) -> bool {
        let mut start = 0;
        self.segments.iter().all(|Segment { regime, end }| {
            let ends = [start, end - 1];
            start = *end;
            let obeys = |place: usize| Regime::at(parameters, line.x[place]) == *regime;
            ends.into_iter().all(obeys)
        })
    }

    /// The places at which segments end: 0, every boundary, n.
    pub(super) fn ends(&self) -> Vec<usize> {
        let inner = self.segments.iter().map(|segment| segment.end);
        std::iter::once(0).chain(inner).collect()
    }

    /// The regime of the row at a place.
    pub(super) fn regime(&self, place: usize) -> &Regime {
        let segment = self.segments.iter().find(|segment| place < segment.end);
        &segment.expect("the place of a row").regime
    }

    /// The cell with the rows at some places under another regime.
    pub(super) fn with_rows(&self, places: Range<usize>, regime: &Regime) -> Self {
        let mut segments: Vec<Segment> = Vec::new();
        let mut push = |regime: &Regime, end: usize| match segments.last_mut() {
            Some(last) if last.end >= end => {}
            Some(last) if last.regime == *regime => last.end = end,
            _ if end == 0 => {}
            _ => segments.push(Segment {
                regime: regime.clone(),
                end,
            }),
        };
        for segment in &self.segments {
            push(&segment.regime, segment.end.min(places.start));
        }
        push(regime, places.end);
        for segment in &self.segments {
            if segment.end > places.end {
                push(&segment.regime, segment.end);
            }
        }
        Cell { segments }
    }

    /// The faces, as half-spaces of packed parameters.
    pub(super) fn faces(
        &self,
        parameters: &Parameters,
        layout: &Layout,
        line: &Line,
    ) -> Vec<HalfSpace> {
        let even = has_even_response(&parameters.gate);
        let score = |i: usize, x: f64| score_form(parameters, layout, i, x);
        let mut faces = Vec::new();
        let mut start = 0;
        for Segment { regime, end } in &self.segments {
            // Ties lie at least an inset beyond the end rows.
            let left = line.x[start] - line.inset(start);
            let right = line.x[end - 1] + line.inset(*end);
            start = *end;
            let marks = regime.kept.iter().enumerate();
            let kept = marks.clone().filter(|(_, kept)| **kept).map(|(i, _)| i);
            for i in kept {
                let dropped = marks.clone().filter(|(_, kept)| !**kept).map(|(j, _)| j);
                for (j, x) in dropped.flat_map(|j| [(j, left), (j, right)]) {
                    let (own, other) = (score(i, x), score(j, x));
                    let normals = match (even, regime.positive[i]) {
                        (false, _) => vec![own - other],
                        (true, true) => vec![&own - &other, own + other],
                        (true, false) => vec![-&own - &other, other - own],
                    };
                    faces.extend(normals.into_iter().map(HalfSpace::through_origin));
                }
            }
        }
        faces
    }
}

/// The score by which expert i is selected at x, as a linear form of the packed
/// parameters.
fn score_form(parameters: &Parameters, layout: &Layout, i: usize, x: f64) -> Array1<f64> {
    let mut form = Array1::zeros(layout.len());
    let by_router = parameters.gate.kind.is_router();
    let with_intercept = !by_router || parameters.gate.selection == Selection::Score;
    let (slope, intercept) = match by_router {
        true => (Coordinate::GateSlope(i, 0), Coordinate::GateIntercept(i)),
        false => (Coordinate::Slope(i, 0), Coordinate::Intercept(i)),
    };
    for (j, coordinate) in layout.coordinates().iter().enumerate() {
        if *coordinate == slope {
            form[j] = x;
        } else if *coordinate == intercept && with_intercept {
            form[j] = 1.0;
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regime(kept: [bool; 2]) -> Regime {
        Regime {
            kept: kept.to_vec(),
            positive: vec![false; 2],
        }
    }

    fn cell(segments: &[([bool; 2], usize)]) -> Cell {
        let segments = segments.iter().map(|&(kept, end)| Segment {
            regime: regime(kept),
            end,
        });
        Cell {
            segments: segments.collect(),
        }
    }

    const A: [bool; 2] = [true, false];
    const B: [bool; 2] = [false, true];

    #[test]
    fn a_boundary_moves_by_giving_its_rows_the_other_regime() {
        let before = cell(&[(A, 4), (B, 10)]);
        assert_eq!(before.with_rows(4..6, &regime(A)), cell(&[(A, 6), (B, 10)]));
        assert_eq!(before.with_rows(2..4, &regime(B)), cell(&[(A, 2), (B, 10)]));
        assert_eq!(before.ends(), vec![0, 4, 10]);
        assert_eq!(*before.regime(4), regime(B));
    }

    #[test]
    fn segments_appear_merge_and_vanish() {
        let before = cell(&[(A, 4), (B, 5), (A, 10)]);
        assert_eq!(before.with_rows(4..5, &regime(A)), cell(&[(A, 10)]));
        assert_eq!(
            before.with_rows(0..2, &regime(B)),
            cell(&[(B, 2), (A, 4), (B, 5), (A, 10)])
        );
        assert_eq!(
            before.with_rows(9..10, &regime(B)),
            cell(&[(A, 4), (B, 5), (A, 9), (B, 10)])
        );
        assert_eq!(before.with_rows(0..10, &regime(B)), cell(&[(B, 10)]));
    }
}
