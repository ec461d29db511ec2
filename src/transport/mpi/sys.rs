//! The raw calls, each with its return code checked. No decisions here.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;

use mpi::ffi;

use super::{Bases, Direction, Parts, Tag};
use crate::element::{DType, Op};
use crate::error::{Error, ErrorKind, Result};

/// Turns a return code into an error that holds MPI's own text.
pub(super) fn check(code: c_int, call: &str) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Error::internal(format!("{call}: {}", text(code)))) }
}

fn text(code: c_int) -> String {
    let mut buffer = [0u8; 1024]; // MPI_MAX_ERROR_STRING is 256 to 1024
    let mut len: c_int = 0;
    let at = buffer.as_mut_ptr().cast::<c_char>();
    // SAFETY: the buffer holds MPI_MAX_ERROR_STRING bytes of every implementation.
    let result = unsafe { ffi::MPI_Error_string(code, at, &mut len) };
    let len = usize::try_from(len).unwrap_or(0).min(buffer.len());
    match result {
        0 => String::from_utf8_lossy(&buffer[..len]).into_owned(),
        _ => format!("error code {code}"),
    }
}

/// A count or rank as MPI takes it.
pub(super) fn to_int(value: usize, what: &str) -> Result<c_int> {
    c_int::try_from(value).map_err(|_| Error::internal(format!("{what} {value} exceeds 2^31 - 1")))
}

/// Initialises MPI for calls from one thread, or from `many` at once. Returns whether those are
/// allowed.
pub(super) fn initialise(many: bool) -> Result<bool> {
    let mut provided: c_int = 0;
    // SAFETY: reading constants of the library.
    let (one, multiple) = unsafe { (ffi::RSMPI_THREAD_FUNNELED, ffi::RSMPI_THREAD_MULTIPLE) };
    let asked = if many { multiple } else { one };
    // SAFETY: MPI allows null for argc and argv; `launch` calls this once.
    let code = unsafe {
        ffi::MPI_Init_thread(std::ptr::null_mut(), std::ptr::null_mut(), asked, &mut provided)
    };
    check(code, "MPI_Init_thread")?;
    Ok(many && provided >= multiple)
}

pub(super) fn finalise() -> Result<()> {
    // SAFETY: `Job::finish` is the only caller and consumes the job.
    check(unsafe { ffi::MPI_Finalize() }, "MPI_Finalize")
}

pub(super) fn abort(code: u8) -> ! {
    // SAFETY: allowed from any state between initialise and finalise, on any thread here because
    // the process does nothing else afterwards.
    unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, c_int::from(code)) };
    std::process::abort() // MPI_Abort returned, which it must not
}

pub(super) fn duplicate(communicator: ffi::MPI_Comm) -> Result<ffi::MPI_Comm> {
    // SAFETY: plain data that the call overwrites.
    let mut own = unsafe { ffi::RSMPI_COMM_NULL };
    // SAFETY: the communicator is valid and `own` is a place for the result.
    check(unsafe { ffi::MPI_Comm_dup(communicator, &mut own) }, "MPI_Comm_dup")?;
    Ok(own)
}

pub(super) fn return_errors(communicator: ffi::MPI_Comm) -> Result<()> {
    // SAFETY: the communicator is valid.
    let code = unsafe { ffi::MPI_Comm_set_errhandler(communicator, ffi::RSMPI_ERRORS_RETURN) };
    check(code, "MPI_Comm_set_errhandler")
}

pub(super) fn rank_and_size(communicator: ffi::MPI_Comm) -> Result<(usize, usize)> {
    let (mut rank, mut size): (c_int, c_int) = (0, 0);
    // SAFETY: the communicator is valid and the places are writable.
    check(unsafe { ffi::MPI_Comm_rank(communicator, &mut rank) }, "MPI_Comm_rank")?;
    // SAFETY: as above.
    check(unsafe { ffi::MPI_Comm_size(communicator, &mut size) }, "MPI_Comm_size")?;
    let whole = |v| usize::try_from(v).map_err(|_| Error::internal("MPI gave a negative rank"));
    Ok((whole(rank)?, whole(size)?))
}

pub(super) fn split(c: ffi::MPI_Comm, color: usize, key: usize) -> Result<ffi::MPI_Comm> {
    let (color, key) = (to_int(color, "color")?, to_int(key, "key")?);
    // SAFETY: plain data that the call overwrites.
    let mut part = unsafe { ffi::RSMPI_COMM_NULL };
    // SAFETY: the communicator is valid; all ranks call it with a color of their own.
    check(unsafe { ffi::MPI_Comm_split(c, color, key, &mut part) }, "MPI_Comm_split")?;
    Ok(part)
}

