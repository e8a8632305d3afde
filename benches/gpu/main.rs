//! What a GPU does, how exactly, and how fast beside the processor:
//! `cargo bench --bench gpu`.
//!
//! `-- --emulated` runs the same program at tiny sizes on the emulated device, whose
//! times mean nothing. Markdown goes to the terminal and to `target/gpu.md`, or where
//! `-- --out FILE` says. Exit code 1: a result is beyond its tolerance; 2: no GPU.

#[path = "../../tests/common/mod.rs"]
mod common;

mod correctness;
mod document;
mod fits;
mod operations;
mod passes;
mod scale;
mod single;

use document::{Document, Table, significant};
use scale::Scale;
use smoe_lab::backend::cuda::{Cuda, Emulation, Limits, Precision};
use smoe_lab::error::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// A device in every precision.
pub struct Devices {
    /// Rows in f64.
    pub double: Cuda,
    /// Rows in f32.
    pub single: Cuda,
    /// Rows in f32 on the way to a maximum.
    pub mixed: Cuda,
}

struct Arguments {
    emulated: bool,
    out: PathBuf,
}

impl Arguments {
    fn read() -> std::result::Result<Self, String> {
        let mut arguments = Arguments {
            emulated: false,
            out: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/gpu.md")),
        };
        let mut given = std::env::args().skip(1);
        while let Some(argument) = given.next() {
            match argument.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--emulated" => arguments.emulated = true,
                "--out" => arguments.out = given.next().ok_or("--out needs a file")?.into(),
                other => return Err(format!("unknown option {other}: --emulated, --out FILE")),
            }
        }
        Ok(arguments)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("gpu: {message}");
            return ExitCode::from(2);
        }
    };
    let devices = match open(arguments.emulated) {
        Ok(devices) => devices,
        Err(error) => {
            eprintln!("gpu: {error}; `-- --emulated` runs without one");
            return ExitCode::from(2);
        }
    };
    let mut document = Document::default();
    let exact = match run(&devices, arguments.emulated, &mut document) {
        Ok(exact) => exact,
        Err(error) => {
            eprintln!("gpu: {error}");
            return ExitCode::from(1);
        }
    };
    if let Err(error) = std::fs::write(&arguments.out, document.text()) {
        eprintln!("gpu: {}: {error}", arguments.out.display());
        return ExitCode::from(1);
    }
    match exact {
        true => ExitCode::SUCCESS,
        false => {
            eprintln!("gpu: FAILED: a result is beyond its tolerance");
            ExitCode::from(1)
        }
    }
}

fn open(emulated: bool) -> Result<Devices> {
    let open = |precision| match emulated {
        true => Cuda::emulated(Emulation {
            precision,
            ..Emulation::default()
        }),
        false => Ok(Cuda::open(0)?.with_precision(precision)),
    };
    Ok(Devices {
        double: open(Precision::Double)?,
        single: open(Precision::Single)?,
        mixed: open(Precision::Mixed)?,
    })
}

/// Everything in turn; false if a result is beyond its tolerance.
fn run(devices: &Devices, emulated: bool, document: &mut Document) -> Result<bool> {
    let scale = Scale::new(emulated);
    document.heading("A GPU beside the processor");
    if emulated {
        document.paragraph("Emulated: errors are real, times mean nothing.");
    }
    document.paragraph(&format!(
        "{}; {} threads of the processor; smoe-lab {}.",
        devices.double.details(),
        rayon::current_num_threads(),
        env!("CARGO_PKG_VERSION"),
    ));
    let limits = devices
        .double
        .limits(scale.blocks, scale.bytes, scale.seconds)?;
    write_limits(document, limits);
    let exact = correctness::run(devices, &scale, document)?;
    single::run(devices, &scale, document)?;
    passes::run(devices, &scale, limits, document)?;
    fits::run(devices, &scale, document)?;
    Ok(exact)
}

fn write_limits(document: &mut Document, limits: Limits) {
    document.heading("Limits");
    document.paragraph(
        "Rates per second of loops that do nothing else, the best of several: a + s b over arrays \
         larger than the caches, independent chains of multiply-adds and of exponentials.",
    );
    let mut table = Table::new(&[
        "10^9 bytes",
        "10^9 f64 multiply-adds",
        "10^9 f32 multiply-adds",
        "10^9 f64 exponentials",
    ]);
    let rates = [
        limits.bytes,
        limits.multiply_adds,
        limits.single_multiply_adds,
        limits.exponentials,
    ];
    table.row(rates.map(|rate| significant(rate / 1e9)));
    document.table(table);
}
