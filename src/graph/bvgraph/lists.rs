//! The successor lists of a BVGraph.
//!
//! A list is written as its length; the number of an earlier list, counted backwards, some
//! stretches of which it takes over; stretches of consecutive nodes; and the gaps between the rest.
//! A list may refer to one that refers to another, so decoding from the middle first follows such
//! chains.
//!
//! Cost: about 5 ns an edge, and the memory of the last `window` lists.

use std::collections::VecDeque;
use std::ops::Range;

use super::bits::{Bits, signed};
use super::properties::Properties;

/// What is wrong, and at which bit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub bit: u64,
    pub what: &'static str,
}

/// Where a list comes from.
#[derive(Clone, Debug)]
struct Head<'b> {
    bits: Bits<'b>,
    length: usize,
    /// How many lists back; 0 for none.
    reference: usize,
}

/// The lists of a graph, whose positions are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lists<'g> {
    pub properties: &'g Properties,
    pub bytes: &'g [u8],
    /// The first bit of each list, and the end of the last.
    pub positions: &'g [u64],
}

type Decoded<T> = Result<T, Fault>;

fn or_end<T>(read: Option<T>, bits: &Bits<'_>) -> Decoded<T> {
    read.ok_or(Fault { bit: bits.position(), what: "a number that is too large, or the end" })
}

impl Lists<'_> {
    /// Calls `each` with every node of `nodes` and its list, in order.
    pub(super) fn for_each(
        &self,
        nodes: Range<usize>,
        mut each: impl FnMut(usize, &[u32]),
    ) -> Decoded<()> {
        let window = self.properties.window;
        let mut last: VecDeque<Vec<u32>> = VecDeque::with_capacity(window + 1);
        // Older lists than these are reached only through them.
        let warm = nodes.start.saturating_sub(window)..nodes.start;
        for node in warm {
            last.push_back(self.alone(node)?);
        }
        let mut spare = Vec::new();
        for node in nodes {
            let head = self.head(node)?;
            let reference = match head.reference {
                0 => &[][..],
                back => last.get(last.len().wrapping_sub(back)).map_or(&[][..], |list| list),
            };
            self.list(node, head, reference, &mut spare)?;
            each(node, &spare);
            if window > 0 {
                last.push_back(std::mem::take(&mut spare));
            }
            if last.len() > window {
                spare = last.pop_front().unwrap_or_default();
            }
        }
        Ok(())
    }

    /// The list of a node, from the beginning of its chain.
    fn alone(&self, node: usize) -> Decoded<Vec<u32>> {
        let mut chain = vec![(node, self.head(node)?)];
        while let Some((node, head)) = chain.last().filter(|(_, head)| head.reference > 0) {
            let before = node - head.reference;
            chain.push((before, self.head(before)?));
        }
        let (mut list, mut reference) = (Vec::new(), Vec::new());
        for (node, head) in chain.into_iter().rev() {
            std::mem::swap(&mut list, &mut reference);
            self.list(node, head, &reference, &mut list)?;
        }
        Ok(list)
    }

    fn head(&self, node: usize) -> Decoded<Head<'_>> {
        let bits = Bits::new(self.bytes, self.positions[node]);
        head(self.properties, bits, node)
    }

    /// Decodes the rest of a list into `list`, ascending.
    fn list(
        &self,
        node: usize,
        head: Head<'_>,
        reference: &[u32],
        list: &mut Vec<u32>,
    ) -> Decoded<()> {
        let Head { mut bits, length, reference: back } = head;
        list.clear();
        if back > 0 {
            copy(self.properties, &mut bits, reference, list)?;
        }
        let copied = list.len();
        extras(self.properties, &mut bits, node, length, list)?;
        let extra = list.len() - copied;
        if extra > 0 && list.len() > 1 {
            list.sort_unstable();
        }
        let fault = |what| Err(Fault { bit: bits.position(), what });
        if list.len() != length {
            return fault("a list of another length than its head says");
        }
        if list.windows(2).any(|pair| pair[0] == pair[1]) {
            return fault("a list that names a node twice");
        }
        Ok(())
    }
}

fn head<'b>(properties: &Properties, mut bits: Bits<'b>, node: usize) -> Decoded<Head<'b>> {
    let start = bits.position();
    let length = or_end(bits.code(properties.outdegrees), &bits)?;
    if length > properties.nodes as u64 {
        return Err(Fault { bit: start, what: "a node with more edges than there are nodes" });
    }
    let reference = if length > 0 && properties.window > 0 {
        or_end(bits.code(properties.references), &bits)?
    } else {
        0
    };
    if reference > properties.window as u64 || reference > node as u64 {
        return Err(Fault { bit: start, what: "a reference to a list that is not near before" });
    }
    Ok(Head { bits, length: length as usize, reference: reference as usize })
}

