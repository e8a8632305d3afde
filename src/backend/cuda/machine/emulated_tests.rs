use super::*;
use crate::backend::cuda::machine::program::Source;
use crate::backend::cuda::machine::{Address, Buffer, Device};
use bytemuck::{Pod, Zeroable};

const PRELUDE: &str = include_str!("../prelude.cuh");

/// Small kernels that use what the engine's kernels use.
const KERNELS: &str = r#"
struct Sum {
  const double* values;
  double* sums;
  u64 count;
  double factor;
};

// Sums of a block's part: barriers.
KERNEL(sum_by_barriers, Sum) {
  SHARED(memory);
  double sum = 0;
  for (u64 i = blockIdx.x * blockDim.x + threadIdx.x; i < arguments.count;
       i += gridDim.x * blockDim.x)
    sum += arguments.factor * arguments.values[i];
  memory[threadIdx.x] = sum;
  __syncthreads();
  #pragma unroll
  for (u32 half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) memory[threadIdx.x] += memory[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) arguments.sums[blockIdx.x] = memory[0];
}

// The same with shuffles within a warp.
KERNEL(sum_by_shuffles, Sum) {
  SHARED(memory);
  double sum = 0;
  for (u64 i = blockIdx.x * blockDim.x + threadIdx.x; i < arguments.count;
       i += gridDim.x * blockDim.x)
    sum += arguments.factor * arguments.values[i];
  for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(0xffffffffu, sum, by);
  float lane_sum = 1.0f;
  for (int with = 16; with > 0; with /= 2) lane_sum += __shfl_xor_sync(0xffffffffu, lane_sum, with);
  int first = __shfl_sync(0xffffffffu, (int)(threadIdx.x / 32), 0);
  if (threadIdx.x % 32 == 0) memory[first] = sum * (lane_sum / 32.0f);
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = 0;
    for (u32 w = 0; w < blockDim.x / 32; ++w) sum += memory[w];
    arguments.sums[blockIdx.x] = sum;
  }
}

// What thread 0 writes, all read: the barrier between is forgotten.
KERNEL(without_barrier, Sum) {
  SHARED(memory);
  if (threadIdx.x == 0) memory[0] = arguments.values[0];
  arguments.sums[threadIdx.x] = memory[0];
}

KERNEL(at_two_barriers, Sum) {
  if (threadIdx.x < 7) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

KERNEL(past_a_barrier, Sum) {
  if (threadIdx.x != 3) __syncthreads();
}

KERNEL(shuffle_of_half_a_warp, Sum) {
  double x = 1;
  if (threadIdx.x < 16) x = __shfl_down_sync(0xffffffffu, x, 1);
  arguments.sums[threadIdx.x] = x;
}

KERNEL(outside_shared_memory, Sum) {
  SHARED(memory);
  memory[blockDim.x + threadIdx.x] = 1;
}

KERNEL(outside_an_array, Sum) { arguments.sums[arguments.count + threadIdx.x] = 1; }

KERNEL(functions, Sum) {
  double* to = arguments.sums;
  to[0] = sinpi(1e15 + 0.5);
  to[1] = cospi(1.0 / 3.0);
  to[2] = rsqrt(4.0f);
  to[3] = (double)__umulhi(0x80000000u, 6u);
  to[4] = fmin(NOT_A_NUMBER, max(1.0f, 2.0f));
  to[5] = __fma_rn(1e16, 1.0, 1.0) + __dadd_rn(0.1, __dmul_rn(3.0, 0.1));
  to[6] = exp(1.0f);
  to[7] = sinpi(-0.25) + cospi(7.0);
}
"#;

const NAMES: &[&str] = &[
    "sum_by_barriers",
    "sum_by_shuffles",
    "without_barrier",
    "at_two_barriers",
    "past_a_barrier",
    "shuffle_of_half_a_warp",
    "outside_shared_memory",
    "outside_an_array",
    "functions",
];

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Sum {
    values: Address,
    sums: Address,
    count: u64,
    factor: f64,
}

fn program() -> Program {
    let source = Source {
        name: "trial",
        parts: &[("prelude.cuh", PRELUDE), ("trial.cu", KERNELS)],
        kernels: NAMES,
    };
    Program::new(&source, &[])
}

fn machine(order: Order) -> Device {
    Device::new(Emulated::with_order(1 << 20, order).unwrap())
}

/// Runs a kernel on 0, 1, ..., 99 times 0.5.
fn run(device: &Device, kernel: &'static str, blocks: usize, threads: usize) -> Result<Vec<f64>> {
    let values: Vec<f64> = (0..100).map(f64::from).collect();
    let values = device.upload(&values)?;
    let sums: Buffer<f64> = device.zeros(100)?;
    let arguments = Sum {
        values: values.address(),
        sums: sums.address(),
        count: 100,
        factor: 0.5,
    };
    let shape = Shape {
        blocks,
        threads,
        shared: threads * 8,
    };
    device.launch(&program(), kernel, shape, &arguments)?;
    sums.all()
}

fn message(kernel: &'static str) -> String {
    let error = run(&machine(Order::Forward), kernel, 1, 64).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn a_block_sums_by_barriers_and_by_shuffles() {
    for order in [Order::Forward, Order::Reversed] {
        let device = machine(order);
        for kernel in ["sum_by_barriers", "sum_by_shuffles"] {
            let sums = run(&device, kernel, 2, 64).unwrap();
            assert_eq!(sums[..2].iter().sum::<f64>(), 2475.0, "{kernel}");
            assert!(sums[..2].iter().all(|sum| *sum > 0.0));
            assert_eq!(sums[2..], [0.0; 98]);
        }
    }
}

#[test]
fn a_forgotten_barrier_shows_in_the_reversed_order() {
    let forward = run(&machine(Order::Forward), "without_barrier", 1, 64).unwrap();
    let reversed = run(&machine(Order::Reversed), "without_barrier", 1, 64).unwrap();
    assert_eq!(forward[..64], [0.0; 64]);
    assert!(reversed[1..64].iter().all(|x| x.is_nan()));
}

#[test]
fn a_barrier_that_not_all_threads_reach_is_an_error() {
    let error = message("at_two_barriers");
    let places = "divergent barrier: in block 0 thread 0 waits at trial.cu:55, \
                  thread 7 waits at trial.cu:57";
    assert!(error.contains(places), "{error}");
    let error = message("past_a_barrier");
    let places = "thread 0 waits at trial.cu:62, thread 3 has finished";
    assert!(error.contains(places), "{error}");
}

#[test]
fn a_shuffle_that_misses_threads_is_an_error() {
    let error = message("shuffle_of_half_a_warp");
    let places = "divergent shuffle: in block 0 thread 0 waits at trial.cu:67, \
                  thread 16 has finished";
    assert!(error.contains(places), "{error}");
}

#[test]
fn a_machine_works_on_after_an_error() {
    let device = machine(Order::Forward);
    assert!(run(&device, "at_two_barriers", 4, 64).is_err());
    let sums = run(&device, "sum_by_shuffles", 1, 32).unwrap();
    assert_eq!(sums[0], 2475.0);
}

#[test]
fn a_write_outside_memory_is_an_error() {
    let error = message("outside_shared_memory");
    assert!(error.contains("outside its 512 bytes of shared"), "{error}");
    let error = message("outside_an_array");
    assert!(error.contains("past the end of an array of 800"), "{error}");
}

#[test]
fn functions_of_cuda_have_their_values() {
    let values = run(&machine(Order::Forward), "functions", 1, 1).unwrap();
    assert_eq!(values[0], 1.0);
    assert!((values[1] - 0.5).abs() < 1e-15);
    assert_eq!(values[2..5], [0.5, 3.0, 2.0]);
    assert_eq!(values[5], 1e16 + (0.1 + 3.0 * 0.1));
    assert_eq!(values[6], f64::from(1f32.exp()));
    assert!((values[7] + 1.0 + 0.5f64.sqrt()).abs() < 1e-15);
}

#[test]
fn one_host_thread_and_two_give_the_same() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let device = machine(Order::Forward);
        pool.build()
            .unwrap()
            .install(|| run(&device, "sum_by_shuffles", 7, 32).unwrap())
    };
    assert_eq!(on(1), on(2));
    assert_eq!(on(1).iter().sum::<f64>(), 2475.0);
}

