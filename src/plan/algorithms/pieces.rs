//! Pieces: how a large vector goes through a small workspace, and through the cache.
//!
//! Every shard is cut into parts of one width; piece k is the k-th part of every shard, so that
//! all owners have work in every piece. The width is such that a piece has about `problem.piece`
//! elements. The workspace of a rank has two slots for pieces, used in turn: while peers read one,
//! its owner fills the other, and one meet a piece is enough.

use super::{Plan, Range, Sharding, Slice, Step};

/// Widths above this are multiples of it, so that parts start at cache lines and vectors.
const GRAIN: usize = 64;

/// The parts of all shards, and their places in the workspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    shards: Sharding,
    width: usize,
    /// Where in a slot the part of each shard starts; the last number is the size of a slot.
    starts: Vec<usize>,
}

impl Parts {
    /// Cuts `shards` so that a piece has at most `piece` elements, or one a shard if that is more.
    pub fn new(shards: &Sharding, piece: usize) -> Self {
        let counts = (0..shards.ranks()).map(|q| shards.count(q));
        let owners = counts.clone().filter(|count| *count > 0).count().max(1);
        let width = piece / owners;
        let width = if width > GRAIN { width / GRAIN * GRAIN } else { width };
        let width = width.min(shards.max_count()).max(1);
        let mut starts = vec![0];
        counts.for_each(|count| starts.push(starts[starts.len() - 1] + count.min(width)));
        Parts { shards: shards.clone(), width, starts }
    }

    /// The number of pieces.
    pub fn pieces(&self) -> usize {
        self.shards.max_count().div_ceil(self.width)
    }

    /// The largest part of a shard.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Elements of workspace for the slots.
    pub fn scratch(&self) -> usize {
        self.pieces().min(2) * self.starts[self.starts.len() - 1]
    }

    /// The part of the shard of `owner` in `piece`, counted from the start of the shard.
    pub fn part(&self, owner: usize, piece: usize) -> Range<usize> {
        let count = self.shards.count(owner);
        (piece * self.width).min(count)..((piece + 1) * self.width).min(count)
    }

    /// The same part, as elements of the whole vector.
    pub fn elements(&self, owner: usize, piece: usize) -> Range<usize> {
        let (part, start) = (self.part(owner, piece), self.shards.range(owner).start);
        start + part.start..start + part.end
    }

    /// The same part, in the workspace.
    pub fn place(&self, owner: usize, piece: usize) -> Slice {
        let slot = piece % 2 * self.starts[self.starts.len() - 1];
        Slice::workspace(slot + self.starts[owner], self.part(owner, piece).len())
    }
}

/// What is done with a piece at one stage of a pipeline.
pub type Stage<'a> = &'a dyn Fn(usize) -> Vec<Step>;

/// Pieces move through `stages`, one stage between two meets: while piece k is at one stage, piece
/// k + 1 is at the stage before. `pieces + stages - 2` meets. A stage may read what peers wrote one
/// stage before, and what is written must be in a slot that alternates from piece to piece.
pub fn pipeline(plan: &mut Plan, pieces: usize, stages: &[Stage<'_>]) {
    if pieces == 0 {
        return;
    }
    for round in 0..pieces + stages.len() - 1 {
        let mut steps = Vec::new();
        for (delay, stage) in stages.iter().enumerate() {
            if let Some(piece) = round.checked_sub(delay).filter(|piece| *piece < pieces) {
                steps.extend(stage(piece));
            }
        }
        match round {
            0 => plan.round(steps),
            _ => plan.meet(steps),
        }
    }
}
