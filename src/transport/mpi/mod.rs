//! Ranks as MPI processes. The only folder that names the MPI crate, and of that only its raw
//! bindings: its safe layer drops return codes, and its memory safety depends on other ranks.
//!
//! Everything runs on communicators of its own with `MPI_ERRORS_RETURN`, every return code and the
//! count of every received message is checked, and messages above 1 GiB go in pieces, because MPI
//! counts are 32-bit. Shared memory is `MPI_Win_allocate_shared`; windows are freed in one order
//! on all ranks just before finalise. Calls come from one thread (funneled), unless the job was
//! started for background communicators, which call from threads of their own (multiple).

mod native;
mod sys;

use std::any::Any;
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mpi::ffi;

use super::memory::Segment;
use super::{Direction, Message, Native, Parts, Posted, TELL, Tag, Transport};
use crate::error::{Error, ErrorKind, Result};

/// The largest message handed to MPI at once.
const PIECE: usize = 1 << 30;

/// The MPI library while it is initialised. One a process, made and ended by `launch`.
#[derive(Debug)]
pub struct Job {
    /// What each thread has made; the threads in the order in which they began.
    owned: Mutex<Vec<OwnedByThread>>,
    /// Whether several threads may call at once.
    many_threads: bool,
}

/// Windows and communicators in the order they were made, the same on all their ranks.
type OwnedByThread = Arc<Mutex<Vec<Owned>>>;

/// A thread that panicked left a whole list: every critical section is one push or pop.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
enum Owned {
    Communicator(ffi::MPI_Comm),
    Window(ffi::MPI_Win),
}

// SAFETY: handles are plain values that name objects of the library, on any thread.
unsafe impl Send for Owned {}

impl Job {
    /// Initialises MPI; for calls from `many_threads` too.
    pub fn start(many_threads: bool) -> Result<Arc<Self>> {
        let many_threads = sys::initialise(many_threads)?;
        Ok(Arc::new(Job { owned: Mutex::default(), many_threads }))
    }

    /// A list for what another thread makes.
    fn list(&self) -> OwnedByThread {
        let list = OwnedByThread::default();
        lock(&self.owned).push(list.clone());
        list
    }

    /// The endpoint of this process among all.
    pub fn world(self: &Arc<Self>) -> Result<MpiTransport> {
        // SAFETY: MPI is initialised while a `Job` exists.
        let world = unsafe { ffi::RSMPI_COMM_WORLD };
        let mut world = MpiTransport::new(self, self.list(), sys::duplicate(world)?, 1)?;
        world.sharing = world.split_by_node()?.ranks();
        Ok(world)
    }

    /// Frees what was made, in reverse order, and finalises MPI. Collective over all ranks.
    pub fn finish(self: Arc<Self>) -> Result<()> {
        while let Some(list) = lock(&self.owned).pop() {
            while let Some(last) = lock(&list).pop() {
                match last {
                    Owned::Communicator(communicator) => sys::free_communicator(communicator)?,
                    Owned::Window(window) => sys::free_window(window)?,
                }
            }
        }
        sys::finalise()
    }
}

/// Ends all processes of the job now, with this exit code.
pub fn abort(code: u8) -> ! {
    sys::abort(code)
}

/// The endpoint of one process in one communicator.
#[derive(Debug)]
pub struct MpiTransport {
    job: Arc<Job>,
    owned: OwnedByThread,
    communicator: ffi::MPI_Comm,
    rank: usize,
    ranks: usize,
    sharing: usize,
    /// What is being told, until it has left.
    told: RefCell<Vec<sys::Told>>,
}

// SAFETY: one thread at a time calls through an endpoint. It leaves its thread by
// `for_another_thread` alone, which requires that the library allows calls from several.
unsafe impl Send for MpiTransport {}

impl MpiTransport {
    fn new(
        job: &Arc<Job>,
        owned: OwnedByThread,
        communicator: ffi::MPI_Comm,
        sharing: usize,
    ) -> Result<Self> {
        sys::return_errors(communicator)?;
        let (rank, ranks) = sys::rank_and_size(communicator)?;
        lock(&owned).push(Owned::Communicator(communicator));
        let (job, told) = (job.clone(), RefCell::default());
        Ok(MpiTransport { job, owned, communicator, rank, ranks, sharing, told })
    }

    fn split_off(&self, communicator: ffi::MPI_Comm) -> Result<Box<dyn Transport>> {
        Ok(Box::new(MpiTransport::new(&self.job, self.owned.clone(), communicator, self.sharing)?))
    }
}

impl Transport for MpiTransport {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn sharing(&self) -> usize {
        self.sharing
    }

    unsafe fn post(&self, tag: Tag, messages: &[Message], posted: &mut Posted) -> Result<()> {
        posted.requests.clear();
        // Receives first: a message that finds its receive posted needs no buffering.
        for direction in [Direction::Receive, Direction::Send] {
            for message in messages.iter().filter(|m| m.direction == direction) {
                let mut start = 0;
                // A message of zero bytes is still one message.
                while start == 0 || start < message.bytes {
                    let bytes = PIECE.min(message.bytes - start);
                    // SAFETY: start <= bytes of the message, whose range the caller vouches for.
                    let at = unsafe { message.at.add(start) };
                    // SAFETY: the caller keeps the range until the round is done or cancelled.
                    unsafe { posted.requests.start(self.communicator, message, at, bytes, tag)? };
                    start += bytes.max(1);
                }
            }
        }
        Ok(())
    }

    fn poll(&self, posted: &mut Posted) -> Result<bool> {
        posted.requests.test(self.rank)
    }

