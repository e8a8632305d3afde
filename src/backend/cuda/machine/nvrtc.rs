//! NVIDIA's run-time compiler NVRTC, opened when a program must be compiled.
//!
//! Opened here rather than by a crate: any major version will do, it is also looked
//! for where toolkits and wheels put it, and a result code of a newer version is just
//! a number.

use super::program::Program;
use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;

/// Major versions that are known to work, newest first.
const MAJORS: [i32; 2] = [13, 12];
/// Contraction of products and sums stays on, fast mathematics off: the defaults.
const OPTIONS: [&str; 1] = ["--std=c++17"];

/// What NVRTC makes, for compute capability 10 * major + minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend::cuda) enum Target {
    /// Machine code for this capability.
    Cubin(u32),
    /// PTX, which the driver compiles for newer ones.
    Ptx(u32),
}

impl Target {
    fn option(self) -> String {
        match self {
            Target::Cubin(capability) => format!("--gpu-architecture=sm_{capability}"),
            Target::Ptx(capability) => format!("--gpu-architecture=compute_{capability}"),
        }
    }

    /// Suffix of the file.
    pub fn suffix(self) -> &'static str {
        match self {
            Target::Cubin(_) => "cubin",
            Target::Ptx(_) => "ptx",
        }
    }
}

type Handle = *mut c_void;

/// An opened NVRTC.
pub(in crate::backend::cuda) struct Nvrtc {
    library: Library,
    /// Major and minor.
    pub version: (i32, i32),
    /// Capabilities that it compiles for, ascending.
    architectures: Vec<u32>,
}

impl Nvrtc {
    /// The newest that is not newer than `major`, the driver's: what a newer one makes
    /// may not load.
    ///
    /// # Errors
    /// One line that says what is missing and what helps.
    pub fn open(major: i32) -> Result<Self, String> {
        let mut reason = String::new();
        for path in candidates(major) {
            // SAFETY: NVRTC runs nothing of consequence when it is loaded.
            let Ok(library) = (unsafe { Library::new(&path) }) else {
                continue;
            };
            match Nvrtc::of(library) {
                Ok(nvrtc) if nvrtc.version.0 < 12 => {
                    reason = format!("; {} is older than 12.0", path.display());
                }
                Ok(nvrtc) if nvrtc.version.0 > major => {
                    reason = format!("; {} is newer than the driver", path.display());
                }
                Ok(nvrtc) => return Ok(nvrtc),
                Err(e) => reason = format!("; {}: {e}", path.display()),
            }
        }
        let wanted = major.min(MAJORS[0]);
        let wheel = match wanted {
            12 => "nvidia-cuda-nvrtc-cu12",
            _ => "nvidia-cuda-nvrtc",
        };
        Err(format!(
            "NVRTC, the compiler of kernels, is not found (libnvrtc.so.{wanted}{reason}): install the CUDA toolkit, \
             or `pip install {wheel}` with the folder of its libnvrtc in LD_LIBRARY_PATH"
        ))
    }

    fn of(library: Library) -> Result<Self, String> {
        let mut nvrtc = Nvrtc {
            library,
            version: (0, 0),
            architectures: Vec::new(),
        };
        let (mut major, mut minor) = (0, 0);
        type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
        type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
        // SAFETY: the types are those of nvrtc.h; both write to the variables given,
        // the third to as many numbers as the second counts.
        unsafe {
            let version = nvrtc.function::<Version>("nvrtcVersion")?;
            nvrtc.check(version(&mut major, &mut minor))?;
            let mut count = 0;
            let counting = nvrtc.function::<Count>("nvrtcGetNumSupportedArchs")?;
            nvrtc.check(counting(&mut count))?;
            let mut architectures = vec![0; count.max(0) as usize];
            let listing = nvrtc.function::<Count>("nvrtcGetSupportedArchs")?;
            nvrtc.check(listing(architectures.as_mut_ptr()))?;
            nvrtc.architectures = architectures.into_iter().map(|a| a as u32).collect();
        }
        nvrtc.architectures.sort_unstable();
        nvrtc.version = (major, minor);
        Ok(nvrtc)
    }

    /// # Safety
    /// `F` must be the type of the function.
    unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: by the caller.
        let symbol: Result<Symbol<F>, _> = unsafe { self.library.get(name) };
        symbol
            .map(|function| *function)
            .map_err(|_| format!("has no {name}"))
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        type Text = unsafe extern "C" fn(c_int) -> *const c_char;
        // SAFETY: the type is that of nvrtc.h, and the text it returns is constant.
        let text = unsafe {
            let text = self.function::<Text>("nvrtcGetErrorString")?(code);
            CStr::from_ptr(text).to_string_lossy()
        };
        Err(format!("NVRTC: {text}"))
    }

    /// Machine code where this version knows the capability, else PTX for the next
    /// lower one.
    ///
    /// # Errors
    /// One line if it knows none.
    pub fn target(&self, capability: u32) -> Result<Target, String> {
        let known = self.architectures.iter().filter(|a| **a <= capability);
        match known.max() {
            Some(&exact) if exact == capability => Ok(Target::Cubin(exact)),
            Some(&lower) => Ok(Target::Ptx(lower)),
            None => Err(format!(
                "NVRTC {}.{} does not compile for compute capability {}.{}: install CUDA 12",
                self.version.0,
                self.version.1,
                capability / 10,
                capability % 10
            )),
        }
    }

    /// All but the program that decides what is made, for [`Program::key`].
    pub fn identity(&self, target: Target) -> String {
        let (major, minor) = self.version;
        format!("NVRTC {major}.{minor} {OPTIONS:?} {}", target.option())
    }

    /// Compiles a program. PTX ends with a zero byte.
    ///
    /// # Errors
    /// One line with the first errors of the compiler.
    pub fn compile(&self, program: &Program, target: Target) -> Result<Vec<u8>, String> {
        let failed = |message: String| format!("{}: {message}", program.name);
        let compilation = Compilation::new(self, program).map_err(failed)?;
        compilation.run(target).map_err(failed)?;
        let (size, get) = match target {
            Target::Cubin(_) => ("nvrtcGetCUBINSize", "nvrtcGetCUBIN"),
            Target::Ptx(_) => ("nvrtcGetPTXSize", "nvrtcGetPTX"),
        };
        compilation.text(size, get).map_err(failed)
    }
}

