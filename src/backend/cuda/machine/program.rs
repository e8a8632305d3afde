//! The kernels' source text, and what it is compiled for.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::str::FromStr;

/// Number type of what is computed row by row. Sums over tiles of rows are always f64,
/// and so are samples and divergences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f64: agrees with the processor to rounding.
    #[default]
    Double,
    /// f32: faster, most of all where a device has few f64 units; error in
    /// `docs/gpu.md`. No fit can be certified so.
    Single,
    /// f32 on the way to a maximum, f64 for its certificate. Passes outside climbs are
    /// f64.
    Mixed,
}

impl FromStr for Precision {
    type Err = Error;

    /// # Errors
    /// [`Error::Value`] for a text that is not `double`, `single` or `mixed`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "double" => Ok(Precision::Double),
            "single" => Ok(Precision::Single),
            "mixed" => Ok(Precision::Mixed),
            _ => {
                let message = format!("expected double, single or mixed, got `{text}`");
                Err(Error::value("precision", message))
            }
        }
    }
}

/// One file of kernels with the constants it is compiled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend::cuda) struct Program {
    /// Short name, for messages and for files in the cache.
    pub name: &'static str,
    /// Everything to compile, but for what the emulator puts before it.
    pub source: String,
    /// Names of the kernels.
    pub kernels: &'static [&'static str],
    /// Hash of the source, so that it is taken once.
    digest: [u8; 32],
}

/// A file of kernels and the headers it needs, in order.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cuda) struct Source {
    /// Short name.
    pub name: &'static str,
    /// Names and texts of the headers, then of the file itself.
    pub parts: &'static [(&'static str, &'static str)],
    /// Names of the kernels.
    pub kernels: &'static [&'static str],
}

/// First part of a file that computes in f64 whatever the precision of rows.
pub(in crate::backend::cuda) const IN_DOUBLE: (&str, &str) = ("double", "#undef SMOE_REAL");

impl Program {
    /// `source` with `constants` defined as macros.
    pub fn new(source: &Source, constants: &[(&str, String)]) -> Self {
        let mut text = String::new();
        for (name, value) in constants {
            text.push_str(&format!("#define {name} {value}\n"));
        }
        for (name, part) in source.parts {
            text.push_str(&format!("#line 1 \"{name}\"\n{part}\n"));
        }
        Program {
            name: source.name,
            digest: Sha256::digest(&text).into(),
            source: text,
            kernels: source.kernels,
        }
    }

    /// Tells programs apart within a process.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Names this program and a compiler's options in the cache: any change of
    /// either changes it.
    pub fn key(&self, compiler: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(compiler.as_bytes());
        hash.update([0]);
        hash.update(self.digest);
        let digest = hash.finalize();
        let head: String = digest.iter().take(10).map(|b| format!("{b:02x}")).collect();
        format!("{}-{head}", self.name)
    }
}

/// The first errors of a compiler's log, in one line.
pub(in crate::backend::cuda) fn first_errors(log: &str) -> String {
    let mut errors: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("error"))
        .take(3)
        .collect();
    if errors.is_empty() {
        errors = log
            .lines()
            .filter(|l| !l.trim().is_empty())
            .take(3)
            .collect();
    }
    errors.join("; ")
}
