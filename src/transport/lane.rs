//! Where the ranks of a node meet: one flag line a rank, and the workspace of a collective.
//!
//! To meet for the m-th time a rank writes m into its own line and looks at the others' lines:
//! one cache line written, `locals − 1` read, no atomic read-modify-write. The same line carries
//! seven words, so what a collective must compare or publish before it starts (its signature, where
//! its buffers are) costs no extra trip. Lines alternate: a rank can be one meet ahead of a peer
//! that still reads the words of the last one, never two.
//!
//! A call of one meet whose workspace fits in the words that are left over ([`PAYLOAD_BYTES`])
//! takes those as its workspace: then the elements come with the flag, in one trip instead of two
//! (8 bytes between two ranks: 0.18 µs for 0.22).
//!
//! The workspace has two halves that alternate from call to call, because a peer may still read
//! from this rank's half when the call has returned here. Before a half is used again all ranks
//! have met at least once since, or meet once more.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::memory::{Allocation, Segment};
use super::{Parts, Transport};
use crate::error::Result;

/// The words that ride on a flag line.
pub const WORDS: usize = 7;
/// The words of one meet.
pub type Words = [u64; WORDS];

/// Words of a line that a call without shared buffers leaves free, at the end.
const FREE_WORDS: usize = 4;
/// What a line can carry as the workspace of a call of one meet.
pub const PAYLOAD_BYTES: usize = FREE_WORDS * size_of::<u64>();

const NOTE_BYTES: usize = 120;

/// What one rank shows its peers. All fields are atomic: they are shared between processes.
#[repr(C, align(64))]
struct Line {
    arrived: AtomicU64,
    words: [AtomicU64; WORDS],
}

#[repr(C, align(64))]
struct Board {
    lines: [Line; 2],
    notes: [Note; 2],
    /// Set by the first rank of the node that reports the failure of the job.
    claimed: AtomicU64,
}

#[repr(C, align(64))]
struct Note {
    len: AtomicU64,
    text: [AtomicU64; NOTE_BYTES / 8],
}

/// One row of boards for the ranks of a node. Operations on one lane happen one after another.
#[derive(Debug)]
pub struct Lane {
    /// `None` when the rank is alone on its node: then there is nobody to meet.
    boards: Option<Segment>,
    /// Which of the boards of each rank is this lane's.
    number: usize,
    local: usize,
    locals: usize,
    meets: Cell<u64>,
    /// Peers before this one have arrived at the current meet.
    seen: Cell<usize>,
    noted: [Cell<(usize, usize)>; 2],
    scratch: RefCell<Scratch>,
}

#[derive(Debug, Default)]
struct Scratch {
    halves: Option<Segment>,
    capacity: usize,
    next: usize,
    /// The number of meets when each half was last in use.
    used_at: [Option<u64>; 2],
}

impl Lane {
    /// `many` lanes for the ranks of `node`, which share memory. Collective over them.
    pub fn many(node: &dyn Transport, many: usize) -> Result<Vec<Self>> {
        if node.ranks() == 1 {
            return Ok((0..many).map(|_| Lane::alone()).collect());
        }
        let boards = node.allocate(many * size_of::<Board>(), Parts::Each)?;
        let lane = |number| Lane {
            boards: Some(boards.clone()),
            number,
            local: node.rank(),
            locals: node.ranks(),
            ..Lane::alone()
        };
        Ok((0..many).map(lane).collect())
    }

    /// A lane for a rank without node peers.
    pub fn alone() -> Self {
        Lane {
            boards: None,
            number: 0,
            local: 0,
            locals: 1,
            meets: Cell::new(0),
            seen: Cell::new(0),
            noted: Default::default(),
            scratch: RefCell::default(),
        }
    }

    /// True for the first rank of the node that asks: it speaks for all of them.
    pub fn claim(&self) -> bool {
        self.board(0).is_none_or(|board| board.claimed.swap(1, Ordering::Relaxed) == 0)
    }

