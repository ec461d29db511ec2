//! The exchange of only those values of a vector that another node reads.
//!
//! Each rank names the elements it reads. Once, the nodes tell each other what they want: a list of
//! indices for each pair of nodes, ascending, each element once however many ranks of the node read
//! it. From then on values travel without indices: the speaker of a node packs what each other node
//! wants, one all_to_all moves it, and the values land at their places in the vector of the node.
//! A node receives `element bytes · |elements of other nodes that its ranks read|`, the least that
//! any exchange of values can do. Memory: 4 bytes for each value sent and received.
//!
//! With [`Resend::Changed`], a value goes out again only when its bits differ from those that the
//! receiver has (the deltas of Gluon, PLDI 2018): one bit for each wanted value, in words of 64,
//! then the values whose bit is set; or all values without bits where that is no more. Both sides
//! keep what was last sent, so nothing is lost. The numbers of values are gathered first.

use std::sync::Arc;

use super::Communicator;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::sharding::Sharding;

/// What goes out in an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Resend {
    /// Every wanted value.
    #[default]
    All,
    /// The values that differ from those last sent.
    Changed,
}

/// What the speaker of a node knows.
#[derive(Debug)]
pub(super) struct Needed<T> {
    /// The own elements that other nodes want, node after node.
    send: Vec<u32>,
    /// The elements of other nodes that this one wants, node after node.
    land: Vec<u32>,
    /// Elements from each node to each.
    counts: Arc<[usize]>,
    outgoing: Vec<T>,
    incoming: Vec<T>,
    resend: Resend,
    /// Whether there was an exchange, so that `outgoing` and `incoming` are what was last sent.
    begun: bool,
}

/// The elements that the ranks of a node read and the node does not own, ascending, on the first
/// rank; nothing on the others. Collective over the node.
pub(super) fn collect(
    node: &Communicator,
    reads: &[u32],
    owned: impl Fn(usize) -> bool,
    n: usize,
) -> Result<Vec<u32>> {
    let counts = node.all_gather_vec(&[reads.len() as u64])?.0;
    let counts: Vec<usize> = counts.into_iter().map(|count| count as usize).collect();
    let sharding = Sharding::from_counts(&counts);
    let mut all = vec![0u32; if node.rank() == 0 { sharding.n() } else { 0 }];
    node.gather(&sharding, reads, &mut all, 0)?;
    let mut wanted = vec![0u64; if node.rank() == 0 { n.div_ceil(64) } else { 0 }];
    all.iter().for_each(|&i| wanted[i as usize / 64] |= 1 << (i % 64));
    Ok(ones(&wanted).filter(|&i| !owned(i as usize)).collect())
}

/// The positions of the bits that are set.
fn ones(words: &[u64]) -> impl Iterator<Item = u32> {
    words.iter().zip(0u32..).flat_map(|(&word, at)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let bit = rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            (bit < 64).then_some(at * 64 + bit)
        })
    })
}

impl<T: Element> Needed<T> {
    /// From the elements that this node wants, in any order, and the node that owns each.
    /// Collective over the speakers.
    pub(super) fn new(
        speakers: &Communicator,
        mut land: Vec<u32>,
        node_of: impl Fn(usize) -> usize,
        resend: Resend,
    ) -> Result<Self> {
        let nodes = speakers.ranks();
        land.sort_by_key(|&i| node_of(i as usize)); // stable: ascending for each node
        let mut wants = vec![0usize; nodes];
        land.iter().for_each(|&i| wants[node_of(i as usize)] += 1);
        let (send, _) = speakers.all_to_all_vec(&land, &wants)?;
        let row: Vec<u64> = wants.iter().map(|&count| count as u64).collect();
        let mut all = vec![0u64; nodes * nodes];
        speakers.all_gather(&row, &mut all)?;
        // What node a wants of node b goes from b to a.
        let pairs = (0..nodes * nodes).map(|at| all[at % nodes * nodes + at / nodes] as usize);
        let counts: Arc<[usize]> = pairs.collect();
        let (outgoing, incoming) = (vec![T::default(); send.len()], vec![T::default(); land.len()]);
        Ok(Needed { send, land, counts, outgoing, incoming, resend, begun: false })
    }

