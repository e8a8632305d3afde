//! The processor as a machine that runs kernels: g++ compiles the same source text,
//! behind `emulation.h`.
//!
//! For tests where there is no GPU; slow.

use super::cache::{self, MadeOnce};
use super::program::{Program, first_errors};
use super::{Machine, Memory, Shape};
use crate::error::{Error, Result};
use libloading::{Library, Symbol};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const NAME: &str = "emulated";
const HEADER: &str = include_str!("emulation.h");
const OPTIONS: [&str; 9] = [
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-fno-exceptions",
    "-fvisibility=hidden",
    // Of pragmas and functions that are not used.
    "-w",
    "-xc++",
];

/// Freed memory, and canaries behind what is in use: not a number.
const FREED: u8 = 0xff;
const CANARY: u8 = 0xfe;
const CANARY_BYTES: usize = 1024;
const ALIGNMENT: usize = 256;
/// What every supported GPU gives to a block.
const SHARED_MEMORY: usize = 64 << 10;
const MOST_THREADS: usize = 1024;

/// Who of a block's threads runs first between two barriers. Results that differ
/// show that a barrier is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Thread 0.
    #[default]
    Forward,
    /// The last thread.
    Reversed,
}

/// The exported function of a kernel: see `KERNEL` in `emulation.h`.
type Run = unsafe extern "C" fn(
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    usize,
    c_int,
    *const c_void,
    *mut c_char,
) -> c_int;

/// A kernel of a loaded program.
#[derive(Clone, Copy)]
struct Kernel {
    run: Run,
    /// Size of its argument.
    arguments: usize,
}

type Kernels = Arc<HashMap<&'static str, Kernel>>;

/// The processor, with memory of a given size.
pub(in crate::backend::cuda) struct Emulated {
    compiler: Compiler,
    order: Order,
    /// Bytes.
    limit: usize,
    heap: Mutex<Heap>,
    programs: MadeOnce<[u8; 32], Kernels>,
}

impl Emulated {
    /// A machine with `limit` bytes of memory.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no C++ compiler.
    #[cfg(test)]
    pub fn new(limit: usize) -> Result<Self> {
        Emulated::with_order(limit, Order::Forward)
    }

    /// One whose threads take turns in the given order.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no C++ compiler.
    pub fn with_order(limit: usize, order: Order) -> Result<Self> {
        let compiler = std::env::var("CXX").unwrap_or_default();
        let compiler = match compiler.trim() {
            "" => "g++",
            given => given,
        };
        Ok(Emulated {
            compiler: Compiler::find(compiler)?,
            order,
            limit,
            heap: Mutex::default(),
            programs: MadeOnce::new(),
        })
    }

    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, program: &Program) -> Result<Kernels> {
        self.programs.get(program.digest(), || {
            let path = self.compiler.compile(program)?;
            load(&path, program)
        })
    }
}

/// The kernels of a compiled program. It stays loaded: host threads keep the stacks of
/// its fibers.
fn load(path: &Path, program: &Program) -> Result<Kernels> {
    let failed =
        |e: libloading::Error| Error::device(NAME, format!("cannot load {}: {e}", path.display()));
    // SAFETY: the file comes from our own header and kernels, which run nothing when
    // they are loaded.
    let library = unsafe { Library::new(path) }.map_err(failed)?;
    let library: &'static Library = Box::leak(Box::new(library));
    let mut kernels = HashMap::new();
    for &name in program.kernels {
        // SAFETY: KERNEL in `emulation.h` gives both symbols exactly these types.
        let (run, bytes) = unsafe {
            let run: Symbol<Run> = library.get(format!("smoe_run_{name}")).map_err(failed)?;
            let bytes: Symbol<unsafe extern "C" fn() -> usize> = library
                .get(format!("smoe_arguments_{name}"))
                .map_err(failed)?;
            (*run, bytes())
        };
        kernels.insert(
            name,
            Kernel {
                run,
                arguments: bytes,
            },
        );
    }
    Ok(Arc::new(kernels))
}

/// A C++ compiler.
#[derive(Debug)]
struct Compiler {
    command: Vec<String>,
    /// All but the program that decides what it makes.
    identity: String,
}