    /// The number of ranks that meet here.
    pub fn locals(&self) -> usize {
        self.locals
    }

    /// The position of this rank among them.
    pub fn local(&self) -> usize {
        self.local
    }

    fn board(&self, local: usize) -> Option<&Board> {
        let segment = self.boards.as_ref()?;
        // SAFETY: the segment was allocated with a board for each rank and lane, zeroed (a valid
        // board) and aligned to 64 bytes, and lives as long as `self`.
        Some(unsafe { segment.base(local).cast::<Board>().add(self.number).as_ref() })
    }

    /// Arrives at the next meet, with words for the peers: all of the line, or the first of them
    /// when the rest is workspace.
    pub fn arrive_with(&self, words: &[u64]) {
        if let Some(board) = self.board(self.local) {
            let line = &board.lines[(self.meets.get() + 1) as usize % 2];
            for (slot, word) in line.words.iter().zip(words) {
                slot.store(*word, Ordering::Relaxed);
            }
        }
        self.arrive();
    }

    /// Arrives at the next meet.
    pub fn arrive(&self) {
        let meet = self.meets.get() + 1;
        self.meets.set(meet);
        self.seen.set(0);
        if let Some(board) = self.board(self.local) {
            board.lines[meet as usize % 2].arrived.store(meet, Ordering::Release);
        }
    }

    /// Whether all ranks have arrived at the meet that this rank arrived at last.
    #[inline]
    pub fn all_arrived(&self) -> bool {
        let meet = self.meets.get();
        let mut seen = self.seen.get();
        while seen < self.locals {
            if seen != self.local && !self.has_arrived(seen, meet) {
                self.seen.set(seen);
                return false;
            }
            seen += 1;
        }
        self.seen.set(seen);
        true
    }

    #[inline]
    fn has_arrived(&self, local: usize, meet: u64) -> bool {
        self.board(local).is_none_or(|board| {
            board.lines[meet as usize % 2].arrived.load(Ordering::Acquire) == meet
        })
    }

    /// The local ranks that have not arrived at the current meet.
    pub fn missing(&self) -> Vec<usize> {
        let meet = self.meets.get();
        (0..self.locals).filter(|&l| l != self.local && !self.has_arrived(l, meet)).collect()
    }

    /// The words that a peer brought to the current meet. Valid until this rank arrives again.
    pub fn words_of(&self, local: usize) -> Words {
        let mut words = [0; WORDS];
        if let Some(board) = self.board(local) {
            let line = &board.lines[self.meets.get() as usize % 2];
            for (word, slot) in words.iter_mut().zip(&line.words) {
                *word = slot.load(Ordering::Relaxed);
            }
        }
        words
    }

    /// Writes a text that peers can read at the next meet (the call site). The same string is
    /// written once only.
    pub fn note(&self, text: &'static str, number: u32) {
        let parity = (self.meets.get() + 1) as usize % 2;
        let same = (text.as_ptr() as usize, number as usize);
        let Some(board) = self.board(self.local) else { return };
        if self.noted[parity].replace(same) == same {
            return;
        }
        // On the stack and in whole words: this runs in every call when call sites take turns.
        const DIGITS: usize = 11; // a colon and a u32
        let mut digits = [0u8; DIGITS];
        let mut rest: &mut [u8] = &mut digits;
        let written = write!(rest, ":{number}").map_or(0, |()| DIGITS - rest.len());
        let tail = &text.as_bytes()[text.len().saturating_sub(NOTE_BYTES - written)..];
        let mut bytes = [0u8; NOTE_BYTES];
        bytes[..tail.len()].copy_from_slice(tail);
        bytes[tail.len()..tail.len() + written].copy_from_slice(&digits[..written]);
        let note = &board.notes[parity];
        note.len.store((tail.len() + written) as u64, Ordering::Relaxed);
        for (slot, word) in note.text.iter().zip(bytes.chunks_exact(8)) {
            let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
            slot.store(word, Ordering::Relaxed);
        }
    }

