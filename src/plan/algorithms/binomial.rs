//! Binomial tree: broadcast, gather and scatter in logarithmic depth.
//!
//! ```text
//! v = (r - root) mod p        the number of a rank, counted from the root
//! parent of v:  v without its lowest bit
//! children of v: v + m for each power of two m below the lowest bit of v (root: below p)
//! subtree of child v + m:  v + m .. v + 2 m, cut at p
//!
//! broadcast: receive from the parent, send to the children, the largest subtree first
//! scatter:   the same, each child getting the shards of its subtree
//! gather:    the reverse, the smallest subtree first
//! ```
//!
//! ceil(log2 p) rounds deep. broadcast: the root sends n ceil(log2 p) elements, all ranks together
//! n (p-1). gather and scatter: n - c at the root; every shard is forwarded once a level, so about
//! (n/2) log2 p altogether. Any p, any root, any shards. Workspace of gather and scatter: the
//! largest subtree. The shards of a subtree may wrap round the end of the vector; they then travel
//! as two messages. `scatter_ring` is the broadcast for long vectors (van de Geijn): a scatter,
//! then a ring all_gather, about 2 (p-1)/p n elements a rank.

use super::embed::spread;
use super::{after, before, circular_span, copy, receive, ring, send};
use crate::plan::{Plan, Problem, Slice};
use crate::sharding::Sharding;
use crate::topology::Topology;

/// The tree as one rank sees it.
struct Tree {
    p: usize,
    root: usize,
    /// The own number, counted from the root.
    v: usize,
}

impl Tree {
    fn new(problem: &Problem, rank: usize) -> Self {
        let (p, root) = (problem.ranks(), problem.collective.root().unwrap_or(0));
        Tree { p, root, v: before(rank, root, p) }
    }

    fn rank(&self, v: usize) -> usize {
        after(self.root, v, self.p)
    }

    /// The number of ranks in the subtree of `v`.
    fn size(&self, v: usize) -> usize {
        if v == 0 { self.p } else { (v & v.wrapping_neg()).min(self.p - v) }
    }

    fn parent(&self) -> Option<usize> {
        (self.v > 0).then(|| self.rank(self.v & (self.v - 1)))
    }

    /// The children, the largest subtree first.
    fn children(&self) -> impl DoubleEndedIterator<Item = usize> {
        let (v, size) = (self.v, self.size(self.v));
        (0..usize::BITS)
            .rev()
            .map(|bit| 1usize << bit)
            .filter(move |m| *m < size)
            .map(move |m| v + m)
    }

    /// The elements of the subtree of `v`: two ranges of the whole vector.
    fn elements(&self, shards: &Sharding, v: usize) -> [std::ops::Range<usize>; 2] {
        circular_span(shards, self.rank(v), self.size(v))
    }

    /// Where the elements of the subtree of `v` lie at this rank: at their places in `whole` at
    /// the root, packed in the workspace elsewhere.
    fn places(&self, shards: &Sharding, v: usize, whole: Slice) -> [Slice; 2] {
        let elements = self.elements(shards, v);
        if self.v == 0 {
            return elements.map(|range| whole.part(range));
        }
        let before = circular_span(shards, self.rank(self.v), v - self.v);
        let start = before[0].len() + before[1].len();
        let middle = start + elements[0].len();
        [Slice::scratch(start..middle), Slice::workspace(middle, elements[1].len())]
    }

    /// The workspace of the largest subtree, the same for all ranks.
    fn workspace(&self, shards: &Sharding) -> usize {
        (1..self.p)
            .filter(|&v| self.size(v) > 1)
            .map(|v| self.elements(shards, v).map(|range| range.len()).iter().sum())
            .max()
            .unwrap_or(0)
    }
}

/// The whole vector flows from the root to the leaves.
pub fn broadcast(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let tree = Tree::new(problem, rank);
    let whole = Slice::output(0..problem.sharding.n());
    let mut plan = Plan::new(rank);
    if let Some(parent) = tree.parent() {
        plan.round(vec![receive(parent, whole)]);
    }
    for child in tree.children() {
        plan.round(vec![send(tree.rank(child), whole)]);
    }
    plan
}

/// Subtrees are collected from the leaves to the root.
pub fn gather(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (tree, shards) = (Tree::new(problem, rank), &problem.sharding);
    let own = Slice::input(0..shards.count(rank));
    let whole = Slice::output(0..problem.output_len(rank));
    let mut plan = Plan::new(rank);
    plan.scratch = tree.workspace(shards);
    let leaf = tree.size(tree.v) == 1 && tree.v > 0;
    if !leaf {
        let home =
            if tree.v == 0 { whole.part(shards.range(rank)) } else { Slice::workspace(0, own.len) };
        plan.round(vec![copy(own, home)]);
    }
    for child in tree.children().rev() {
        let from = tree.rank(child);
        plan.round(tree.places(shards, child, whole).map(|into| receive(from, into)).to_vec());
    }
    if let Some(parent) = tree.parent() {
        let packed = if leaf { [own, own.part(0..0)] } else { tree.places(shards, tree.v, whole) };
        plan.round(packed.map(|from| send(parent, from)).to_vec());
    }
    plan
}

/// Subtrees are handed out from the root to the leaves.
pub fn scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (tree, shards) = (Tree::new(problem, rank), &problem.sharding);
    let own = Slice::output(0..shards.count(rank));
    let whole = Slice::input(0..problem.input_len(rank));
    let mut plan = Plan::new(rank);
    plan.scratch = tree.workspace(shards);
    let leaf = tree.size(tree.v) == 1 && tree.v > 0;
    if let Some(parent) = tree.parent() {
        let packed = if leaf { [own, own.part(0..0)] } else { tree.places(shards, tree.v, whole) };
        plan.round(packed.map(|into| receive(parent, into)).to_vec());
    }
    for child in tree.children() {
        let to = tree.rank(child);
        plan.round(tree.places(shards, child, whole).map(|from| send(to, from)).to_vec());
    }
    if !leaf {
        let home =
            if tree.v == 0 { whole.part(shards.range(rank)) } else { Slice::workspace(0, own.len) };
        plan.round(vec![copy(home, own)]);
    }
    plan
}

/// A binomial scatter, then a ring all_gather.
pub fn scatter_ring(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    spread(problem, topology, rank, scatter, ring::all_gather)
}
