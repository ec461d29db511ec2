//! The collectives of the MPI library itself: a candidate for every call, and the yardstick.

use std::ffi::{c_int, c_void};

use mpi::ffi;

use super::super::{Mode, Native};
use super::MpiTransport;
use super::sys::{check, datatype, library_version, operator, to_int};
use crate::element::{DType, Op};
use crate::error::{Error, Result};

/// Elements in `bytes`, or an error that names the call.
fn elements(bytes: usize, dtype: DType, call: &str) -> Result<c_int> {
    if !bytes.is_multiple_of(dtype.bytes()) {
        return Err(Error::internal(format!("{call}: {bytes} bytes are no whole {dtype}s")));
    }
    to_int(bytes / dtype.bytes(), "count")
}

/// Fails unless `long` holds `times` times `short`.
fn expect_times(long: usize, short: usize, times: usize, call: &str) -> Result<()> {
    if long == short * times {
        return Ok(());
    }
    Err(Error::internal(format!("{call}: {long} bytes are not {times} × {short} bytes")))
}

fn read(buffer: &[u8]) -> *const c_void {
    buffer.as_ptr().cast()
}

fn write(buffer: &mut [u8]) -> *mut c_void {
    buffer.as_mut_ptr().cast()
}

/// Starts a call and waits for its end.
fn finish(call: &str, start: impl FnOnce(*mut ffi::MPI_Request) -> c_int) -> Result<()> {
    // SAFETY: plain data that the call overwrites.
    let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
    check(start(&mut request), call)?;
    // SAFETY: the request was started just now.
    check(unsafe { ffi::MPI_Wait(&mut request, ffi::RSMPI_STATUS_IGNORE) }, call)
}

impl Native for MpiTransport {
    fn reduce_scatter_block(&self, i: &[u8], o: &mut [u8], dtype: DType, op: Op) -> Result<()> {
        const CALL: &str = "MPI_Reduce_scatter_block";
        expect_times(i.len(), o.len(), self.ranks, CALL)?;
        let (count, t, op) =
            (elements(o.len(), dtype, CALL)?, datatype(dtype), operator(op, dtype)?);
        // SAFETY: the lengths were compared; all ranks pass the same count by contract, which the
        // callers (bench, selftest) take from one formula.
        let code = unsafe {
            let c = self.communicator;
            ffi::MPI_Reduce_scatter_block(read(i), write(o), count, t, op, c)
        };
        check(code, CALL)
    }

    fn reduce_scatter(
        &self,
        input: &[u8],
        output: &mut [u8],
        counts: &[usize],
        dtype: DType,
        op: Op,
        mode: Mode,
    ) -> Result<()> {
        const CALL: &str = "MPI_Reduce_scatter";
        let total: usize = counts.iter().sum();
        expect_times(input.len(), total * dtype.bytes(), 1, CALL)?;
        let own = counts.get(self.rank).copied().unwrap_or(0);
        expect_times(output.len(), own * dtype.bytes(), 1, CALL)?;
        expect_times(counts.len(), self.ranks, 1, CALL)?;
        let counts: Vec<c_int> =
            counts.iter().map(|&c| to_int(c, "count")).collect::<Result<_>>()?;
        let (t, op, c) = (datatype(dtype), operator(op, dtype)?, self.communicator);
        let (i, o, n) = (read(input), write(output), counts.as_ptr());
        // SAFETY: the lengths were compared with the counts; a started call is waited for, while
        // buffers and counts stay where they are.
        unsafe {
            match mode {
                Mode::Blocking => check(ffi::MPI_Reduce_scatter(i, o, n, t, op, c), CALL),
                Mode::Immediate => finish("MPI_Ireduce_scatter", |request| {
                    ffi::MPI_Ireduce_scatter(i, o, n, t, op, c, request)
                }),
            }
        }
    }

    fn all_gather(&self, input: &[u8], output: &mut [u8], dtype: DType, mode: Mode) -> Result<()> {
        const CALL: &str = "MPI_Allgather";
        expect_times(output.len(), input.len(), self.ranks, CALL)?;
        let (n, t) = (elements(input.len(), dtype, CALL)?, datatype(dtype));
        let (i, o, c) = (read(input), write(output), self.communicator);
        // SAFETY: the lengths were compared; a started call is waited for.
        unsafe {
            match mode {
                Mode::Blocking => check(ffi::MPI_Allgather(i, n, t, o, n, t, c), CALL),
                Mode::Immediate => finish("MPI_Iallgather", |request| {
                    ffi::MPI_Iallgather(i, n, t, o, n, t, c, request)
                }),
            }
        }
    }

    fn all_reduce(
        &self,
        input: &[u8],
        output: &mut [u8],
        dtype: DType,
        op: Op,
        mode: Mode,
    ) -> Result<()> {
        const CALL: &str = "MPI_Allreduce";
        expect_times(output.len(), input.len(), 1, CALL)?;
        let (n, t, op) =
            (elements(input.len(), dtype, CALL)?, datatype(dtype), operator(op, dtype)?);
        let (i, o, c) = (read(input), write(output), self.communicator);
        // SAFETY: the lengths were compared; a started call is waited for.
        unsafe {
            match mode {
                Mode::Blocking => check(ffi::MPI_Allreduce(i, o, n, t, op, c), CALL),
                Mode::Immediate => finish("MPI_Iallreduce", |request| {
                    ffi::MPI_Iallreduce(i, o, n, t, op, c, request)
                }),
            }
        }
    }

    fn broadcast(&self, buffer: &mut [u8], root: usize, dtype: DType, mode: Mode) -> Result<()> {
        const CALL: &str = "MPI_Bcast";
        let (n, root) = (elements(buffer.len(), dtype, CALL)?, to_int(root, "root")?);
        let (o, t, c) = (write(buffer), datatype(dtype), self.communicator);
        // SAFETY: the buffer holds `n` elements; a started call is waited for.
        unsafe {
            match mode {
                Mode::Blocking => check(ffi::MPI_Bcast(o, n, t, root, c), CALL),
                Mode::Immediate => {
                    finish("MPI_Ibcast", |request| ffi::MPI_Ibcast(o, n, t, root, c, request))
                }
            }
        }
    }

    fn all_to_all(&self, input: &[u8], output: &mut [u8], dtype: DType, mode: Mode) -> Result<()> {
        const CALL: &str = "MPI_Alltoall";
        expect_times(output.len(), input.len(), 1, CALL)?;
        expect_times(input.len(), input.len() / self.ranks, self.ranks, CALL)?;
        let n = elements(input.len() / self.ranks, dtype, CALL)?;
        let (i, o, t, c) = (read(input), write(output), datatype(dtype), self.communicator);
        // SAFETY: both buffers hold `ranks` blocks of `n` elements; a started call is waited for.
        unsafe {
            match mode {
                Mode::Blocking => check(ffi::MPI_Alltoall(i, n, t, o, n, t, c), CALL),
                Mode::Immediate => finish("MPI_Ialltoall", |request| {
                    ffi::MPI_Ialltoall(i, n, t, o, n, t, c, request)
                }),
            }
        }
    }

    fn barrier(&self) -> Result<()> {
        // SAFETY: the communicator is valid.
        check(unsafe { ffi::MPI_Barrier(self.communicator) }, "MPI_Barrier")
    }

    fn version(&self) -> String {
        library_version()
    }
}
