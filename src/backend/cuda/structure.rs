//! What a kernel must know of a mixture.
//!
//! A [`Structure`] says what kind of mixture it is, the *table* holds its numbers:
//!
//! ```text
//! expert i, at i * (2 d + 6):
//!   slope (d) | intercept | scale | variance | log variance
//!   | gate slope (d) | gate intercept, or bias | kind
//! ```
//!
//! `mixture.cuh` reads both. Gate parameters that an expert does not have are 0; the
//! scale of one without an output weight is 1.

use super::machine::Address;
use crate::model::{
    Expert, ExpertGate, ExpertKind, GateKind, Parameters, Response, Selection, Weights,
};
use bytemuck::{Pod, Zeroable};

/// Twin of `Structure` in `mixture.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct Structure {
    /// Factor of the response inside a softmax.
    pub kappa: f64,
    pub experts: i32,
    /// Input dimension d.
    pub dimension: i32,
    /// Code of the gate: [`gate_code`].
    pub gate: i32,
    /// Experts that are kept.
    pub top_k: i32,
    /// 1 if a router selects by its slope alone.
    pub by_slope: i32,
    padding: i32,
}

/// Most experts of a program that is not compiled for one structure.
pub(super) const GENERIC_EXPERTS: usize = 16;
/// Its largest input dimension.
pub(super) const GENERIC_DIMENSION: usize = 8;

impl Structure {
    pub fn of(parameters: &Parameters) -> Self {
        let gate = &parameters.gate;
        Structure {
            kappa: match gate.kind {
                GateKind::Competition { kappa, .. } => kappa,
                _ => 1.0,
            },
            experts: parameters.experts.len() as i32,
            dimension: parameters.dimension() as i32,
            gate: gate_code(gate.kind),
            top_k: parameters.active_experts() as i32,
            by_slope: i32::from(gate.selection == Selection::Slope),
            padding: 0,
        }
    }

    /// Entries of one expert in the table.
    pub fn stride(&self) -> usize {
        2 * self.dimension as usize + 6
    }

    /// Entries of the whole table.
    pub fn table_length(&self) -> usize {
        self.experts as usize * self.stride()
    }

    /// Constants of a program for this structure alone: what loops run over is then
    /// known to the compiler.
    pub fn constants(&self) -> Vec<(&'static str, String)> {
        vec![
            ("SMOE_EXPERTS", self.experts.to_string()),
            ("SMOE_DIMENSION", self.dimension.to_string()),
            ("SMOE_GATE", self.gate.to_string()),
            ("SMOE_TOP_K", self.top_k.to_string()),
        ]
    }

    /// Constants of a program for all structures of moderate size, if this is one.
    pub fn generic_constants(&self) -> Option<Vec<(&'static str, String)>> {
        let fits = self.experts as usize <= GENERIC_EXPERTS
            && self.dimension as usize <= GENERIC_DIMENSION;
        fits.then(|| {
            vec![
                ("SMOE_MOST_EXPERTS", GENERIC_EXPERTS.to_string()),
                ("SMOE_MOST_DIMENSION", GENERIC_DIMENSION.to_string()),
            ]
        })
    }
}

/// As `GATE_...` in `mixture.cuh`.
fn gate_code(kind: GateKind) -> i32 {
    match kind {
        GateKind::Softmax => 0,
        GateKind::Sigmoid => 1,
        GateKind::Constant => 2,
        GateKind::Competition {
            response, weights, ..
        } => {
            let response = match response {
                Response::Absolute => 0,
                Response::Softplus => 1,
                Response::Square => 2,
            };
            3 + 2 * response + i32::from(weights == Weights::Normalised)
        }
    }
}

/// As `EXPERT_...` in `mixture.cuh`.
fn kind_code(kind: ExpertKind) -> f64 {
    match kind {
        ExpertKind::Linear => 0.0,
        ExpertKind::Tanh => 1.0,
        ExpertKind::Sigmoid => 2.0,
        ExpertKind::Relu => 3.0,
        ExpertKind::Gelu => 4.0,
    }
}

/// The table of `parameters`.
pub(super) fn table(parameters: &Parameters) -> Vec<f64> {
    let entries = |expert: &Expert| {
        let d = expert.slope.len();
        let mut entries = expert.slope.clone();
        entries.push(expert.intercept);
        entries.push(expert.scale.unwrap_or(1.0));
        entries.push(expert.variance);
        entries.push(expert.variance.ln());
        match &expert.gate {
            ExpertGate::Router { slope, intercept } => {
                entries.extend(slope);
                entries.push(*intercept);
            }
            _ => {
                entries.extend(vec![0.0; d]);
                entries.push(expert.bias());
            }
        }
        entries.push(kind_code(expert.kind));
        entries
    };
    parameters.experts.iter().flat_map(entries).collect()
}

/// Twin of `Rows` in `mixture.cuh`: the samples of many replicates.
///
/// Sample s begins at `values + s * (d + 1 or 2) * capacity`: input 0 of all rows,
/// input 1, ..., the responses, then, if there are counts, those.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct Rows {
    pub values: Address,
    /// Rows that each column has.
    pub capacity: u64,
    /// 1 if rows have counts.
    pub counted: i32,
    pub dimension: i32,
}
