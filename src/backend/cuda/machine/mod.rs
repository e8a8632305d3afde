//! Where kernels run: memory, programs, launches.
//!
//! [`Machine`] is all that the engine asks of a GPU. The driver implements it for
//! real devices, the emulator for the processor: everything above this folder is the
//! same code on both.
//!
//! ```text
//! program    source text and constants       cache      keeps what was compiled
//! driver     a GPU, by cudarc                nvrtc      compiles for it
//! emulated   the processor, by g++           choice     which device a user wants
//! ```

pub(super) mod cache;
pub(super) mod choice;
#[cfg(feature = "cuda")]
pub(super) mod driver;
pub(super) mod emulated;
pub(super) mod nvrtc;
pub(super) mod program;

use crate::error::Result;
use bytemuck::{Pod, Zeroable};
use program::Program;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A device that runs the kernels of a [`Program`].
pub(super) trait Machine: Send + Sync {
    /// As the user names it, such as `cuda:0`.
    fn name(&self) -> String;

    /// What it is, such as the product's name.
    fn description(&self) -> String;

    /// The same, with what its speed depends on beside: versions, size.
    fn details(&self) -> String;

    /// Memory in bytes, now.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`].
    fn memory(&self) -> Result<Memory>;

    /// Most shared memory that one block can have, in bytes.
    fn shared_memory(&self) -> usize;

    /// Reserves memory and returns its address; `bytes` is positive.
    ///
    /// # Errors
    /// [`crate::error::Error::OutOfMemory`], [`crate::error::Error::Device`].
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives memory back.
    fn release(&self, address: u64);

    /// Copies from the host.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`].
    fn upload(&self, bytes: &[u8], to: u64) -> Result<()>;

    /// Waits for all launches, then copies to the host.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`], also of a kernel that failed.
    fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()>;

    /// Sets memory to zero.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`].
    fn clear(&self, address: u64, bytes: usize) -> Result<()>;

    /// Starts a kernel of a program, which is compiled when it is first used;
    /// launches run one after another. `arguments` is the kernel's one argument, a
    /// structure.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`].
    fn launch(
        &self,
        program: &Program,
        kernel: &'static str,
        shape: Shape,
        arguments: &[u8],
    ) -> Result<()>;

    /// Waits for all launches.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`], also of a kernel that failed.
    fn synchronise(&self) -> Result<()>;
}

/// Memory of a device in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Not in use.
    pub free: usize,
    /// In all.
    pub total: usize,
}

/// How many blocks of how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Blocks.
    pub blocks: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Dynamic shared memory of a block in bytes.
    pub shared: usize,
}

/// A device, shared by all that use it.
#[derive(Clone)]
pub(super) struct Device(Arc<dyn Machine>);

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0.name())
    }
}

impl Device {
    pub fn new(machine: impl Machine + 'static) -> Self {
        Device(Arc::new(machine))
    }

    pub fn machine(&self) -> &dyn Machine {
        self.0.as_ref()
    }

    /// Memory for `length` values, all zero.
    ///
    /// # Errors
    /// As [`Machine::allocate`].
    pub fn zeros<T: Pod>(&self, length: usize) -> Result<Buffer<T>> {
        let bytes = (length * size_of::<T>()).max(1);
        let address = self.0.allocate(bytes)?;
        let buffer = Buffer {
            device: self.clone(),
            address,
            length,
            values: PhantomData,
        };
        self.0.clear(address, bytes)?;
        Ok(buffer)
    }

    /// A copy of `values` on the device.
    ///
    /// # Errors
    /// As [`Machine::allocate`].
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<Buffer<T>> {
        let buffer = self.zeros(values.len())?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Starts a kernel; see [`Machine::launch`].
    ///
    /// # Errors
    /// [`crate::error::Error::Device`].
    pub fn launch<A: Pod>(
        &self,
        program: &Program,
        kernel: &'static str,
        shape: Shape,
        arguments: &A,
    ) -> Result<()> {
        if shape.blocks == 0 {
            return Ok(());
        }
        self.0
            .launch(program, kernel, shape, bytemuck::bytes_of(arguments))
    }
}

/// An address in a kernel's arguments.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Address(pub u64);

/// An array on a device, released when dropped.
#[derive(Debug)]
pub(super) struct Buffer<T> {
    device: Device,
    address: u64,
    length: usize,
    values: PhantomData<T>,
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.device.0.release(self.address);
    }
}

impl<T: Pod> Buffer<T> {
    pub fn address(&self) -> Address {
        Address(self.address)
    }

    pub fn len(&self) -> usize {
        self.length
    }

    /// Overwrites entries from `first` on.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`].
    pub fn write(&self, first: usize, values: &[T]) -> Result<()> {
        assert!(first + values.len() <= self.length, "write past the end");
        if values.is_empty() {
            return Ok(());
        }
        let to = self.address + (first * size_of::<T>()) as u64;
        self.device.0.upload(bytemuck::cast_slice(values), to)
    }

    /// `count` entries from `first` on.
    ///
    /// # Errors
    /// As [`Machine::download`].
    pub fn read(&self, first: usize, count: usize) -> Result<Vec<T>> {
        assert!(first + count <= self.length, "read past the end");
        let mut values = vec![T::zeroed(); count];
        if count > 0 {
            let from = self.address + (first * size_of::<T>()) as u64;
            let bytes = bytemuck::cast_slice_mut(&mut values);
            self.device.0.download(from, bytes)?;
        }
        Ok(values)
    }

    /// All entries.
    ///
    /// # Errors
    /// As [`Machine::download`].
    pub fn all(&self) -> Result<Vec<T>> {
        self.read(0, self.length)
    }
}
