//! What a user sees of GPUs: which there are, what is missing, what a driver that
//! refuses leads to.
//!
//! There is no GPU where tests run. The driver and NVRTC that stand in for NVIDIA's
//! (`tests/stand_in`) run kernels on the processor: that shows that the calls made are
//! those of the driver's contract, not what a GPU does with them. The loader finds them
//! only when a process starts, so such a test starts itself again.

#![cfg(feature = "cuda")]

mod common;

use common::{dense, mixture};
use ndarray::{Array1, Array2};
use smoe_lab::backend::Backend;
use smoe_lab::backend::cuda::{Compilation, Cuda, DeviceChoice, Emulation, Opened, devices, open};
use smoe_lab::error::Error;
use smoe_lab::model::{Data, ExpertKind, GateKind, Parameters, VarianceStructure};
use smoe_lab::rng::{Purpose, Stream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Set in a process that has the stand-in: where its files are.
const FOLDER: &str = "STAND_IN_FOLDER";

/// A folder with the stand-in's two libraries, compiled once.
fn stand_in() -> &'static Path {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in");
        let libraries = [
            ("driver.cpp", "libcuda.so"),
            ("nvrtc.cpp", "libnvrtc.so.13"),
        ];
        for (source, library) in libraries {
            let status = Command::new("g++")
                .args(["-std=c++17", "-O1", "-fPIC", "-shared", "-o"])
                .arg(folder.path().join(library))
                .arg(sources.join(source))
                .arg("-ldl")
                .status();
            assert!(status.expect("g++ is installed").success(), "{source}");
        }
        folder
    });
    folder.path()
}

/// True in a process that has the stand-in with these settings; elsewhere runs the
/// test of this name in one.
fn with_stand_in(test: &str, settings: &[(&str, &str)]) -> bool {
    if std::env::var_os(FOLDER).is_some() {
        return true;
    }
    let header: PathBuf = [
        env!("CARGO_MANIFEST_DIR"),
        "src/backend/cuda/machine/emulation.h",
    ]
    .iter()
    .collect();
    let scratch = tempfile::tempdir().unwrap();
    let others = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::iter::once(stand_in().to_path_buf()).chain(std::env::split_paths(&others));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap())
        .env(FOLDER, scratch.path())
        .env("STAND_IN_HEADER", header)
        // What stands in for machine code must not be kept for a real GPU.
        .env("SMOE_LAB_CACHE", scratch.path().join("cache"))
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{output:?}");
    assert!(report.contains("1 passed"), "no such test: {report}");
    false
}

/// The message, which is one line.
fn line<T>(result: Result<T, Error>) -> String {
    let message = result.err().expect("an error").to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

fn model() -> Parameters {
    let noise = [0.7, -0.4, 1.1, -0.9, 0.3, -1.2, 0.5, 0.8, -0.6];
    let structure = VarianceStructure::PerExpert;
    mixture(
        dense(GateKind::Softmax),
        ExpertKind::Tanh,
        3,
        2,
        structure,
        &noise,
    )
}

fn data() -> Data {
    let stream = Stream::named(1, "devices", 0, Purpose::Data);
    let draw = |i: usize, j: usize| stream.standard_normal(i as u64, j as u64);
    let inputs = Array2::from_shape_fn((5000, 2), |(i, j)| draw(i, j));
    Data::new(inputs, Array1::from_shape_fn(5000, |i| draw(i, 2))).unwrap()
}

fn emulated() -> Cuda {
    Cuda::emulated(Emulation {
        compilation: Compilation::Specialised,
        ..Emulation::default()
    })
    .unwrap()
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    match devices() {
        Err(error) => {
            let message = line::<()>(Err(error));
            assert!(message.contains("NVIDIA's driver"), "{message}");
            let message = line(Cuda::open(3));
            assert!(message.starts_with("device cuda:3: "), "{message}");
            assert!(message.contains("NVIDIA's driver"), "{message}");
            let chosen = open(DeviceChoice::Auto).unwrap();
            assert!(matches!(
                chosen,
                Opened::Processor(Some(Error::Device { .. }))
            ));
        }
        Ok(found) => assert!(line(Cuda::open(found.len())).contains("GPU")),
    }
    assert!(matches!(
        open(DeviceChoice::Cpu),
        Ok(Opened::Processor(None))
    ));
}

#[test]
fn a_driver_that_is_too_old_says_which_is_needed() {
    let settings = [("STAND_IN_VERSION", "11080")];
    if with_stand_in("a_driver_that_is_too_old_says_which_is_needed", &settings) {
        let message = line(Cuda::open(0));
        assert!(
            message.contains("supports CUDA 11.8, needed is 12.0"),
            "{message}"
        );
        assert!(line(devices()).contains("needed is 12.0"));
    }
}

#[test]
fn a_gpu_that_is_not_there_or_too_old_is_an_error() {
    let name = "a_gpu_that_is_not_there_or_too_old_is_an_error";
    let settings = [("STAND_IN_COUNT", "2"), ("STAND_IN_CAPABILITY", "61")];
    if with_stand_in(name, &settings) {
        let found = devices().unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].capability, (6, 1));
        let text = "cuda:1: Stand-in GPU, compute capability 6.1, 1.1 GB";
        assert_eq!(found[1].to_string(), text);
        let message = line(Cuda::open(2));
        assert!(message.contains("only cuda:0 to cuda:1"), "{message}");
        let message = line(Cuda::open(1));
        assert!(
            message.contains("compute capability 6.1, needed is 7.0"),
            "{message}"
        );
    }
}