    /// Bytes that this node receives when all values are sent.
    pub(super) fn bytes(&self) -> u64 {
        (self.land.len() * size_of::<T>()) as u64
    }

    /// Sends the own values that others want and fills in theirs; returns the bytes received.
    pub(super) fn exchange(&mut self, speakers: &Communicator, whole: &mut [T]) -> Result<u64> {
        let bytes = if self.resend == Resend::Changed && self.begun {
            self.exchange_changed(speakers, whole)?
        } else {
            let values = self.send.iter().map(|&i| whole[i as usize]);
            self.outgoing.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
            speakers.all_to_all_by(&self.counts, &self.outgoing, &mut self.incoming)?;
            self.bytes()
        };
        self.begun = true;
        self.land.iter().zip(&self.incoming).for_each(|(&i, &value)| whole[i as usize] = value);
        Ok(bytes)
    }

    fn exchange_changed(&mut self, speakers: &Communicator, whole: &[T]) -> Result<u64> {
        let (nodes, me) = (speakers.ranks(), speakers.rank());
        let (mut bits, mut changed, mut sent) = (Vec::new(), Vec::new(), vec![0u64; nodes]);
        let mut at = 0;
        for (to, sent) in sent.iter_mut().enumerate() {
            let count = self.counts[me * nodes + to];
            let pairs = self.send[at..at + count].iter().zip(&mut self.outgoing[at..at + count]);
            let (first_bit, first) = (bits.len(), changed.len());
            bits.resize(first_bit + count.div_ceil(64), 0u64);
            for (k, (&i, slot)) in pairs.enumerate() {
                let value = whole[i as usize];
                if bytemuck::bytes_of(&value) != bytemuck::bytes_of(slot) {
                    bits[first_bit + k / 64] |= 1 << (k % 64);
                    *slot = value;
                    changed.push(value);
                }
            }
            if words::<T>(count, changed.len() - first) == 0 {
                bits.truncate(first_bit);
                if changed.len() > first {
                    changed.truncate(first);
                    changed.extend_from_slice(&self.outgoing[at..at + count]);
                }
            }
            *sent = (changed.len() - first) as u64;
            at += count;
        }
        let mut all = vec![0u64; nodes * nodes];
        speakers.all_gather(&sent, &mut all)?;
        let values: Arc<[usize]> = all.into_iter().map(|count| count as usize).collect();
        let pairs = self.counts.iter().zip(&values[..]);
        let words: Arc<[usize]> = pairs.map(|(&all, &some)| words::<T>(all, some)).collect();
        let from = |counts: &[usize]| (0..nodes).map(|node| counts[node * nodes + me]).sum();
        let mut their_bits = vec![0u64; from(&words)];
        speakers.all_to_all_by(&words, &bits, &mut their_bits)?;
        let mut their_values = vec![T::default(); from(&values)];
        speakers.all_to_all_by(&values, &changed, &mut their_values)?;
        self.land_changed([&words, &values], &their_bits, &their_values, me)?;
        Ok((their_bits.len() * size_of::<u64>() + their_values.len() * size_of::<T>()) as u64)
    }

    /// Puts received values at the places whose bits are set, or at all if there are no bits.
    fn land_changed(
        &mut self,
        [words, values]: [&[usize]; 2],
        mut bits: &[u64],
        mut received: &[T],
        me: usize,
    ) -> Result<()> {
        let nodes = self.counts.len().isqrt();
        let mut at = 0;
        for pair in (0..nodes).map(|node| node * nodes + me) {
            let slots = &mut self.incoming[at..at + self.counts[pair]];
            at += slots.len();
            let (own_bits, own);
            (own_bits, bits) = bits.split_at(words[pair]);
            (own, received) = received.split_at(values[pair]);
            if own_bits.is_empty() {
                // All of them, or none.
                slots.iter_mut().zip(own).for_each(|(slot, &value)| *slot = value);
                continue;
            }
            let mut own = own.iter();
            for k in ones(own_bits) {
                let (Some(slot), Some(&value)) = (slots.get_mut(k as usize), own.next()) else {
                    return Err(Error::internal("changed values and their bits differ"));
                };
                *slot = value;
            }
        }
        Ok(())
    }
}

