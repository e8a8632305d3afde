//! All programs of the engine, for the bench that looks at their machine code.

use super::ascent;
use super::divergence::{self, DIVERGENCE};
use super::limits::LIMITS;
use super::machine::nvrtc::{Nvrtc, Target};
use super::machine::program::{Precision, Program};
use super::passes::{self, Compilation};
use super::sample::SAMPLE;
use super::structure::Structure;
use crate::error::{Error, Result};
use crate::model::Parameters;

/// A program as it is compiled for one mixture.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct ListedProgram(Program);

/// All programs as they are compiled for the structure of `parameters`.
#[doc(hidden)]
pub fn programs(
    parameters: &Parameters,
    compilation: Compilation,
    precision: Precision,
) -> Vec<ListedProgram> {
    let structure = Structure::of(parameters);
    // Rows are drawn in f64.
    let rows = passes::constants(&structure, compilation, Precision::Double);
    let (experts, dimension) = (parameters.experts.len(), parameters.dimension());
    let pairs = divergence::constants(experts, dimension);
    let listed = [
        Program::new(&ascent::SOURCE, &[]),
        passes::program(parameters, compilation, precision),
        Program::new(&SAMPLE, &rows),
        Program::new(&DIVERGENCE, &pairs),
        Program::new(&LIMITS, &[]),
    ];
    listed.map(ListedProgram).to_vec()
}

impl ListedProgram {
    /// The kernel file.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Its kernels.
    pub fn kernels(&self) -> &'static [&'static str] {
        self.0.kernels
    }

    /// Names the program and `compiler`: any change of either changes it.
    pub fn key(&self, compiler: &str) -> String {
        self.0.key(compiler)
    }

    /// What NVRTC gets.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// PTX for compute capability 10 * major + minor, by the newest NVRTC there is.
    ///
    /// # Errors
    /// [`Error::Device`] if there is none, or what it says of the program.
    pub fn ptx(&self, capability: u32) -> Result<String> {
        let compile = || {
            let bytes = Nvrtc::open(i32::MAX)?.compile(&self.0, Target::Ptx(capability))?;
            let text = String::from_utf8_lossy(&bytes);
            Ok(text.trim_end_matches('\0').to_string())
        };
        compile().map_err(|message: String| Error::device("nvrtc", message))
    }
}
