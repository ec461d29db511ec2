//! What a rank says of a collective before it starts, so that ranks which call different things
//! find out instead of hanging or corrupting memory.
//!
//! Three words ride on the flag line of the first meet (see `transport::lane`): what is called,
//! how long it is, and a hash of everything else that must agree. Four more say where the rank's
//! buffers lie in shared memory. The call site is written beside them and read only on a mismatch.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::Location;

use crate::element::{DType, Op};
use crate::error::{Error, ErrorKind};
use crate::plan::{Collective, Problem};
use crate::transport::lane::{Lane, Words};
use crate::transport::memory::Located;
use crate::transport::{TAG_BITS, Tag};

/// The part of the words that must be the same on all ranks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Signature {
    /// Collective, element type, operator, root.
    what: u64,
    /// Elements of the whole vector, or of all messages together.
    n: u64,
    /// A hash of counts, algorithm and kinds of buffers.
    rest: u64,
}

/// Bits of a tag for the lane.
const LANE_BITS: u32 = 4;

/// A multiplier that mixes low bits into high ones.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The tag of the messages of a call on a lane, after [`Signature::chain`]: messages of ranks that
/// call different things, or have done so before, do not match, and so never reach a buffer.
pub fn tag(chain: u64, lane: usize) -> Tag {
    const BITS: u32 = TAG_BITS - LANE_BITS;
    let mixed = (chain ^ chain >> 32).wrapping_mul(ODD);
    // All ones is the tag of another kind of message.
    let bits = ((mixed >> (64 - BITS)) as Tag).min((1 << BITS) - 2);
    (lane as Tag) << BITS | bits
}

/// The allocation of a shared buffer, which is no collective of a plan.
const SHARED: u64 = 0xff;
/// The first of [`Occasion`].
const OCCASIONS: u64 = 0xf0;

/// What all ranks do together without moving elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occasion {
    /// They make other groups of themselves.
    Split,
    /// Their program ends.
    End,
}

impl Occasion {
    /// All of them.
    const ALL: [Occasion; 2] = [Occasion::Split, Occasion::End];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Occasion::Split => "a split of the communicator",
            Occasion::End => "the end of the job",
        }
    }
}

impl Signature {
    /// The signature of a call.
    pub fn new(problem: &Problem, dtype: DType, op: Option<Op>, algorithm: &str) -> Self {
        let collective = place(&Collective::ALL, |c| c.same_kind(problem.collective));
        let dtype = place(&DType::ALL, |d| *d == dtype);
        let op = op.map_or(0, |op| place(&Op::ALL, |o| *o == op));
        let root = problem.collective.root().map_or(0, |root| root as u64 + 1);
        let n = match &problem.counts {
            Some(counts) => counts.iter().sum::<usize>() as u64,
            None => problem.sharding.n() as u64,
        };
        let mut hasher = DefaultHasher::new();
        (problem, algorithm).hash(&mut hasher);
        let what = collective | dtype << 8 | op << 16 | root << 24;
        Signature { what, n, rest: hasher.finish() }
    }

    /// The signature of the allocation of a shared buffer.
    pub fn shared_buffer(bytes: usize) -> Self {
        Signature { what: SHARED, n: bytes as u64, rest: 0 }
    }

    /// The signature of an occasion.
    pub fn occasion(occasion: Occasion) -> Self {
        Signature { what: OCCASIONS + place(&Occasion::ALL, |o| *o == occasion), n: 0, rest: 0 }
    }

    /// The hash of a series of calls that ends with this one; `before` is that of the calls
    /// before it. Ranks that have called the same things in the same order have the same hash.
    pub fn chain(&self, before: u64) -> u64 {
        let own = self.what ^ self.n.rotate_left(20) ^ self.rest;
        (before.rotate_left(23) ^ own).wrapping_mul(ODD)
    }

    /// The words for the flag line.
    pub fn words(&self, input: Located, output: Located) -> Words {
        let Signature { what, n, rest } = *self;
        [what, n, rest, input.key, input.offset as u64, output.key, output.offset as u64]
    }

    /// The signature in a peer's words.
    pub fn from_words(words: &Words) -> Self {
        Signature { what: words[0], n: words[1], rest: words[2] }
    }

    /// Where a peer's input and output lie.
    pub fn located(words: &Words) -> [Located; 2] {
        let at = |i: usize| Located { key: words[i], offset: words[i + 1] as usize };
        [at(3), at(5)]
    }