/// Words of bits beside `changed` of `count` values: none where no value changed, and where so many
/// did that sending all takes no more bytes.
fn words<T>(count: usize, changed: usize) -> usize {
    let words = count.div_ceil(64);
    let sparse = words * size_of::<u64>() + changed * size_of::<T>();
    if changed == 0 || sparse >= count * size_of::<T>() { 0 } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::communicator::Settings;
    use crate::launch;

    #[test]
    fn positions_of_bits() {
        let set: Vec<u32> = ones(&[1 << 63 | 1, 0, 0b1010]).collect();
        assert_eq!(set, [0, 63, 129, 131]);
        assert_eq!(ones(&[]).count(), 0);
    }

    /// What rank `rank` reads of `n`: some of everything, repeated and out of order.
    fn reads(rank: usize, n: usize) -> Vec<u32> {
        (0..n as u32 / 2).rev().map(|i| (i * 7 + rank as u32 * 3) % n as u32).collect()
    }

    #[test]
    fn ranks_find_what_they_read_and_nodes_receive_each_value_once() {
        for nodes in [vec![0, 1], vec![0, 0, 1], vec![0, 1, 0, 1, 2], vec![0, 1, 2, 3]] {
            for (n, resend) in [0, 1, 4, 5, 6, 300]
                .into_iter()
                .flat_map(|n| [Resend::All, Resend::Changed].map(|resend| (n, resend)))
            {
                let received = launch::threads_on_nodes(&nodes, Settings::default(), |comm| {
                    let rank = comm.rank();
                    let sharding = Sharding::even(n, comm.ranks());
                    let reads = reads(rank, n.max(2));
                    let reads: Vec<u32> = reads.into_iter().filter(|&i| (i as usize) < n).collect();
                    let mut vector = comm.shared_vector_of::<f64>(&sharding, &reads, resend)?;
                    for turn in 1..6 {
                        // Element i changes in every (i % 3 + 1)-th turn.
                        let value = |i: usize| (turn / (i % 3 + 1) * 1000 + i) as f64;
                        let own = sharding.range(rank);
                        vector.own_mut().iter_mut().zip(own).for_each(|(v, i)| *v = value(i));
                        vector.gather()?;
                        for &i in &reads {
                            assert_eq!(vector.whole()[i as usize], value(i as usize), "{turn}");
                        }
                    }
                    Ok((vector.received_bytes(), vector.bytes_a_gather()))
                });
                for (node, peers) in (0..4).map(|node| {
                    let peers = (0..nodes.len()).filter(|&rank| nodes[rank] == node);
                    (node, peers.collect::<Vec<_>>())
                }) {
                    let Some(&first) = peers.first() else { continue };
                    let sharding = Sharding::even(n, nodes.len());
                    let wanted = (0..n).filter(|&i| {
                        let own = sharding.owner(i).is_some_and(|rank| nodes[rank] == node);
                        let read = |&rank: &usize| reads(rank, n.max(2)).contains(&(i as u32));
                        !own && peers.iter().any(read)
                    });
                    let bytes = 8 * wanted.count() as u64;
                    let (received, least) = received.as_ref().unwrap()[first];
                    assert_eq!(least, bytes, "{nodes:?} {n}");
                    match resend {
                        Resend::All => assert_eq!(received, 5 * bytes),
                        Resend::Changed if n == 300 => assert!(received < 4 * bytes),
                        Resend::Changed => assert!(received <= 5 * bytes),
                    }
                }
            }
        }
    }
}