pub(super) fn split_shared(c: ffi::MPI_Comm, key: usize) -> Result<ffi::MPI_Comm> {
    let key = to_int(key, "key")?;
    // SAFETY: plain data that the call overwrites.
    let mut part = unsafe { ffi::RSMPI_COMM_NULL };
    // SAFETY: the communicator is valid.
    let code = unsafe {
        let shared = ffi::RSMPI_COMM_TYPE_SHARED;
        ffi::MPI_Comm_split_type(c, shared, key, ffi::RSMPI_INFO_NULL, &mut part)
    };
    check(code, "MPI_Comm_split_type")?;
    Ok(part)
}

pub(super) fn free_communicator(mut communicator: ffi::MPI_Comm) -> Result<()> {
    // SAFETY: made by this process, freed once, nothing under way on it.
    check(unsafe { ffi::MPI_Comm_free(&mut communicator) }, "MPI_Comm_free")
}

/// A window with `bytes` for each rank, each part in pages of its own, or with one part that the
/// first rank allocates for all; and where the part of each rank is.
pub(super) fn allocate_shared(
    communicator: ffi::MPI_Comm,
    ranks: usize,
    bytes: usize,
    parts: Parts,
) -> Result<(ffi::MPI_Win, Bases)> {
    let owner = parts == Parts::Each || rank_and_size(communicator)?.0 == 0;
    let own_bytes = if owner { bytes } else { 0 };
    let size = ffi::MPI_Aint::try_from(own_bytes)
        .map_err(|_| Error::input(format!("{bytes} bytes of shared memory are too many")))?;
    let mut info = std::mem::MaybeUninit::<ffi::MPI_Info>::uninit();
    // SAFETY: `info` is a place for the result.
    check(unsafe { ffi::MPI_Info_create(info.as_mut_ptr()) }, "MPI_Info_create")?;
    // SAFETY: written by the call that just succeeded.
    let mut info = unsafe { info.assume_init() };
    let (key, yes) = (c"alloc_shared_noncontig", c"true");
    // SAFETY: valid C strings and a valid info.
    check(unsafe { ffi::MPI_Info_set(info, key.as_ptr(), yes.as_ptr()) }, "MPI_Info_set")?;
    let mut base: *mut c_void = std::ptr::null_mut();
    // SAFETY: plain data that the call overwrites.
    let mut window = unsafe { ffi::RSMPI_WIN_NULL };
    let at: *mut *mut c_void = &mut base;
    // SAFETY: all ranks of the communicator share memory and call this with the same size; `at`
    // is where MPI stores the address, as its untyped `void *` argument asks for.
    let code = unsafe {
        ffi::MPI_Win_allocate_shared(size, 1, info, communicator, at.cast(), &mut window)
    };
    // SAFETY: made above, freed once.
    check(unsafe { ffi::MPI_Info_free(&mut info) }, "MPI_Info_free")?;
    check(code, "MPI_Win_allocate_shared").map_err(|error| {
        let what = format!(
            "{error}; {bytes} bytes were asked for: is /dev/shm or the temporary folder full?"
        );
        Error::new(ErrorKind::Failed, what)
    })?;
    // SAFETY: the window is valid; from here on loads and stores are ordered by our own flags.
    let code = unsafe { ffi::MPI_Win_lock_all(0, window) };
    check(code, "MPI_Win_lock_all")?;
    let mut bases = Vec::with_capacity(ranks);
    for rank in 0..ranks {
        let owner = if parts == Parts::Each { rank } else { 0 };
        bases.push(part_of(window, owner, bytes)?);
    }
    if owner {
        // SAFETY: the own part holds `bytes` bytes; nobody uses it before all have been here.
        unsafe { base.cast::<u8>().write_bytes(0, bytes) };
    }
    // SAFETY: the communicator is valid.
    check(unsafe { ffi::MPI_Barrier(communicator) }, "MPI_Barrier")?;
    Ok((window, bases))
}

fn part_of(window: ffi::MPI_Win, rank: usize, bytes: usize) -> Result<NonNull<u8>> {
    let (mut size, mut unit) = (0, 0);
    let mut base: *mut c_void = std::ptr::null_mut();
    let at: *mut *mut c_void = &mut base;
    let number = to_int(rank, "rank")?;
    // SAFETY: the window is a shared one; the places are writable.
    let code =
        unsafe { ffi::MPI_Win_shared_query(window, number, &mut size, &mut unit, at.cast()) };
    check(code, "MPI_Win_shared_query")?;
    let enough = usize::try_from(size).is_ok_and(|size| size >= bytes);
    NonNull::new(base.cast::<u8>()).filter(|_| enough).ok_or_else(|| {
        Error::internal(format!("rank {rank} gave {size} bytes of shared memory, not {bytes}"))
    })
}

