//! Which device a user asks for.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The device that does the work: `auto`, `cpu`, `cuda`, `cuda:1` or `emulated`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The first GPU if one can be used, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The GPU with this ordinal, from 0, as CUDA counts them.
    Cuda(usize),
    /// The GPU's kernels on the processor: slow, for tests.
    Emulated,
}

impl FromStr for DeviceChoice {
    type Err = Error;

    /// # Errors
    /// [`Error::Value`] for any other text.
    fn from_str(text: &str) -> Result<Self> {
        let ordinal = |text: &str| text.strip_prefix("cuda:")?.parse().ok();
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            "emulated" => Ok(DeviceChoice::Emulated),
            _ => ordinal(text).map(DeviceChoice::Cuda).ok_or_else(|| {
                let known = "auto, cpu, cuda, cuda:1 (or another number) or emulated";
                Error::value("device", format!("expected {known}, got `{text}`"))
            }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            DeviceChoice::Emulated => f.write_str("emulated"),
        }
    }
}

/// A GPU of this computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceDescription {
    /// As CUDA counts, from 0.
    pub ordinal: usize,
    /// The product.
    pub name: String,
    /// Compute capability: major, minor.
    pub capability: (u32, u32),
    /// Bytes in all.
    pub memory: usize,
}

impl fmt::Display for DeviceDescription {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (major, minor) = self.capability;
        let gigabytes = self.memory as f64 / 1e9;
        write!(
            f,
            "cuda:{}: {}, compute capability {major}.{minor}, {gigabytes:.1} GB",
            self.ordinal, self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_read_back_from_its_text() {
        let choices = [
            DeviceChoice::Auto,
            DeviceChoice::Cpu,
            DeviceChoice::Cuda(0),
            DeviceChoice::Cuda(12),
            DeviceChoice::Emulated,
        ];
        for choice in choices {
            assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
        }
        assert_eq!(
            "cuda".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(0)
        );
    }

    #[test]
    fn any_other_text_is_answered_with_what_is_known() {
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            let message = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.starts_with("device: expected auto, cpu, cuda, cuda:1"));
            assert!(message.ends_with(&format!("got `{text}`")), "{message}");
        }
    }
}