    fn cancel(&self, posted: &mut Posted) {
        posted.requests.cancel();
    }

    fn tell(&self, to: usize, words: &[u64]) -> Result<()> {
        let mut told = self.told.borrow_mut();
        let mut left = Vec::new();
        for mut one in told.drain(..) {
            if !one.is_done()? {
                left.push(one);
            }
        }
        left.push(sys::tell(self.communicator, to, words, TELL)?);
        *told = left;
        Ok(())
    }

    fn hear(&self) -> Result<Option<(usize, Vec<u64>)>> {
        sys::hear(self.communicator, TELL)
    }

    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Transport>> {
        self.split_off(sys::split(self.communicator, color, key)?)
    }

    fn split_by_node(&self) -> Result<Box<dyn Transport>> {
        self.split_off(sys::split_shared(self.communicator, self.rank)?)
    }

    fn for_another_thread(&self) -> Result<Box<dyn Transport + Send>> {
        if !self.job.many_threads {
            return Err(Error::input(
                "MPI was initialised for calls from one thread; start the job for background \
                 communicators (`launch::Options::background`), with an MPI library that allows \
                 calls from several threads",
            ));
        }
        let own = sys::duplicate(self.communicator)?;
        let list = self.job.list();
        Ok(Box::new(MpiTransport::new(&self.job, list, own, 2 * self.sharing)?))
    }

    fn allocate(&self, bytes: usize, parts: Parts) -> Result<Segment> {
        // MPI promises no alignment. Every process maps the memory at page boundaries, so all
        // of them skip the same bytes to the next one.
        const PAGE: usize = 4096;
        let padded = bytes.max(1).checked_next_multiple_of(PAGE).and_then(|b| b.checked_add(PAGE));
        let padded = padded
            .ok_or_else(|| Error::input(format!("{bytes} bytes of shared memory: too many")))?;
        let (window, mut bases) =
            sys::allocate_shared(self.communicator, self.ranks, padded, parts)?;
        lock(&self.owned).push(Owned::Window(window));
        for base in &mut bases {
            let skip = base.as_ptr().align_offset(PAGE);
            // SAFETY: skip < PAGE, and the part has a page more than `bytes`.
            *base = unsafe { base.add(skip) };
        }
        let keep: Arc<dyn Any> = Arc::new(());
        // SAFETY: each part has at least `bytes` bytes, zeroed and mapped until the job ends
        // (`Job::finish` takes the last handle of it, after all users are gone).
        Ok(unsafe { Segment::new(bases, bytes, keep) })
    }

    fn peer_failure(&self) -> Option<Error> {
        None // a failed process aborts all of them
    }

    fn report_failure(&self, _error: &Error) {}

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}

/// Requests of one round, with what each was expected to move.
#[derive(Debug, Default)]
pub struct Requests {
    requests: Vec<ffi::MPI_Request>,
    expected: Vec<Expected>,
    statuses: Vec<ffi::MPI_Status>,
}

#[derive(Clone, Copy, Debug)]
struct Expected {
    peer: usize,
    direction: Direction,
    bytes: usize,
}

impl Requests {
    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The peers of unfinished requests.
    pub fn missing(&self) -> Vec<usize> {
        // SAFETY: reading a constant of the library.
        let null = unsafe { ffi::RSMPI_REQUEST_NULL };
        let open = self.requests.iter().zip(&self.expected).filter(|(r, _)| **r != null);
        let mut peers: Vec<usize> = open.map(|(_, e)| e.peer).collect();
        peers.dedup();
        peers
    }

    fn clear(&mut self) {
        self.requests.clear();
        self.expected.clear();
    }

    /// # Safety
    /// The range stays valid and untouched until the request is done or cancelled.
    unsafe fn start(
        &mut self,
        communicator: ffi::MPI_Comm,
        message: &Message,
        at: *mut u8,
        bytes: usize,
        tag: Tag,
    ) -> Result<()> {
        let (peer, direction) = (message.peer, message.direction);
        // SAFETY: passed on.
        let request = unsafe { sys::start(communicator, peer, direction, at, bytes, tag)? };
        self.requests.push(request);
        self.expected.push(Expected { peer, direction, bytes });
        Ok(())
    }

    fn test(&mut self, rank: usize) -> Result<bool> {
        if self.requests.is_empty() {
            return Ok(true);
        }
        let done = sys::test_all(&mut self.requests, &mut self.statuses);
        match done {
            Ok(false) => Ok(false),
            Ok(true) => {
                for (status, expected) in self.statuses.iter().zip(&self.expected) {
                    if expected.direction == Direction::Receive {
                        let got = sys::received_bytes(status)?;
                        if got != expected.bytes {
                            let peer = expected.peer;
                            return Err(super::threads::length_error(
                                rank,
                                peer,
                                got,
                                expected.bytes,
                            ));
                        }
                    }
                }
                self.clear();
                Ok(true)
            }
            Err(failed) if failed.is_truncation => {
                let peers = self.missing();
                let what = format!(
                    "a rank among {peers:?} sent more bytes than expected: the ranks called this \
                     collective with different lengths, types or algorithms"
                );
                Err(Error::new(ErrorKind::Disagreement, what).on_rank(rank))
            }
            Err(failed) => Err(failed.error.on_rank(rank)),
        }
    }

    fn cancel(&mut self) {
        for (request, expected) in self.requests.iter_mut().zip(&self.expected) {
            sys::cancel(request, expected.direction);
        }
        self.clear();
    }
}

/// Where a window's memory of one rank starts.
type Bases = Vec<NonNull<u8>>;