    /// The signature as three words.
    pub fn to_words(&self) -> [u64; 3] {
        [self.what, self.n, self.rest]
    }

    /// The signature of three words.
    pub fn from_parts([what, n, rest]: [u64; 3]) -> Self {
        Signature { what, n, rest }
    }

    /// In words: `all_reduce(f32, n = 1000, sum)`.
    fn describe(&self) -> String {
        if self.what == SHARED {
            return format!("shared({} bytes)", self.n);
        }
        if let Some(occasion) =
            Occasion::ALL.into_iter().find(|&o| self.what == Signature::occasion(o).what)
        {
            return occasion.name().to_string();
        }
        let byte = |shift: u32| (self.what >> shift & 0xff) as usize;
        let pick = |i: usize, names: Vec<&'static str>| {
            names.get(i.wrapping_sub(1)).copied().unwrap_or("?").to_string()
        };
        let collective = pick(byte(0), Collective::ALL.map(Collective::name).to_vec());
        let mut parts =
            vec![pick(byte(8), DType::ALL.map(DType::name).to_vec()), format!("n = {}", self.n)];
        if byte(16) > 0 {
            parts.push(pick(byte(16), Op::ALL.map(Op::name).to_vec()));
        }
        if self.what >> 24 > 0 {
            parts.push(format!("root = {}", (self.what >> 24) - 1));
        }
        format!("{collective}({})", parts.join(", "))
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

/// One more than the position of the first match; 0 if there is none.
fn place<T>(all: &[T], matches: impl Fn(&T) -> bool) -> u64 {
    all.iter().position(matches).map_or(0, |i| i as u64 + 1)
}

/// Compares the signatures of all ranks of a node after they have met. `ranks[local]` is the
/// rank's number in the communicator, for the message.
pub fn compare(own: &Signature, lane: &Lane, ranks: &[usize], call: u64) -> Result<(), Error> {
    let peers = (0..lane.locals()).filter(|&l| l != lane.local());
    let differs = |l: usize| Signature::from_words(&lane.words_of(l)) != *own;
    if !peers.clone().any(differs) {
        return Ok(());
    }
    Err(mismatch(lane, ranks, call))
}

#[cold]
fn mismatch(lane: &Lane, ranks: &[usize], call: u64) -> Error {
    let calls = (0..lane.locals()).map(|local| Called {
        rank: ranks[local],
        signature: Signature::from_words(&lane.words_of(local)),
        site: lane.note_of(local),
    });
    disagreement(&calls.collect::<Vec<_>>(), call)
}

/// What one rank called, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Called {
    /// The rank in the communicator.
    pub rank: usize,
    /// What it called.
    pub signature: Signature,
    /// Where, as `file:line`.
    pub site: String,
}

/// The error of ranks that called different things.
pub fn disagreement(calls: &[Called], call: u64) -> Error {
    let mut groups: BTreeMap<Signature, Vec<&Called>> = BTreeMap::new();
    for called in calls {
        groups.entry(called.signature).or_default().push(called);
    }
    let mut groups: Vec<(Signature, Vec<&Called>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, group)| (std::cmp::Reverse(group.len()), group[0].rank));
    let alike = groups.iter().all(|(s, _)| s.describe() == groups[0].0.describe());
    let texts: Vec<String> = groups
        .iter()
        .map(|(signature, group)| {
            let numbers: Vec<String> = group.iter().map(|c| c.rank.to_string()).collect();
            let who = if numbers.len() == 1 { "rank" } else { "ranks" };
            let mut sites: Vec<&str> = group.iter().map(|c| c.site.as_str()).collect();
            sites.dedup();
            let hash =
                if alike { format!(" [{:08x}]", signature.rest as u32) } else { String::new() };
            let (what, at) = (signature.describe(), sites.join(" and "));
            format!("{who} {} called {what}{hash} at {at}", numbers.join(", "))
        })
        .collect();
    let hint = if alike { " (per-rank counts, kinds of buffers or algorithms differ)" } else { "" };
    let what = format!("ranks disagree in collective no. {call}: {}{hint}", texts.join("; "));
    Error::new(ErrorKind::Disagreement, what)
}

/// Writes the call site where peers can read it.
pub fn note_site(lane: &Lane, site: &'static Location<'static>) {
    lane.note(site.file(), site.line());
}