pub(super) fn free_window(mut window: ffi::MPI_Win) -> Result<()> {
    // SAFETY: locked when it was made; freed once, by all its ranks in the same order.
    check(unsafe { ffi::MPI_Win_unlock_all(window) }, "MPI_Win_unlock_all")?;
    // SAFETY: as above.
    check(unsafe { ffi::MPI_Win_free(&mut window) }, "MPI_Win_free")
}

/// # Safety
/// The range stays valid and untouched until the request is done or cancelled.
pub(super) unsafe fn start(
    communicator: ffi::MPI_Comm,
    peer: usize,
    direction: Direction,
    at: *mut u8,
    bytes: usize,
    tag: Tag,
) -> Result<ffi::MPI_Request> {
    let (count, peer) = (to_int(bytes, "count")?, to_int(peer, "rank")?);
    let (at, tag) = (at.cast::<c_void>(), to_int(tag as usize, "tag")?);
    // SAFETY: plain data that the call overwrites.
    let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
    // SAFETY: the caller vouches for the range; the communicator is valid.
    let code = unsafe {
        let byte = ffi::RSMPI_UINT8_T;
        match direction {
            Direction::Send => {
                ffi::MPI_Isend(at, count, byte, peer, tag, communicator, &mut request)
            }
            Direction::Receive => {
                ffi::MPI_Irecv(at, count, byte, peer, tag, communicator, &mut request)
            }
        }
    };
    check(code, if direction == Direction::Send { "MPI_Isend" } else { "MPI_Irecv" })?;
    Ok(request)
}

/// Words that are being told to some rank. Dropped before that is done, they are never freed.
#[derive(Debug)]
pub(super) struct Told {
    request: ffi::MPI_Request,
    words: Vec<u64>,
}

impl Told {
    /// Whether the words have left.
    pub(super) fn is_done(&mut self) -> Result<bool> {
        let mut done: c_int = 0;
        // SAFETY: the request is null or under way, and the place is writable.
        let code = unsafe { ffi::MPI_Test(&mut self.request, &mut done, ffi::RSMPI_STATUS_IGNORE) };
        check(code, "MPI_Test")?;
        if done != 0 {
            self.words = Vec::new();
        }
        Ok(done != 0)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        std::mem::forget(std::mem::take(&mut self.words)); // MPI may still read them
    }
}

/// Sends words without waiting.
pub(super) fn tell(c: ffi::MPI_Comm, to: usize, words: &[u64], tag: Tag) -> Result<Told> {
    let mut words = words.to_vec();
    let (at, bytes) = (words.as_mut_ptr().cast::<u8>(), size_of_val(&words[..]));
    // SAFETY: `Told` keeps the words, untouched, until MPI says that it is done with them.
    let request = unsafe { start(c, to, Direction::Send, at, bytes, tag)? };
    Ok(Told { request, words })
}

/// Receives words that some rank has told, if there are any.
pub(super) fn hear(c: ffi::MPI_Comm, tag: Tag) -> Result<Option<(usize, Vec<u64>)>> {
    let tag = to_int(tag as usize, "tag")?;
    let mut there: c_int = 0;
    // SAFETY: a status is plain integers, for which zero is a value.
    let mut status: ffi::MPI_Status = unsafe { std::mem::zeroed() };
    // SAFETY: the communicator is valid and the places are writable.
    let code = unsafe { ffi::MPI_Iprobe(ffi::RSMPI_ANY_SOURCE, tag, c, &mut there, &mut status) };
    check(code, "MPI_Iprobe")?;
    if there == 0 {
        return Ok(None);
    }
    let bytes = received_bytes(&status)?;
    let mut words = vec![0u64; bytes.div_ceil(8)];
    let source = status.MPI_SOURCE;
    // SAFETY: the words hold the bytes of the message that was just found.
    let code = unsafe {
        let (at, byte) = (words.as_mut_ptr().cast::<c_void>(), ffi::RSMPI_UINT8_T);
        let count = to_int(bytes, "count")?;
        ffi::MPI_Recv(at, count, byte, source, tag, c, ffi::RSMPI_STATUS_IGNORE)
    };
    check(code, "MPI_Recv")?;
    let from = usize::try_from(source).map_err(|_| Error::internal("MPI gave a negative rank"))?;
    Ok(Some((from, words)))
}

/// A failed test of requests.
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) is_truncation: bool,
}