    /// The text of a peer at the current meet.
    pub fn note_of(&self, local: usize) -> String {
        let Some(board) = self.board(local) else { return String::new() };
        let note = &board.notes[self.meets.get() as usize % 2];
        let len = (note.len.load(Ordering::Relaxed) as usize).min(NOTE_BYTES);
        let words = note.text.iter().map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let bytes: Vec<u8> = words.flatten().take(len).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether `bytes` of workspace fit without growing it.
    pub fn has_scratch(&self, bytes: usize) -> bool {
        bytes <= self.scratch.borrow().capacity
    }

    /// Grows the workspace to at least `bytes` a half. Collective over the node, whose endpoint
    /// is not needed for a rank without node peers.
    pub fn grow_scratch(&self, node: Option<&dyn Transport>, bytes: usize) -> Result<()> {
        const SMALLEST: usize = 1 << 20;
        let capacity = bytes.next_power_of_two().max(SMALLEST);
        let segment = match node {
            Some(node) if self.locals > 1 => node.allocate(2 * capacity, Parts::Each)?,
            _ => Allocation::private(2 * capacity)?,
        };
        let mut scratch = self.scratch.borrow_mut();
        *scratch = Scratch { halves: Some(segment), capacity, next: 0, used_at: [None; 2] };
        Ok(())
    }

    /// Whether the next half may still be read by a peer, so that the ranks must meet first.
    /// The same on all ranks of the node, since all have met equally often.
    pub fn next_half_is_busy(&self) -> bool {
        let scratch = self.scratch.borrow();
        self.locals > 1 && scratch.used_at[scratch.next] == Some(self.meets.get())
    }

    /// Takes the next half of the workspace: the start of the half of every rank of the node, and
    /// its size. Empty when there is no workspace.
    pub(in crate::transport) fn take_half(&self, bases: &mut Vec<*mut u8>) -> usize {
        let mut scratch = self.scratch.borrow_mut();
        let (half, capacity) = (scratch.next, scratch.capacity);
        bases.clear();
        let Some(segment) = &scratch.halves else {
            bases.resize(self.locals, std::ptr::NonNull::dangling().as_ptr());
            return 0;
        };
        for local in 0..self.locals {
            // SAFETY: each rank's part holds two halves of `capacity` bytes.
            bases.push(unsafe { segment.base(local).as_ptr().add(half * capacity) });
        }
        scratch.next = 1 - half;
        capacity
    }

    /// Takes the free words of the lines of the next meet as workspace: their start on every rank
    /// of the node, and their size.
    ///
    /// What this rank writes there before it arrives is read by peers between that meet and their
    /// next one. This rank writes the same line again only for the meet after that one, which it
    /// cannot reach before all peers have arrived at the one between.
    pub(in crate::transport) fn take_payload(&self, bases: &mut Vec<*mut u8>) -> usize {
        use std::mem::offset_of;
        bases.clear();
        let Some(segment) = &self.boards else {
            bases.resize(self.locals, std::ptr::NonNull::dangling().as_ptr());
            return 0;
        };
        let parity = (self.meets.get() + 1) as usize % 2;
        let in_line = offset_of!(Line, words) + (WORDS - FREE_WORDS) * size_of::<u64>();
        let in_board = offset_of!(Board, lines) + parity * size_of::<Line>() + in_line;
        for local in 0..self.locals {
            // SAFETY: each rank's part holds a board for each lane.
            let board = unsafe { segment.base(local).cast::<Board>().add(self.number) };
            // SAFETY: the words lie inside the board.
            bases.push(unsafe { board.cast::<u8>().add(in_board) }.as_ptr());
        }
        PAYLOAD_BYTES
    }

    /// Notes that the half taken last is no longer used by this rank.
    pub fn release_half(&self) {
        let mut scratch = self.scratch.borrow_mut();
        let half = 1 - scratch.next;
        scratch.used_at[half] = Some(self.meets.get());
    }
}
