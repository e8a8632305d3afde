//! Model files (TOML): the format is documented in `docs/studies.md`.

use super::gate::{Gate, GateKind, Response, Selection, Weights};
use super::parameters::{Expert, ExpertGate, Parameters, VarianceStructure};
use super::{ExpertKind, InputLaw};
use crate::error::{Error, Result, parse_toml, read_text};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A mixture together with the law of its input.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The law of X.
    pub input: InputLaw,
    /// p(y | x)
    pub parameters: Parameters,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFile {
    #[serde(default, skip_serializing_if = "is_default")]
    variance: VarianceStructure,
    input: InputLaw,
    gate: GateTable,
    expert: Vec<ExpertTable>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The `[gate]` table; all but the kind may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GateTable {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Response>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<Weights>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kappa: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selection: Option<Selection>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpertTable {
    kind: ExpertKind,
    slope: Vec<f64>,
    intercept: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    variance: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bias: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate_slope: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate_intercept: Option<f64>,
}

/// Reads and checks a model file.
///
/// # Errors
/// [`Error::File`] or [`Error::Input`] naming file, line and key.
pub fn read_model(path: &Path) -> Result<Model> {
    let text = read_text(path)?;
    let file: ModelFile = parse_toml(path, &text)?;
    Model::from_file(file).map_err(|e| e.located(path, &text))
}

impl Model {
    /// Checks that input law and parameters are sound and agree on d.
    ///
    /// # Errors
    /// [`Error::Value`] with the key of the model file.
    pub fn validate(&self) -> Result<()> {
        self.input.validate()?;
        self.parameters.validate()?;
        let (input, experts) = (self.input.dimension(), self.parameters.dimension());
        if input != experts {
            return Err(Error::value(
                "expert[0].slope",
                format!("must have {input} entries, the dimension of [input], got {experts}"),
            ));
        }
        Ok(())
    }

    fn from_file(file: ModelFile) -> Result<Self> {
        let gate = file.gate.into_gate()?;
        let experts = file
            .expert
            .into_iter()
            .enumerate()
            .map(|(i, table)| table.into_expert(i, gate.kind))
            .collect::<Result<Vec<_>>>()?;
        let model = Model {
            input: file.input,
            parameters: Parameters {
                gate,
                variance_structure: file.variance,
                experts,
            },
        };
        model.validate()?;
        Ok(model)
    }

    /// The model as the text of a model file.
    pub fn to_toml(&self) -> String {
        let parameters = &self.parameters;
        let file = ModelFile {
            variance: parameters.variance_structure,
            input: self.input.clone(),
            gate: GateTable::from_gate(&parameters.gate),
            expert: parameters.experts.iter().map(ExpertTable::from).collect(),
        };
        toml::to_string(&file).expect("a model has only finite numbers and plain tables")
    }
}

impl GateTable {
    fn into_gate(self) -> Result<Gate> {
        let competition = self.kind == "competition";
        let only_for_competition = [
            ("gate.response", self.response.is_some()),
            ("gate.weights", self.weights.is_some()),
            ("gate.kappa", self.kappa.is_some()),
        ];
        if let Some((key, _)) = only_for_competition
            .iter()
            .find(|(_, set)| *set && !competition)
        {
            return Err(Error::value(*key, "is for competition gates only"));
        }
        let kind = match self.kind.as_str() {
            "competition" => {
                let weights = self.weights.unwrap_or(Weights::Softmax);
                if weights == Weights::Normalised && self.kappa.is_some() {
                    return Err(Error::value("gate.kappa", "is for softmax weights only"));
                }
                GateKind::Competition {
                    response: self.response.ok_or_else(|| {
                        Error::value(
                            "gate.response",
                            "is missing: \"absolute\", \"softplus\" or \"square\"",
                        )
                    })?,
                    weights,
                    kappa: self.kappa.unwrap_or(1.0),
                }
            }
            "softmax" => GateKind::Softmax,
            "sigmoid" => GateKind::Sigmoid,
            "constant" => GateKind::Constant,
            other => {
                return Err(Error::value(
                    "gate.kind",
                    format!(
                        "must be \"competition\", \"softmax\", \"sigmoid\" or \"constant\", \
                         got \"{other}\""
                    ),
                ));
            }
        };
        if self.selection.is_some() && !kind.is_router() {
            return Err(Error::value("gate.selection", "is for routers only"));
        }
        Ok(Gate {
            kind,
            top_k: self.top_k,
            selection: self.selection.unwrap_or_default(),
        })
    }

    fn from_gate(gate: &Gate) -> Self {
        let mut table = GateTable {
            top_k: gate.top_k,
            ..GateTable::default()
        };
        table.kind = match gate.kind {
            GateKind::Competition {
                response,
                weights,
                kappa,
            } => {
                table.response = Some(response);
                table.weights = Some(weights);
                table.kappa = (kappa != 1.0).then_some(kappa);
                "competition"
            }
            GateKind::Softmax => "softmax",
            GateKind::Sigmoid => "sigmoid",
            GateKind::Constant => "constant",
        }
        .to_string();
        if gate.kind.is_router() && gate.selection != Selection::default() {
            table.selection = Some(gate.selection);
        }
        table
    }
}

impl ExpertTable {
    fn into_expert(self, index: usize, gate: GateKind) -> Result<Expert> {
        let key = |name: &str| format!("expert[{index}].{name}");
        let gate = if gate.is_router() {
            if self.bias.is_some() {
                return Err(Error::value(
                    key("bias"),
                    "is for competition and constant gates; a router has gate_intercept",
                ));
            }
            let missing = |name| Error::value(key(name), "is missing: the gate is a router");
            ExpertGate::Router {
                slope: self.gate_slope.ok_or_else(|| missing("gate_slope"))?,
                intercept: self
                    .gate_intercept
                    .ok_or_else(|| missing("gate_intercept"))?,
            }
        } else {
            let router_keys = [
                ("gate_slope", self.gate_slope.is_some()),
                ("gate_intercept", self.gate_intercept.is_some()),
            ];
            if let Some((name, _)) = router_keys.iter().find(|(_, set)| *set) {
                return Err(Error::value(key(name), "is for router gates only"));
            }
            match (self.bias, gate) {
                (Some(bias), _) => ExpertGate::Bias(bias),
                (None, GateKind::Constant) => {
                    return Err(Error::value(
                        key("bias"),
                        "is missing: the gate is constant",
                    ));
                }
                (None, _) => ExpertGate::None,
            }
        };
        Ok(Expert {
            kind: self.kind,
            slope: self.slope,
            intercept: self.intercept,
            scale: self.scale,
            variance: self.variance,
            gate,
        })
    }
}

impl From<&Expert> for ExpertTable {
    fn from(expert: &Expert) -> Self {
        let mut table = ExpertTable {
            kind: expert.kind,
            slope: expert.slope.clone(),
            intercept: expert.intercept,
            scale: expert.scale,
            variance: expert.variance,
            bias: None,
            gate_slope: None,
            gate_intercept: None,
        };
        match &expert.gate {
            ExpertGate::None => {}
            ExpertGate::Bias(bias) => table.bias = Some(*bias),
            ExpertGate::Router { slope, intercept } => {
                table.gate_slope = Some(slope.clone());
                table.gate_intercept = Some(*intercept);
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTPLUS: &str = r#"
[input]
law = "uniform"
low = [-1.0]
high = [1.0]
[gate]
kind = "competition"
response = "softplus"
weights = "softmax"
top_k = 2
[[expert]]
kind = "linear"
slope = [2.0]
intercept = 1.0
variance = 0.3
bias = 0.3
[[expert]]
kind = "tanh"
slope = [-1.5]
intercept = 0.5
scale = 2.0
variance = 0.4
bias = 0.0
"#;

    fn parse(text: &str) -> Result<Model> {
        let path = Path::new("m.toml");
        let file: ModelFile = parse_toml(path, text)?;
        Model::from_file(file).map_err(|e| e.located(path, text))
    }

    #[test]
    fn a_model_survives_writing_and_reading() {
        let model = parse(SOFTPLUS).unwrap();
        assert_eq!(parse(&model.to_toml()).unwrap(), model);
    }

    #[test]
    fn bad_models_name_line_and_key() {
        let cases = [
            (
                "variance = 0.4",
                "variance = -0.4",
                "m.toml:22: key `expert[1].variance`",
            ),
            ("top_k = 2", "top_k = 3", "m.toml:10: key `gate.top_k`"),
            ("slope = [2.0]", "slope = [2.0, 1.0]", "expert[1].slope"),
            (
                "kind = \"tanh\"",
                "kind = \"cosh\"",
                "m.toml:18: key `kind`: unknown variant",
            ),
            ("bias = 0.0\n", "", "expert[1].bias"),
            ("low =", "lo =", "unknown field"),
            ("intercept = 0.5", "intercept = nan", "expert[1].intercept"),
            ("high = [1.0]", "high = [-2.0]", "input.high"),
        ];
        for (from, to, expected) in cases {
            let message = parse(&SOFTPLUS.replacen(from, to, 1))
                .unwrap_err()
                .to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