impl Compiler {
    fn find(command: &str) -> Result<Self> {
        let command: Vec<String> = command.split_whitespace().map(String::from).collect();
        let asked = Command::new(&command[0])
            .args(&command[1..])
            .arg("--version")
            .output();
        let version = match asked {
            Ok(output) if output.status.success() => output.stdout,
            _ => {
                let name = command.join(" ");
                return Err(Error::device(
                    NAME,
                    format!(
                        "the C++ compiler `{name}` does not run; install g++, or name another in CXX"
                    ),
                ));
            }
        };
        let version = String::from_utf8_lossy(&version);
        let identity = format!("{command:?} {version} {OPTIONS:?} {HEADER}");
        Ok(Compiler { command, identity })
    }

    /// The shared library of a program, from the cache if it is there.
    fn compile(&self, program: &Program) -> Result<std::path::PathBuf> {
        let name = format!("{}.so", program.key(&self.identity));
        cache::file(&name, |path| self.run(program, path))
    }

    fn run(&self, program: &Program, path: &Path) -> Result<()> {
        let failed = |message: String| Error::device(NAME, format!("{}: {message}", program.name));
        let text = format!(
            "#line 1 \"emulation.h\"\n{HEADER}\n#line 1 \"constants\"\n{}",
            program.source
        );
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(OPTIONS)
            .arg("-o")
            .arg(path)
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(format!("the C++ compiler does not start: {e}")))?;
        let mut input = child.stdin.take().expect("piped above");
        // A compiler that ends early says why itself.
        let _ = input.write_all(text.as_bytes());
        drop(input);
        let output = child
            .wait_with_output()
            .map_err(|e| failed(format!("the C++ compiler does not end: {e}")))?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!("does not compile: {}", first_errors(&log))))
    }
}

impl Machine for Emulated {
    fn name(&self) -> String {
        NAME.to_string()
    }

    fn description(&self) -> String {
        "kernels on the processor, for tests".to_string()
    }

    fn details(&self) -> String {
        format!("{}, {} MiB", self.description(), self.limit >> 20)
    }

    fn memory(&self) -> Result<Memory> {
        Ok(Memory {
            free: self.limit - self.heap().used,
            total: self.limit,
        })
    }

    fn shared_memory(&self) -> usize {
        SHARED_MEMORY
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.heap().allocate(bytes, self.limit)
    }

    fn release(&self, address: u64) {
        self.heap().release(address);
    }

    fn upload(&self, bytes: &[u8], to: u64) -> Result<()> {
        let heap = self.heap();
        let to = heap.checked(to, bytes.len(), "an upload")?;
        // SAFETY: `checked` found the range inside one allocation, and the lock keeps
        // that alive.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        let heap = self.heap();
        let from = heap.checked(from, bytes.len(), "a download")?;
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        let heap = self.heap();
        let to = heap.checked(address, bytes, "a clearing")?;
        // SAFETY: as in `upload`.
        unsafe { std::ptr::write_bytes(to, 0, bytes) };
        Ok(())
    }

    fn launch(
        &self,
        program: &Program,
        kernel: &'static str,
        shape: Shape,
        arguments: &[u8],
    ) -> Result<()> {
        let failed = |message: String| {
            Error::device(
                NAME,
                format!("{}: kernel {kernel}: {message}", program.name),
            )
        };
        let kernels = self.load(program)?;
        let Some(code) = kernels.get(kernel) else {
            return Err(failed("is not in this program".to_string()));
        };
        if arguments.len() != code.arguments {
            let (given, expected) = (arguments.len(), code.arguments);
            return Err(failed(format!(
                "takes an argument of {expected} bytes, not {given}"
            )));
        }
        if shape.threads > MOST_THREADS || shape.shared > SHARED_MEMORY {
            return Err(failed(format!("a block cannot be that large: {shape:?}")));
        }
        let blocks = u32::try_from(shape.blocks)
            .map_err(|_| failed(format!("a grid cannot be that large: {shape:?}")))?;
        let parts = u32::try_from(rayon::current_num_threads()).unwrap_or(1);
        let parts = parts.min(blocks).max(1);
        let bound = |part: u32| (u64::from(blocks) * u64::from(part) / u64::from(parts)) as u32;
        // No lock is held here: a waiting thread may run another launch meanwhile.
        (0..parts)
            .into_par_iter()
            .map(|part| {
                run_part(
                    code.run,
                    bound(part),
                    bound(part + 1),
                    blocks,
                    shape,
                    self.order,
                    arguments,
                )
            })
            .collect::<std::result::Result<Vec<()>, String>>()
            .map_err(failed)?;
        self.heap().check_canaries().map_err(failed)
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }
}

