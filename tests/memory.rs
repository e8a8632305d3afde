//! How much memory a fit takes, counted by the allocator.

mod common;

use ndarray::{Array1, Array2};
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::fit::{Centre, Limits, Method, Options, maximise};
use smoe_lab::model::{
    Data, ExpertKind, GateKind, InputLaw, Model, VarianceStructure, draw_sample,
};
use smoe_lab::rng::{Purpose, Stream};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Of this thread alone: the test harness allocates in others.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counters belong to the process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn model(experts: usize, d: usize) -> Model {
    let noise = [1.7, -1.4, 2.1, -0.9, 0.3, -2.2, 0.5, 1.8, -0.6];
    let gate = common::dense(GateKind::Softmax);
    let structure = VarianceStructure::PerExpert;
    Model {
        input: InputLaw::Uniform {
            low: vec![-1.0; d],
            high: vec![1.0; d],
        },
        parameters: common::mixture(gate, ExpertKind::Linear, experts, d, structure, &noise),
    }
}

fn stream() -> Stream {
    Stream::named(11, "memory", 0, Purpose::Data)
}

#[test]
fn a_large_fit_takes_little_more_memory_than_its_data() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const ROWS: usize = 400_000;
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let model = model(4, 4);
    let data = draw_sample(&model, 0, ROWS, &stream());
    let limits = Limits {
        coefficient: 100.0,
        bias: 100.0,
        gate_slope: 100.0,
        variance: [1e-3, 1e3],
        zero_slopes: Vec::new(),
        zero_gate_slopes: Vec::new(),
        centre: Centre::Origin,
    };
    let bounds = limits.bounds(&model.parameters.layout());
    let options = Options {
        method: Method::Em,
        max_iterations: 3,
        gain: 0.1,
        pilot_rows: None,
        ..Options::default()
    };
    let fit = maximise(&Cpu::new(), &data, &model.parameters, &bounds, &options);
    assert!(fit.stop.is_converged(), "{}", fit.stop);
    let taken = (PEAK.load(Relaxed) - before) as f64;
    let size = (ROWS * 5 * size_of::<f64>()) as f64;
    assert!(taken <= 1.2 * size, "{:.3} times the data", taken / size);
}

/// The loop over rows allocates nothing: ten times the rows, the same calls.
#[test]
fn a_pass_allocates_the_same_whatever_the_number_of_rows() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let model = model(3, 2);
    let all = draw_sample(&model, 0, 100_000, &stream());
    let calls = |data: &Data| {
        let passes = || {
            std::hint::black_box(Cpu::new().gradient(&model.parameters, data));
            std::hint::black_box(Cpu::new().derivatives(&model.parameters, data));
            std::hint::black_box(Cpu::new().em_statistics(&model.parameters, data));
        };
        // The first pass of a thread makes its workspace.
        passes();
        let before = CALLS.get();
        passes();
        CALLS.get() - before
    };
    let (small, large) = (calls(&all.head(10_000)), calls(&all));
    assert_eq!(small, large);
    assert!(small < 300, "{small} allocations in three passes");
}

/// Whoever has the columns hands them over without a copy.
#[test]
fn columns_become_data_without_a_copy() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (columns, y) = (Array2::<f64>::zeros((3, 1000)), Array1::zeros(1000));
    let before = CALLS.get();
    let data = Data::from_columns(columns, y).unwrap();
    assert_eq!(CALLS.get(), before);
    assert_eq!(data.len(), 1000);
}
