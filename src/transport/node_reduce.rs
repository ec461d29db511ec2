//! Reduces the shared buffers of the ranks of a node block by block, each block staying in the
//! first-level cache, so that whoever owns it can use the sums before they go to memory.
//!
//! Each rank holds some partial results (*parts*), all of one length, in shared buffers; the tree
//! that combines them is given. Reading moves the bytes of each part once; the sums are written
//! only if they are kept.

use std::ops::Range;
use std::rc::Rc;

use super::memory::{Located, Registered, Registry, SharedBuffer};
use crate::element::Element;
use crate::reduce::ReduceFn;

/// How parts are combined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tree {
    /// These parts, by the canonical tree of the kernel.
    Flat(Range<usize>),
    /// The sums of two trees.
    Pair(Box<Tree>, Box<Tree>),
}

impl Tree {
    fn depth(&self) -> usize {
        match self {
            Tree::Flat(_) => 0,
            Tree::Pair(left, right) => 1 + left.depth().max(right.depth()),
        }
    }
}

/// Where a rank's part lies, as it tells the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartAt {
    /// The rank, as the registry knows it.
    pub(crate) world_rank: usize,
    /// The segment and the place in it.
    pub(crate) located: Located,
    /// Elements.
    pub(crate) n: usize,
}

/// The parts of all ranks of a node, while none of them writes outside its own shard.
#[derive(Debug)]
pub(crate) struct NodeReduce<T: Element> {
    parts: Vec<*const u8>,
    /// Where the sums of the own shard are kept.
    kept: Option<*mut u8>,
    n: usize,
    own: Range<usize>,
    kernel: ReduceFn,
    /// The sums of a block, and a block for each level of the tree.
    blocks: Vec<Vec<T>>,
    pointers: Vec<*const u8>,
    _segments: Vec<Rc<Registered>>,
}

impl<T: Element> NodeReduce<T> {
    /// Elements of a block of sums: 16 KiB of f32. With 64 KiB a step with its norm took 1.1 times
    /// as long; with 4 KiB what is done once a block begins to count.
    pub(crate) const BLOCK: usize = 4096;

    /// Finds the parts of all ranks, of `n` elements each, of which this rank owns `own`. The sums
    /// are written to the own shard of `keep` too. `None` if a part is not where its rank says.
    ///
    /// From here on until the ranks have met again, no rank touches its parts but through this:
    /// each writes its own shard only, which no other reads.
    ///
    /// # Panics
    /// If `own` is not inside or `keep` is too short.
    pub(crate) fn new(
        registry: &Registry,
        parts: &[PartAt],
        keep: Option<&mut SharedBuffer<T>>,
        (n, own): (usize, Range<usize>),
        kernel: ReduceFn,
        tree: &Tree,
    ) -> Option<Self> {
        assert!(own.start <= own.end && own.end <= n);
        let (mut pointers, mut segments) = (Vec::new(), Vec::new());
        for part in parts {
            let PartAt { world_rank, located: Located { key, offset }, n: holds } = *part;
            let registered = registry.find(key)?;
            let end = n.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset))?;
            if holds != n || end > registered.segment.bytes() || offset % align_of::<T>() != 0 {
                return None;
            }
            // SAFETY: `offset` lies inside the part of that rank.
            let at = unsafe { registered.base_of(world_rank)?.add(offset) };
            pointers.push(at.as_ptr().cast_const());
            segments.push(registered);
        }
        let kept = keep.map(|buffer| {
            assert!(own.end <= buffer.len());
            // SAFETY: the own shard lies inside the buffer.
            unsafe { buffer.at().as_ptr().add(own.start * size_of::<T>()) }
        });
        Some(NodeReduce {
            parts: pointers,
            kept,
            n,
            own,
            kernel,
            blocks: vec![vec![T::default(); Self::BLOCK]; 1 + tree.depth()],
            pointers: Vec::new(),
            _segments: segments,
        })
    }

    /// Elements of a block of [`NodeReduce::parts`].
    pub(crate) fn block_len(&self, tree: &Tree, most: usize) -> usize {
        // Parts are not copied, so they need not stay in a cache.
        if self.lent(tree, most).is_some() { 4 * Self::BLOCK } else { Self::BLOCK }
    }

    /// The parts that can be used without adding them up: at most `most`, and no sums are kept.
    fn lent(&self, tree: &Tree, most: usize) -> Option<Range<usize>> {
        match tree {
            Tree::Flat(parts) if parts.len() <= most && self.kept.is_none() => Some(parts.clone()),
            _ => None,
        }
    }

    /// Elements `block` of the own shard: up to `most` parts which the canonical tree adds up, or
    /// their sum.
    ///
    /// # Panics
    /// If the block is longer than [`NodeReduce::block_len`] or not inside.
    pub(crate) fn parts(&mut self, tree: &Tree, block: Range<usize>, most: usize) -> Vec<&[T]> {
        let Some(parts) = self.lent(tree, most) else { return vec![self.block(tree, block)] };
        assert!(block.start <= block.end && block.end <= self.own.len());
        let start = (self.own.start + block.start) * size_of::<T>();
        let part = |part: &*const u8| {
            // SAFETY: every part holds `n` elements, aligned, of plain data, and the own shard lies
            // in them; between the meets no rank writes it, since the sums are not kept.
            unsafe { std::slice::from_raw_parts(part.add(start).cast::<T>(), block.len()) }
        };
        self.parts[parts].iter().map(part).collect()
    }

    /// The sums of elements `block` of the own shard, at most [`Self::BLOCK`] of them.
    ///
    /// # Panics
    /// If the block is too long or not inside.
    fn block(&mut self, tree: &Tree, block: Range<usize>) -> &[T] {
        let len = block.len();
        assert!(len <= Self::BLOCK && block.end <= self.own.len());
        self.combine(tree, self.own.start + block.start, len, 0);
        if let Some(kept) = self.kept {
            let from = self.blocks[0].as_ptr().cast::<u8>();
            // SAFETY: the block lies inside the own shard, which is this rank's alone to write and
            // no peer reads; the source is private memory of at least `len` elements.
            unsafe {
                let into = kept.add(block.start * size_of::<T>());
                std::ptr::copy_nonoverlapping(from, into, len * size_of::<T>());
            }
        }
        &self.blocks[0][..len]
    }

    /// Puts the sums of `len` elements from `start` of all parts into the block of a level.
    fn combine(&mut self, tree: &Tree, start: usize, len: usize, level: usize) {
        if let Tree::Pair(left, right) = tree {
            self.combine(left, start, len, level);
            self.combine(right, start, len, level + 1);
        }
        let into = self.blocks[level].as_mut_ptr().cast::<u8>();
        self.pointers.clear();
        match tree {
            Tree::Flat(parts) => {
                assert!(start + len <= self.n);
                let bytes = start * size_of::<T>();
                // SAFETY: every part holds `n` elements.
                let at = |part: &*const u8| unsafe { part.add(bytes) };
                self.pointers.extend(self.parts[parts.clone()].iter().map(at));
            }
            Tree::Pair(..) => {
                let right = self.blocks[level + 1].as_ptr().cast::<u8>();
                self.pointers.extend([into.cast_const(), right]);
            }
        }
        // SAFETY: all sources have `len` elements from here on, of the kernel's type; `into` is a
        // block of its own or the first source; between the meets no rank writes what is read.
        unsafe { (self.kernel)(&self.pointers, into, len, 1.0) };
    }
}
