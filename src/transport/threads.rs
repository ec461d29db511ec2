//! Ranks as threads of one process: the embedded default, and the fast way to test.
//!
//! Messages go through one mailbox a (receiver, sender) pair and are copied once on each side; a
//! round is therefore never rendezvous, and giving one up leaves nothing behind. Shared memory is
//! one allocation that all threads of the node reach. Nodes can be made up, to run plans for many
//! nodes on one machine.

use std::cell::Cell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::memory::{Allocation, Segment};
use super::wait::{Wait, WaitPolicy};
use super::{Direction, Message, Native, Parts, Posted, TELL, Tag, Transport};
use crate::error::{Error, ErrorKind, Result};

/// A message in a mailbox.
struct Letter {
    tag: Tag,
    bytes: Box<[u8]>,
}

/// The first failure of the job; whoever waits looks at it.
#[derive(Debug, Default)]
pub struct Failure {
    known: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Failure {
    /// Makes a failure known, unless another one is already.
    pub fn report(&self, error: &Error) {
        lock(&self.error).get_or_insert_with(|| error.clone());
        self.known.store(true, Ordering::Release);
    }

    /// The first failure.
    pub fn first(&self) -> Option<Error> {
        if !self.known.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.error).clone()
    }
}

/// What the ranks of one group share.
struct Hub {
    ranks: usize,
    /// The node of each rank.
    nodes: Vec<usize>,
    /// `mailboxes[to * ranks + from]`.
    mailboxes: Vec<Mutex<VecDeque<Letter>>>,
    /// Groups being split off, by (number of the split, color).
    splits: Mutex<BTreeMap<(u64, usize), Arc<Hub>>>,
    /// Allocations under way, by number: the memory, and how many ranks have yet to take it.
    allocations: Mutex<BTreeMap<u64, (Arc<Allocation>, usize)>>,
    failure: Arc<Failure>,
    limit: Duration,
    /// Threads of the whole job.
    sharing: usize,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({} ranks)", self.ranks)
    }
}

/// A thread that panicked while it held a lock left no half-made state: every critical section
/// here is a single push, pop or insert.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The endpoint of one thread.
#[derive(Debug)]
pub struct ThreadTransport {
    hub: Arc<Hub>,
    rank: usize,
    splits: Cell<u64>,
    allocations: Cell<u64>,
}

/// The tag of messages that the transport itself sends.
const INTERNAL: Tag = Tag::MAX;

impl ThreadTransport {
    /// Endpoints for `nodes.len()` ranks, rank `r` on node `nodes[r]`. `limit` bounds every wait
    /// inside the transport.
    pub fn group(nodes: Vec<usize>, limit: Duration) -> Vec<ThreadTransport> {
        let sharing = nodes.len();
        let hub = Arc::new(Hub::new(nodes, Arc::default(), limit, sharing));
        (0..hub.ranks).map(|rank| ThreadTransport::new(hub.clone(), rank)).collect()
    }

    /// Where the ranks of the job learn of a failure.
    pub fn failure(&self) -> &Arc<Failure> {
        &self.hub.failure
    }

    fn new(hub: Arc<Hub>, rank: usize) -> Self {
        ThreadTransport { hub, rank, splits: Cell::new(0), allocations: Cell::new(0) }
    }

    /// An endpoint in the group of the ranks with this color.
    fn split_off(&self, color: usize, key: usize, sharing: usize) -> Result<ThreadTransport> {
        let number = self.splits.replace(self.splits.get() + 1);
        let colors = self.exchange(color as u64)?;
        let keys = self.exchange(key as u64)?;
        let mut members: Vec<usize> =
            (0..self.hub.ranks).filter(|&r| colors[r] == color as u64).collect();
        members.sort_by_key(|&r| (keys[r], r));
        let rank = members.iter().position(|&r| r == self.rank).unwrap_or(0);
        let group = lock(&self.hub.splits)
            .entry((number, color))
            .or_insert_with(|| {
                let nodes = members.iter().map(|&r| self.hub.nodes[r]).collect();
                let hub = &self.hub;
                Arc::new(Hub::new(nodes, hub.failure.clone(), hub.limit, sharing))
            })
            .clone();
        // Once all have their handle the table can let go of the group.
        self.exchange(0)?;
        lock(&self.hub.splits).remove(&(number, color));
        Ok(ThreadTransport::new(group, rank))
    }

    /// Gives every rank's word to all ranks.
    fn exchange(&self, word: u64) -> Result<Vec<u64>> {
        for to in (0..self.hub.ranks).filter(|&to| to != self.rank) {
            let letter = Letter { tag: INTERNAL, bytes: Box::new(word.to_ne_bytes()) };
            lock(self.hub.mailbox(to, self.rank)).push_back(letter);
        }
        let mut words = Vec::with_capacity(self.hub.ranks);
        for from in 0..self.hub.ranks {
            words.push(if from == self.rank { word } else { self.wait_for_word(from)? });
        }
        Ok(words)
    }

    fn wait_for_word(&self, from: usize) -> Result<u64> {
        let mut wait = Wait::new(WaitPolicy { spins: 20, limit: self.hub.limit });
        loop {
            if let Some(letter) = self.hub.take(self.rank, from, INTERNAL) {
                let bytes: [u8; 8] = letter.bytes[..].try_into().map_err(|_| {
                    Error::internal(format!(
                        "rank {from} sent {} bytes as a word",
                        letter.bytes.len()
                    ))
                })?;
                return Ok(u64::from_ne_bytes(bytes));
            }
            if let Some(error) = self.peer_failure() {
                return Err(error);
            }
            if !wait.pause() {
                let what = format!(
                    "waited {:.1} s for rank {from} to join a group or an allocation",
                    wait.waited().as_secs_f64()
                );
                return Err(Error::new(ErrorKind::Timeout, what).on_rank(self.rank));
            }
        }
    }
}

