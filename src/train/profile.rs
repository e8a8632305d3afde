//! Where the time of a step goes: a device that times every operation.
//!
//! [`Profiled`] passes every call on to the device it wraps and adds the call's time
//! to its operation. Products are timed inside ([`crate::train::ops::matmul`]), on
//! every thread, so that their share of the step is known too.