/// Stretches of the reference: taken and left out by turns, the last one to its end.
fn blocks(
    properties: &Properties,
    bits: &mut Bits<'_>,
    available: usize,
    mut take: impl FnMut(Range<usize>),
) -> Decoded<()> {
    let count = or_end(bits.code(properties.blocks), bits)?;
    let (mut at, mut taken) = (0usize, true);
    for block in 0..count {
        let length = or_end(bits.code(properties.blocks), bits)? + u64::from(block > 0);
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
        let Some(end) = end.filter(|&end| end <= available) else {
            let what = "a stretch beyond the list that it is taken from";
            return Err(Fault { bit: bits.position(), what });
        };
        if taken {
            take(at..end);
        }
        (at, taken) = (end, !taken);
    }
    if taken {
        take(at..available);
    }
    Ok(())
}

fn copy(
    properties: &Properties,
    bits: &mut Bits<'_>,
    reference: &[u32],
    list: &mut Vec<u32>,
) -> Decoded<()> {
    blocks(properties, bits, reference.len(), |range| list.extend_from_slice(&reference[range]))
}

/// Intervals and residuals: what is not taken from another list.
fn extras(
    properties: &Properties,
    bits: &mut Bits<'_>,
    node: usize,
    length: usize,
    list: &mut Vec<u32>,
) -> Decoded<()> {
    let node = node as i64;
    let inside = |bits: &Bits<'_>, value: i64| match u32::try_from(value) {
        Ok(index) if (index as usize) < properties.nodes => Ok(index),
        _ => Err(Fault { bit: bits.position(), what: "a successor that is no node" }),
    };
    let sum = |bits: &Bits<'_>, a: i64, b: i64| {
        let fault = Fault { bit: bits.position(), what: "a successor that is no node" };
        a.checked_add(b).ok_or(fault)
    };
    if length > list.len() && properties.min_interval > 0 {
        let count = or_end(bits.code(properties.intervals), bits)?;
        let mut end = 0;
        for interval in 0..count {
            let gap = or_end(bits.code(properties.intervals), bits)?;
            let left = match interval {
                0 => sum(bits, node, signed(gap))?,
                _ => sum(bits, end + 1, i64::try_from(gap).unwrap_or(i64::MAX))?,
            };
            let more = or_end(bits.code(properties.intervals), bits)?;
            let size = i64::try_from(more).unwrap_or(i64::MAX);
            end = sum(bits, left, sum(bits, size, properties.min_interval as i64)?)?;
            let (first, last) = (inside(bits, left)?, inside(bits, end - 1)?);
            if (last - first) as usize >= length.saturating_sub(list.len()) {
                let what = "an interval that is longer than its list";
                return Err(Fault { bit: bits.position(), what });
            }
            list.extend(first..=last);
        }
    }
    let mut previous = None;
    while list.len() < length {
        let gap = or_end(bits.code(properties.residuals), bits)?;
        let next = match previous {
            None => sum(bits, node, signed(gap))?,
            Some(before) => sum(bits, before + 1, i64::try_from(gap).unwrap_or(i64::MAX))?,
        };
        list.push(inside(bits, next)?);
        previous = Some(next);
    }
    Ok(())
}

/// Finds the position of every list by reading all of them; only the lengths of the last ones are
/// kept.
pub(super) fn positions(properties: &Properties, bytes: &[u8]) -> Decoded<Vec<u64>> {
    let mut positions = Vec::with_capacity(properties.nodes + 1);
    let mut lengths: VecDeque<usize> = VecDeque::with_capacity(properties.window + 1);
    let mut at = 0;
    let mut rest = Vec::new();
    for node in 0..properties.nodes {
        positions.push(at);
        let Head { mut bits, length, reference } = head(properties, Bits::new(bytes, at), node)?;
        let mut copied = 0;
        if reference > 0 {
            let available = lengths[lengths.len() - reference];
            blocks(properties, &mut bits, available, |range| copied += range.len())?;
        }
        rest.clear();
        // A place for each node that was taken over, so that the lengths are as in `list`.
        extras(properties, &mut bits, node, length.saturating_sub(copied), &mut rest)?;
        at = bits.position();
        lengths.push_back(length);
        if lengths.len() > properties.window {
            lengths.pop_front();
        }
    }
    positions.push(at);
    Ok(positions)
}