impl Hub {
    fn new(nodes: Vec<usize>, failure: Arc<Failure>, limit: Duration, sharing: usize) -> Self {
        let ranks = nodes.len();
        Hub {
            ranks,
            nodes,
            mailboxes: (0..ranks * ranks).map(|_| Mutex::default()).collect(),
            splits: Mutex::default(),
            allocations: Mutex::default(),
            failure,
            limit,
            sharing,
        }
    }

    fn mailbox(&self, to: usize, from: usize) -> &Mutex<VecDeque<Letter>> {
        &self.mailboxes[to * self.ranks + from]
    }

    /// The oldest letter with this tag, if there is one.
    fn take(&self, to: usize, from: usize, tag: Tag) -> Option<Letter> {
        let mut mailbox = lock(self.mailbox(to, from));
        let position = mailbox.iter().position(|letter| letter.tag == tag)?;
        mailbox.remove(position)
    }
}

impl Transport for ThreadTransport {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.hub.ranks
    }

    fn sharing(&self) -> usize {
        self.hub.sharing
    }

    unsafe fn post(&self, tag: Tag, messages: &[Message], posted: &mut Posted) -> Result<()> {
        posted.tag = tag;
        posted.receives.clear();
        for message in messages {
            match message.direction {
                Direction::Receive => posted.receives.push(*message),
                Direction::Send => {
                    // SAFETY: the caller vouches that the range is valid and untouched.
                    let bytes = unsafe { std::slice::from_raw_parts(message.at, message.bytes) };
                    let letter = Letter { tag, bytes: bytes.into() };
                    lock(self.hub.mailbox(message.peer, self.rank)).push_back(letter);
                }
            }
        }
        Ok(())
    }

    fn poll(&self, posted: &mut Posted) -> Result<bool> {
        let tag = posted.tag;
        let mut wrong = None;
        // In order for each sender: once a letter is not there, later ones of it must wait.
        let mut blocked: Vec<usize> = Vec::new();
        posted.receives.retain(|message| {
            if wrong.is_some() || blocked.contains(&message.peer) {
                return true;
            }
            let Some(letter) = self.hub.take(self.rank, message.peer, tag) else {
                blocked.push(message.peer);
                return true;
            };
            if letter.bytes.len() != message.bytes {
                wrong = Some((message.peer, letter.bytes.len(), message.bytes));
                return true;
            }
            // SAFETY: the poster vouched for the range until the round is done, and the letter
            // has exactly its length.
            unsafe {
                std::ptr::copy_nonoverlapping(letter.bytes.as_ptr(), message.at, message.bytes);
            }
            false
        });
        match wrong {
            None => Ok(posted.receives.is_empty()),
            Some((peer, sent, expected)) => Err(length_error(self.rank, peer, sent, expected)),
        }
    }

    fn cancel(&self, posted: &mut Posted) {
        posted.receives.clear();
    }

    fn tell(&self, to: usize, words: &[u64]) -> Result<()> {
        let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        lock(self.hub.mailbox(to, self.rank)).push_back(Letter { tag: TELL, bytes });
        Ok(())
    }

    fn hear(&self) -> Result<Option<(usize, Vec<u64>)>> {
        let letters = (0..self.hub.ranks)
            .find_map(|from| self.hub.take(self.rank, from, TELL).map(|letter| (from, letter)));
        Ok(letters.map(|(from, letter)| {
            let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
            (from, letter.bytes.chunks_exact(8).map(word).collect())
        }))
    }

    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Transport>> {
        Ok(Box::new(self.split_off(color, key, self.hub.sharing)?))
    }

    fn split_by_node(&self) -> Result<Box<dyn Transport>> {
        self.split(self.hub.nodes[self.rank], self.rank)
    }

    fn for_another_thread(&self) -> Result<Box<dyn Transport + Send>> {
        Ok(Box::new(self.split_off(0, self.rank, 2 * self.hub.sharing)?))
    }

    fn allocate(&self, bytes: usize, parts: Parts) -> Result<Segment> {
        let number = self.allocations.replace(self.allocations.get() + 1);
        let asked = self.exchange(bytes as u64)?;
        if let Some(other) = asked.iter().position(|&b| b != bytes as u64) {
            let what = format!(
                "ranks ask for different sizes of shared memory: rank {} for {bytes} bytes, rank \
                 {other} for {} bytes; the length of a shared buffer is the same on every rank",
                self.rank, asked[other]
            );
            return Err(Error::new(ErrorKind::Disagreement, what));
        }
        let allocation = {
            let mut table = lock(&self.hub.allocations);
            let (allocation, left) = match table.entry(number) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let many = if parts == Parts::Each { self.hub.ranks } else { 1 };
                    let made = Arc::new(Allocation::new(bytes, many)?);
                    entry.insert((made, self.hub.ranks))
                }
            };
            let taken = allocation.clone();
            *left -= 1;
            if *left == 0 {
                table.remove(&number);
            }
            taken
        };
        Ok(Allocation::into_segment(allocation, bytes, self.hub.ranks, parts))
    }

    fn peer_failure(&self) -> Option<Error> {
        self.hub.failure.first()
    }

    fn report_failure(&self, error: &Error) {
        self.hub.failure.report(error);
    }

    fn native(&self) -> Option<&dyn Native> {
        None
    }
}

/// A message of the wrong length arrived.
pub(super) fn length_error(rank: usize, peer: usize, sent: usize, expected: usize) -> Error {
    let what = format!(
        "rank {peer} sent {sent} bytes where {expected} were expected: the ranks called this \
         collective with different lengths, types or algorithms"
    );
    Error::new(ErrorKind::Disagreement, what).on_rank(rank)
}
