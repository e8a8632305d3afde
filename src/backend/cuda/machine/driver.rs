//! A GPU, through NVIDIA's driver, which is opened when it is first asked for.

use super::cache::{self, MadeOnce};
use super::choice::DeviceDescription;
use super::nvrtc::{Nvrtc, Target};
use super::program::Program;
use super::{Machine, Memory, Shape};
use crate::error::{Error, Result};
use cudarc::driver::result;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use libloading::Symbol;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};

/// CUDA 12.0, as the driver counts.
const NEEDED_VERSION: i32 = 12000;
/// Volta: the first with independent threads of a warp and fast f64 in its line.
const NEEDED_CAPABILITY: (u32, u32) = (7, 0);
/// Shared memory of a block that need not be asked for, in bytes.
const PLAIN_SHARED_MEMORY: usize = 48 << 10;

/// Functions of the driver that are used here. The crate that binds them panics where
/// one is missing, so they are looked for first.
const FUNCTIONS: [&CStr; 24] = [
    c"cuInit",
    c"cuDriverGetVersion",
    c"cuGetErrorString",
    c"cuDeviceGet",
    c"cuDeviceGetCount",
    c"cuDeviceGetName",
    c"cuDeviceGetAttribute",
    c"cuDeviceTotalMem_v2",
    c"cuDevicePrimaryCtxRetain",
    c"cuDevicePrimaryCtxRelease_v2",
    c"cuCtxSetCurrent",
    c"cuStreamCreate",
    c"cuStreamSynchronize",
    c"cuStreamDestroy_v2",
    c"cuMemAlloc_v2",
    c"cuMemFree_v2",
    c"cuMemGetInfo_v2",
    c"cuMemcpyHtoDAsync_v2",
    c"cuMemcpyDtoHAsync_v2",
    c"cuMemsetD8Async",
    c"cuModuleLoadData",
    c"cuModuleGetFunction",
    c"cuLaunchKernel",
    c"cuFuncSetAttribute",
];

/// A GPU with its primary context and a stream of its own, on which everything runs
/// in order.
pub(in crate::backend::cuda) struct Driver {
    name: String,
    description: DeviceDescription,
    /// Version of the driver: 1000 * major + 10 * minor.
    version: i32,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Largest of a block, in bytes.
    shared_memory: usize,
    compiler: OnceLock<Nvrtc>,
    programs: MadeOnce<[u8; 32], Arc<HashMap<&'static str, Kernel>>>,
}

/// A kernel of a loaded program, which stays loaded as long as the context lives.
#[derive(Clone, Copy)]
struct Kernel(sys::CUfunction);

// SAFETY: handles of the driver are valid in every thread of the process.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}
// SAFETY: as above; every call makes the context current in its own thread first.
unsafe impl Send for Driver {}
// SAFETY: as above; the driver itself orders calls from several threads.
unsafe impl Sync for Driver {}