/// Whether all requests are done; fills in their statuses once they are.
pub(super) fn test_all(
    requests: &mut [ffi::MPI_Request],
    statuses: &mut Vec<ffi::MPI_Status>,
) -> std::result::Result<bool, Failed> {
    // SAFETY: a status is plain integers, for which zero is a value.
    statuses.resize_with(requests.len(), || unsafe { std::mem::zeroed() });
    let plain = |error| Failed { error, is_truncation: false };
    let count = to_int(requests.len(), "number of messages").map_err(plain)?;
    let mut done: c_int = 0;
    // SAFETY: both arrays hold `count` entries.
    let code =
        unsafe { ffi::MPI_Testall(count, requests.as_mut_ptr(), &mut done, statuses.as_mut_ptr()) };
    if code == 0 {
        return Ok(done != 0);
    }
    let in_status = class(code) == ffi::MPI_ERR_IN_STATUS as c_int;
    let codes = statuses.iter().map(|s| s.MPI_ERROR).filter(|_| in_status);
    let pending = ffi::MPI_ERR_PENDING as c_int;
    let cause = codes.into_iter().find(|&c| c != 0 && c != pending).unwrap_or(code);
    let is_truncation = class(cause) == ffi::MPI_ERR_TRUNCATE as c_int;
    Err(Failed { error: Error::internal(format!("MPI_Testall: {}", text(cause))), is_truncation })
}

fn class(code: c_int) -> c_int {
    let mut class = code;
    // SAFETY: the place is writable; an unknown code leaves it as it is.
    unsafe { ffi::MPI_Error_class(code, &mut class) };
    class
}

pub(super) fn received_bytes(status: &ffi::MPI_Status) -> Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: the status was filled in by a receive of bytes.
    let code = unsafe { ffi::MPI_Get_count(status, ffi::RSMPI_UINT8_T, &mut count) };
    check(code, "MPI_Get_count")?;
    usize::try_from(count).map_err(|_| Error::internal("MPI received part of a byte"))
}

/// Gives a request up. A receive is cancelled and waited for, which is local, so that its range
/// is free afterwards; a send only reads and is let go.
pub(super) fn cancel(request: &mut ffi::MPI_Request, direction: Direction) {
    // SAFETY: a request is null or under way; a cancelled receive ends at once.
    unsafe {
        if *request == ffi::RSMPI_REQUEST_NULL {
            return;
        }
        match direction {
            Direction::Receive => {
                ffi::MPI_Cancel(request);
                ffi::MPI_Wait(request, ffi::RSMPI_STATUS_IGNORE);
            }
            Direction::Send => {
                ffi::MPI_Request_free(request);
            }
        }
    }
}

/// The MPI type of an element.
pub(super) fn datatype(dtype: DType) -> ffi::MPI_Datatype {
    // SAFETY: reading constants of the library.
    unsafe {
        match dtype {
            DType::F32 => ffi::RSMPI_FLOAT,
            DType::F64 => ffi::RSMPI_DOUBLE,
            DType::I32 => ffi::RSMPI_INT32_T,
            DType::I64 => ffi::RSMPI_INT64_T,
            DType::U32 => ffi::RSMPI_UINT32_T,
            DType::U64 => ffi::RSMPI_UINT64_T,
            DType::Bf16 | DType::F16 => ffi::RSMPI_UINT16_T, // to be moved, never reduced
        }
    }
}

/// The MPI operator of a reduction over `dtype`.
pub(super) fn operator(op: Op, dtype: DType) -> Result<ffi::MPI_Op> {
    if dtype.is_half() {
        return Err(Error::input(format!("MPI cannot reduce {dtype}; use f32")));
    }
    // SAFETY: reading constants of the library.
    unsafe {
        Ok(match op {
            Op::Sum => ffi::RSMPI_SUM,
            Op::Product => ffi::RSMPI_PROD,
            Op::Min => ffi::RSMPI_MIN,
            Op::Max => ffi::RSMPI_MAX,
            Op::Average => return Err(Error::input("MPI has no average; use sum")),
        })
    }
}

pub(super) fn library_version() -> String {
    let mut buffer = vec![0u8; 8192]; // MPI_MAX_LIBRARY_VERSION_STRING is 256 to 8192
    let mut len: c_int = 0;
    // SAFETY: the buffer holds the longest version of every implementation.
    unsafe { ffi::MPI_Get_library_version(buffer.as_mut_ptr().cast(), &mut len) };
    let len = usize::try_from(len).unwrap_or(0).min(buffer.len());
    let whole = String::from_utf8_lossy(&buffer[..len]).into_owned();
    whole.lines().next().unwrap_or("").split(", package").next().unwrap_or("").to_string()
}