#[test]
fn a_driver_without_a_gpu_is_an_error() {
    let settings = [("STAND_IN_COUNT", "0")];
    if with_stand_in("a_driver_without_a_gpu_is_an_error", &settings) {
        assert_eq!(devices().unwrap(), []);
        assert!(line(Cuda::open(0)).contains("finds no GPU"));
    }
}

/// Every pass through the driver, next to the emulated device: the same kernels on the
/// same processor, so the same bits.
fn passes_agree() {
    let (cuda, emulated) = (Cuda::open(0).unwrap(), emulated());
    assert_eq!(cuda.description(), "cuda:0 (Stand-in GPU)");
    let (model, data) = (model(), data());
    let values = [&cuda, &emulated].map(|device| device.log_likelihood(&model, &data));
    assert!(cuda.failure().is_none(), "{:?}", cuda.failure());
    assert!(values[0].is_finite());
    assert_eq!(values[0], values[1]);
    assert_eq!(
        cuda.derivatives(&model, &data),
        emulated.derivatives(&model, &data)
    );
    assert_eq!(
        cuda.em_statistics(&model, &data),
        emulated.em_statistics(&model, &data)
    );
    // From another thread, where the context was never made current.
    let again = std::thread::scope(|scope| {
        let thread = scope.spawn(|| cuda.score_outer(&model, &data));
        thread.join().unwrap()
    });
    assert_eq!(again, emulated.score_outer(&model, &data));
}

#[test]
fn passes_through_the_driver_are_those_of_the_emulated_device() {
    let name = "passes_through_the_driver_are_those_of_the_emulated_device";
    if with_stand_in(name, &[]) {
        passes_agree();
        // The second time nothing is compiled by NVRTC.
        passes_agree();
    }
}

#[test]
fn a_gpu_newer_than_its_compiler_gets_code_for_the_next_older_one() {
    let name = "a_gpu_newer_than_its_compiler_gets_code_for_the_next_older_one";
    if with_stand_in(name, &[("STAND_IN_CAPABILITY", "86")]) {
        passes_agree();
        let cache = std::env::var("SMOE_LAB_CACHE").unwrap();
        let files = std::fs::read_dir(cache).unwrap().flatten();
        let names: Vec<_> = files.map(|f| f.path()).collect();
        let made = |suffix: &str| {
            let with = names
                .iter()
                .filter(|n| n.extension().is_some_and(|e| e == suffix));
            with.count()
        };
        assert_eq!(made("cubin"), 0);
        assert_eq!(made("ptx"), 1);
    }
}

#[test]
fn too_little_memory_ends_in_its_own_error() {
    let settings = [("STAND_IN_MEMORY", "100000")];
    if with_stand_in("too_little_memory_ends_in_its_own_error", &settings) {
        let cuda = Cuda::open(0).unwrap();
        assert!(cuda.log_likelihood(&model(), &data()).is_nan());
        let failure = cuda.failure().unwrap();
        let Error::OutOfMemory { needed, free } = failure else {
            panic!("{failure}");
        };
        assert_eq!(needed, 5000 * 3 * 8);
        assert!(free <= 100_000);
    }
}

#[test]
fn a_kernel_that_fails_shows_when_its_results_are_read() {
    let settings = [("STAND_IN_FAILS", "1")];
    if with_stand_in(
        "a_kernel_that_fails_shows_when_its_results_are_read",
        &settings,
    ) {
        let cuda = Cuda::open(0).unwrap();
        assert!(cuda.log_likelihood(&model(), &data()).is_nan());
        let message = cuda.failure().unwrap().to_string();
        assert_eq!(
            message,
            "device cuda:0: an illegal memory access was encountered"
        );
    }
}

#[test]
fn a_program_that_does_not_compile_is_one_line() {
    let settings = [("STAND_IN_BROKEN", "1")];
    if with_stand_in("a_program_that_does_not_compile_is_one_line", &settings) {
        let cuda = Cuda::open(0).unwrap();
        assert!(cuda.log_likelihood(&model(), &data()).is_nan());
        let message = line::<()>(Err(cuda.failure().unwrap()));
        let wanted = "device cuda:0: pass: does not compile: NVRTC: NVRTC_ERROR_COMPILATION: \
                      pass.cu(7): error: identifier \"x\" is undefined; 1 error detected";
        assert_eq!(message, wanted);
    }
}