#[test]
fn host_threads_may_launch_at_once() {
    let device = machine(Order::Forward);
    std::thread::scope(|scope| {
        let run = || run(&device, "sum_by_barriers", 2, 128).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().iter().sum::<f64>(), 2475.0);
        }
    });
}

#[test]
fn memory_is_counted_and_ends_in_an_error() {
    let device = Device::new(Emulated::with_order(1000, Order::Forward).unwrap());
    let first: Buffer<f64> = device.zeros(100).unwrap();
    assert_eq!(
        device.machine().memory().unwrap(),
        Memory {
            free: 200,
            total: 1000
        }
    );
    assert_eq!(first.address().0 % 256, 0);
    let error = device.zeros::<f64>(26).unwrap_err();
    assert!(matches!(
        error,
        Error::OutOfMemory {
            needed: 208,
            free: 200
        }
    ));
    drop(first);
    assert_eq!(device.zeros::<f64>(125).unwrap().all().unwrap(), [0.0; 125]);
}

#[test]
fn copies_stay_inside_their_array() {
    let machine = Emulated::with_order(1000, Order::Forward).unwrap();
    let address = machine.allocate(16).unwrap();
    assert!(machine.upload(&[1; 16], address).is_ok());
    assert!(machine.upload(&[1; 16], address + 1).is_err());
    assert!(machine.download(address + 8, &mut [0; 9]).is_err());
    assert!(machine.clear(address - 1, 1).is_err());
    let mut last = [0];
    machine.download(address + 15, &mut last).unwrap();
    assert_eq!(last, [1]);
    machine.release(address);
    assert!(machine.clear(address, 1).is_err());
}

#[test]
fn what_does_not_compile_or_exist_is_one_line() {
    let source = Source {
        name: "broken",
        parts: &[
            ("prelude.cuh", PRELUDE),
            (
                "broken.cu",
                "struct A { int a; };\nKERNEL(b, A) { c = 1; }\n",
            ),
        ],
        kernels: &["b"],
    };
    let device = machine(Order::Forward);
    let shape = Shape {
        blocks: 1,
        threads: 1,
        shared: 0,
    };
    let error = device.launch(&Program::new(&source, &[]), "b", shape, &1u32);
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("device emulated: broken: does not compile: broken.cu"),
        "{error}"
    );
    assert!(
        error.contains("broken.cu:2") && !error.contains('\n'),
        "{error}"
    );
    let error = device
        .launch(&program(), "functions", shape, &1u32)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("takes an argument of 32 bytes, not 4"),
        "{error}"
    );
    let error = Compiler::find("no-such-compiler").unwrap_err().to_string();
    assert!(
        error.contains("`no-such-compiler` does not run; install g++"),
        "{error}"
    );
}