/// Where NVRTC may be, best first: by the loader's rules, then in toolkits, then among
/// the wheels of an active environment.
fn candidates(major: i32) -> Vec<PathBuf> {
    let majors = MAJORS.iter().filter(|m| **m <= major);
    let mut names: Vec<String> = majors.map(|m| format!("libnvrtc.so.{m}")).collect();
    names.push("libnvrtc.so".to_string());
    let variable = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let mut folders = Vec::new();
    let toolkits = [
        variable("CUDA_HOME"),
        variable("CUDA_PATH"),
        Some(PathBuf::from("/usr/local/cuda")),
    ];
    for toolkit in toolkits.into_iter().flatten() {
        folders.push(toolkit.join("lib64"));
        folders.push(toolkit.join("lib"));
    }
    let environments = [variable("VIRTUAL_ENV"), variable("CONDA_PREFIX")];
    for environment in environments.into_iter().flatten() {
        let lib = environment.join("lib");
        for python in std::fs::read_dir(&lib).into_iter().flatten().flatten() {
            let wheels = python.path().join("site-packages").join("nvidia");
            folders.push(wheels.join("cu13").join("lib"));
            folders.push(wheels.join("cuda_nvrtc").join("lib"));
        }
        folders.push(lib);
    }
    let by_loader = names.iter().map(PathBuf::from);
    let in_folders = folders
        .iter()
        .flat_map(|folder| names.iter().map(|name| folder.join(name)));
    by_loader.chain(in_folders).collect()
}

/// A program that NVRTC holds.
struct Compilation<'a> {
    nvrtc: &'a Nvrtc,
    handle: Handle,
}

impl Drop for Compilation<'_> {
    fn drop(&mut self) {
        type Destroy = unsafe extern "C" fn(*mut Handle) -> c_int;
        // SAFETY: the type is that of nvrtc.h; the handle came from
        // nvrtcCreateProgram and is used no more.
        unsafe {
            if let Ok(destroy) = self.nvrtc.function::<Destroy>("nvrtcDestroyProgram") {
                destroy(&mut self.handle);
            }
        }
    }
}

impl<'a> Compilation<'a> {
    fn new(nvrtc: &'a Nvrtc, program: &Program) -> Result<Self, String> {
        type Create = unsafe extern "C" fn(
            *mut Handle,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        let text = |text: &str| CString::new(text).map_err(|e| e.to_string());
        let (source, name) = (text(&program.source)?, text(program.name)?);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the type is that of nvrtc.h; it copies both texts, and reads no
        // headers where their number is 0.
        unsafe {
            let create = nvrtc.function::<Create>("nvrtcCreateProgram")?;
            let none = std::ptr::null();
            let code = create(&mut handle, source.as_ptr(), name.as_ptr(), 0, none, none);
            nvrtc.check(code)?;
        }
        Ok(Compilation { nvrtc, handle })
    }

    fn run(&self, target: Target) -> Result<(), String> {
        type Compile = unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int;
        let options = OPTIONS
            .map(String::from)
            .into_iter()
            .chain([target.option()]);
        let options: Result<Vec<CString>, _> = options.map(CString::new).collect();
        let options = options.map_err(|e| e.to_string())?;
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: the type is that of nvrtc.h; the handle is live, and so are the
        // options during the call.
        let code = unsafe {
            let compile = self.nvrtc.function::<Compile>("nvrtcCompileProgram")?;
            compile(self.handle, pointers.len() as c_int, pointers.as_ptr())
        };
        self.nvrtc.check(code).map_err(|reason| {
            let log = self.text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
            let log = log.unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let errors = super::program::first_errors(log.trim_end_matches('\0'));
            format!("does not compile: {reason}: {errors}")
        })
    }

    /// Bytes that one function of NVRTC counts and another writes.
    fn text(&self, size: &str, get: &str) -> Result<Vec<u8>, String> {
        type Size = unsafe extern "C" fn(Handle, *mut usize) -> c_int;
        type Get = unsafe extern "C" fn(Handle, *mut c_char) -> c_int;
        let mut length = 0;
        // SAFETY: the types are those of nvrtc.h; the handle is live, and the second
        // writes as many bytes as the first counted.
        unsafe {
            let code = self.nvrtc.function::<Size>(size)?(self.handle, &mut length);
            self.nvrtc.check(code)?;
            let mut bytes = vec![0u8; length];
            let code = self.nvrtc.function::<Get>(get)?(self.handle, bytes.as_mut_ptr().cast());
            self.nvrtc.check(code)?;
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compiler_is_one_line_that_says_what_helps() {
        // None is as old as this driver.
        let message = Nvrtc::open(1).err().unwrap();
        assert!(message.starts_with("NVRTC, the compiler of kernels, is not found"));
        assert!(message.contains("pip install") && !message.contains('\n'));
    }
}