/// Runs the blocks `first..last` of a grid.
fn run_part(
    run: Run,
    first: u32,
    last: u32,
    blocks: u32,
    shape: Shape,
    order: Order,
    arguments: &[u8],
) -> std::result::Result<(), String> {
    let mut message = [0u8; 256];
    // SAFETY: the type is that of the exported function; `arguments` has the size that
    // the kernel asks for, and `message` the 256 bytes that it may write. Addresses in
    // the arguments are those of live buffers, as on any device.
    let code = unsafe {
        run(
            first,
            last,
            blocks,
            shape.threads as c_uint,
            shape.shared,
            c_int::from(order == Order::Reversed),
            arguments.as_ptr().cast(),
            message.as_mut_ptr().cast(),
        )
    };
    if code == 0 {
        return Ok(());
    }
    let end = message.iter().position(|b| *b == 0).unwrap_or(255);
    Err(String::from_utf8_lossy(&message[..end]).into_owned())
}

/// Memory in use, by address, with its size.
#[derive(Debug, Default)]
struct Heap {
    used: usize,
    allocations: BTreeMap<u64, usize>,
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + CANARY_BYTES, ALIGNMENT).expect("bounded by the limit")
}

impl Heap {
    fn allocate(&mut self, bytes: usize, limit: usize) -> Result<u64> {
        let out_of_memory = Error::OutOfMemory {
            needed: bytes,
            free: limit - self.used,
        };
        if bytes > limit - self.used {
            return Err(out_of_memory);
        }
        // SAFETY: the size is positive.
        let start = unsafe { alloc(layout(bytes)) };
        if start.is_null() {
            return Err(out_of_memory);
        }
        // SAFETY: the allocation has `bytes + CANARY_BYTES` bytes.
        unsafe {
            std::ptr::write_bytes(start, FREED, bytes);
            std::ptr::write_bytes(start.add(bytes), CANARY, CANARY_BYTES);
        }
        self.used += bytes;
        self.allocations.insert(start as u64, bytes);
        Ok(start as u64)
    }

    fn release(&mut self, address: u64) {
        let Some(bytes) = self.allocations.remove(&address) else {
            return;
        };
        self.used -= bytes;
        let start = address as *mut u8;
        // SAFETY: the address came from `allocate` with this size and was in use.
        unsafe {
            std::ptr::write_bytes(start, FREED, bytes);
            dealloc(start, layout(bytes));
        }
    }

    /// The address of a range that lies inside one allocation.
    fn checked(&self, address: u64, bytes: usize, what: &str) -> Result<*mut u8> {
        let before = self.allocations.range(..=address).next_back();
        let inside = before.is_some_and(|(start, length)| {
            let offset = (address - start) as usize;
            offset <= *length && bytes <= length - offset
        });
        match inside {
            true => Ok(address as *mut u8),
            false => Err(Error::device(
                NAME,
                format!("{what} of {bytes} bytes leaves its memory"),
            )),
        }
    }

    fn check_canaries(&self) -> std::result::Result<(), String> {
        for (&start, &bytes) in &self.allocations {
            // SAFETY: every allocation has its canaries behind it.
            let behind = unsafe {
                std::slice::from_raw_parts((start as *const u8).add(bytes), CANARY_BYTES)
            };
            if behind.iter().any(|b| *b != CANARY) {
                return Err(format!("wrote past the end of an array of {bytes} bytes"));
            }
        }
        Ok(())
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let left: Vec<u64> = self.allocations.keys().copied().collect();
        for address in left {
            self.release(address);
        }
    }
}

#[cfg(test)]
#[path = "emulated_tests.rs"]
mod tests;