impl Drop for Driver {
    fn drop(&mut self) {
        // SAFETY: both came from the driver, and nothing uses them any more. What goes
        // wrong at the end of a process is of no consequence.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::synchronize(self.stream);
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

/// What a result code means, in the driver's words.
fn reason(error: DriverError) -> String {
    match error.error_string() {
        Ok(text) => text.to_string_lossy().into_owned(),
        // Not by name: a newer driver may return a code that has none here.
        Err(_) => format!("error {} of the driver", error.0 as u32),
    }
}

/// Opens and initialises the driver, once, and returns its version.
fn start() -> std::result::Result<i32, String> {
    // SAFETY: loading the driver is what this module is for.
    if !unsafe { sys::is_culib_present() } {
        return Err(
            "NVIDIA's driver is not found (libcuda.so.1): this computer has no NVIDIA GPU, \
             or its driver, 525 or newer, is not installed"
                .to_string(),
        );
    }
    for name in FUNCTIONS {
        // SAFETY: the library is present, so this opens it; the symbol is not called.
        let found: std::result::Result<Symbol<unsafe extern "C" fn()>, _> =
            unsafe { sys::culib().get(name.to_bytes_with_nul()) };
        if found.is_err() {
            let name = name.to_string_lossy();
            return Err(format!(
                "NVIDIA's driver has no function {name}: install driver 525 (CUDA 12.0) or newer"
            ));
        }
    }
    let mut version = 0;
    // SAFETY: writes one number.
    let code = unsafe { sys::cuDriverGetVersion(&mut version) };
    code.result().map_err(reason)?;
    if version < NEEDED_VERSION {
        return Err(format!(
            "NVIDIA's driver supports CUDA {}.{}, needed is 12.0: install driver 525 or newer",
            version / 1000,
            version % 1000 / 10
        ));
    }
    result::init().map_err(|e| format!("NVIDIA's driver does not start: {}", reason(e)))?;
    Ok(version)
}

/// A number of the device.
fn attribute(
    device: sys::CUdevice,
    attribute: Attribute,
) -> std::result::Result<usize, DriverError> {
    // SAFETY: the device came from the driver.
    let value = unsafe { result::device::get_attribute(device, attribute) }?;
    Ok(value.max(0) as usize)
}

/// What the device is.
fn describe(ordinal: usize) -> std::result::Result<DeviceDescription, DriverError> {
    let device = result::device::get(ordinal as c_int)?;
    let number = |which| attribute(device, which);
    let mut name = [0 as c_char; 256];
    // SAFETY: the driver writes at most 255 characters and a zero.
    let name = unsafe {
        sys::cuDeviceGetName(name.as_mut_ptr(), 255, device).result()?;
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    };
    Ok(DeviceDescription {
        ordinal,
        name,
        capability: (
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
        ),
        // SAFETY: the device came from the driver.
        memory: unsafe { result::device::total_mem(device) }?,
    })
}

impl Driver {
    /// All GPUs of this computer, also those that are too old.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no driver, or one that is too old.
    pub fn probe() -> Result<Vec<DeviceDescription>> {
        let failed = |message: String| Error::device("cuda", message);
        start().map_err(failed)?;
        let count = result::device::get_count().map_err(|e| failed(reason(e)))?;
        let described = (0..count as usize).map(describe);
        described
            .map(|d| d.map_err(|e| failed(reason(e))))
            .collect()
    }

    /// The GPU with this ordinal.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no driver or one that is too old, no such GPU,
    /// or one that is too old.
    pub fn open(ordinal: usize) -> Result<Self> {
        let name = format!("cuda:{ordinal}");
        let failed = |message: String| Error::device(&name, message);
        let driver_failed = |e: DriverError| failed(reason(e));
        let version = start().map_err(failed)?;
        let count = result::device::get_count().map_err(driver_failed)?;
        match count.max(0) as usize {
            0 => return Err(failed("the driver finds no GPU".to_string())),
            count if ordinal >= count => {
                let last = count - 1;
                let known = if last == 0 {
                    "cuda:0".to_string()
                } else {
                    format!("cuda:0 to cuda:{last}")
                };
                return Err(failed(format!("there is no such GPU, only {known}")));
            }
            _ => {}
        }
        let description = describe(ordinal).map_err(driver_failed)?;
        if description.capability < NEEDED_CAPABILITY {
            let (major, minor) = description.capability;
            let (needed, _) = NEEDED_CAPABILITY;
            return Err(failed(format!(
                "{} has compute capability {major}.{minor}, needed is {needed}.0 (Volta) or newer",
                description.name
            )));
        }
        let device = result::device::get(ordinal as c_int).map_err(driver_failed)?;
        let optin = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared_memory = attribute(device, optin).map_err(driver_failed)?;
        // SAFETY: the device came from the driver.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(driver_failed)?;
        // SAFETY: the context is live.
        let current = unsafe { result::ctx::set_current(context) };
        let stream =
            current.and_then(|()| result::stream::create(result::stream::StreamKind::NonBlocking));
        let stream = stream.map_err(|e| {
            // SAFETY: it was retained above and is not used further.
            let _ = unsafe { result::primary_ctx::release(device) };
            driver_failed(e)
        })?;
        Ok(Driver {
            description,
            version,
            device,
            context,
            stream,
            shared_memory: shared_memory.max(PLAIN_SHARED_MEMORY),
            compiler: OnceLock::new(),
            programs: MadeOnce::new(),
            name,
        })
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::device(&self.name, message)
    }

    fn failed(&self, error: DriverError) -> Error {
        self.error(reason(error))
    }

    /// Makes the context that of the calling thread.
    fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| self.failed(e))
    }

    fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| self.failed(e))
    }

    fn compiler(&self) -> Result<&Nvrtc> {
        if let Some(compiler) = self.compiler.get() {
            return Ok(compiler);
        }
        let opened = Nvrtc::open(self.version / 1000).map_err(|e| self.error(e))?;
        Ok(self.compiler.get_or_init(|| opened))
    }

    /// The kernels of a program, compiled for this device.
    fn load(&self, program: &Program) -> Result<HashMap<&'static str, Kernel>> {
        let compiler = self.compiler()?;
        let (major, minor) = self.description.capability;
        let target = compiler.target(10 * major + minor);
        let target: Target = target.map_err(|e| self.error(e))?;
        let key = program.key(&compiler.identity(target));
        let path = cache::file(&format!("{key}.{}", target.suffix()), |path| {
            let image = compiler.compile(program, target);
            let image = image.map_err(|e| self.error(e))?;
            std::fs::write(path, image).map_err(|e| Error::file(path, "write", &e))
        })?;
        let image = std::fs::read(&path).map_err(|e| Error::file(&path, "read", &e))?;
        let explained = |e: DriverError| {
            let file = path.display();
            self.error(format!("cannot load {file}: {}", reason(e)))
        };
        // SAFETY: the image is machine code, or PTX with a zero byte at its end, and
        // lives during the call.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) };
        let module = module.map_err(explained)?;
        let mut kernels = HashMap::new();
        for &name in program.kernels {
            let text = CString::new(name).map_err(|e| self.error(e.to_string()))?;
            // SAFETY: the module is loaded and stays so.
            let kernel = unsafe { result::module::get_function(module, text) };
            kernels.insert(name, Kernel(kernel.map_err(explained)?));
        }
        Ok(kernels)
    }
}

impl Machine for Driver {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn description(&self) -> String {
        self.description.name.clone()
    }

    fn details(&self) -> String {
        let (major, minor) = (self.version / 1000, self.version % 1000 / 10);
        format!("{}, driver of CUDA {major}.{minor}", self.description)
    }

    fn memory(&self) -> Result<Memory> {
        self.bind()?;
        let (free, total) = result::mem_get_info().map_err(|e| self.failed(e))?;
        Ok(Memory { free, total })
    }

    fn shared_memory(&self) -> usize {
        self.shared_memory
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        // SAFETY: the memory is given no type here.
        unsafe { result::malloc_sync(bytes) }.map_err(|e| {
            if e.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return self.failed(e);
            }
            Error::OutOfMemory {
                needed: bytes,
                free: result::mem_get_info().map_or(0, |(free, _)| free),
            }
        })
    }

    fn release(&self, address: u64) {
        // A context that failed keeps no memory anyway.
        if self.bind().is_ok() {
            // SAFETY: the address came from `allocate` and is given back once; the
            // driver waits for the kernels that use it.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn upload(&self, bytes: &[u8], to: u64) -> Result<()> {
        self.bind()?;
        // SAFETY: the range lies in a live buffer, and `bytes` lives until the copy is
        // done, for which is waited: some devices read the host's memory directly.
        unsafe { result::memcpy_htod_async(to, bytes, self.stream) }.map_err(|e| self.failed(e))?;
        self.wait()
    }

    fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: as in `upload`.
        let copied = unsafe { result::memcpy_dtoh_async(bytes, from, self.stream) };
        // Waits also where the copy failed: nothing may write to `bytes` later.
        self.wait()?;
        copied.map_err(|e| self.failed(e))
    }

    fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the range lies in a live buffer.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream) }
            .map_err(|e| self.failed(e))
    }

    fn launch(
        &self,
        program: &Program,
        kernel: &'static str,
        shape: Shape,
        arguments: &[u8],
    ) -> Result<()> {
        self.bind()?;
        let load = || self.load(program).map(Arc::new);
        let kernels = self.programs.get(program.digest(), load)?;
        let explained =
            |message: String| self.error(format!("{}: kernel {kernel}: {message}", program.name));
        let Some(&Kernel(function)) = kernels.get(kernel) else {
            return Err(explained("is not in this program".to_string()));
        };
        if shape.shared > self.shared_memory {
            let most = self.shared_memory;
            return Err(explained(format!(
                "needs {} bytes of shared memory, a block has {most}",
                shape.shared
            )));
        }
        let too_large = |_| explained(format!("a grid cannot be that large: {shape:?}"));
        // The grid's first extent is signed.
        let blocks = i32::try_from(shape.blocks).map_err(too_large)? as u32;
        let threads = u32::try_from(shape.threads).map_err(too_large)?;
        if shape.shared > PLAIN_SHARED_MEMORY {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function's module is loaded.
            unsafe {
                result::function::set_function_attribute(function, most, shape.shared as i32)
            }
            .map_err(|e| explained(reason(e)))?;
        }
        let mut given = [arguments.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the one argument is a structure of the size and layout that the
        // kernel declares, and is copied during the call; addresses in it are those
        // of live buffers.
        unsafe {
            result::launch_kernel(
                function,
                (blocks, 1, 1),
                (threads, 1, 1),
                shape.shared as u32,
                self.stream,
                &mut given,
            )
        }
        .map_err(|e| explained(reason(e)))
    }

    fn synchronise(&self) -> Result<()> {
        self.bind()?;
        self.wait()
    }
}
