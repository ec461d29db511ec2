//! Random graphs that are the same for any number of ranks and threads.
//!
//! * `kron`: R-MAT with the parameters of Graph500 (Chakrabarti, Zhan, Faloutsos 2004): a quadrant
//!   of the adjacency matrix is chosen `scale` times with the probabilities A 0.57, B 0.19, C 0.19,
//!   D 0.05; then the nodes are permuted, so that an id says nothing about a degree.
//! * `uniform`: both ends of each edge are uniform over 2^scale nodes (Erdős–Rényi with repeats).
//!
//! Edges come in blocks of 2¹⁸. Block b of seed s has a SplitMix64 generator of its own (Steele,
//! Lea, Flood 2014) whose first state is a hash of s and b, so any rank can make any block. The
//! permutation is invertible arithmetic on `scale` bits instead of a table. Cost: about 20 ns an
//! edge at scale 20, 8 bytes of memory an edge.

use rayon::prelude::*;

use super::ids::Edges;
use crate::error::{Error, Result};
use crate::sharding::Sharding;

/// A kind of random graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// R-MAT with the parameters of Graph500.
    Kron,
    /// Uniform ends.
    Uniform,
}

/// A random graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generator {
    /// Which kind.
    pub kind: Kind,
    /// 2^scale nodes.
    pub scale: u32,
    /// Generated edges a node, before they are made undirected and merged.
    pub edge_factor: u64,
    /// Another graph for every seed.
    pub seed: u64,
}

const BLOCK_EDGES: u64 = 1 << 18;
/// Quadrant probabilities as fractions of 2³².
const A: u64 = (0.57 * 4_294_967_296.0) as u64;
const AB: u64 = (0.76 * 4_294_967_296.0) as u64;
const ABC: u64 = (0.95 * 4_294_967_296.0) as u64;

/// The output function of SplitMix64: a permutation of the 64-bit numbers.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

impl Generator {
    /// From `kron:SCALE[:EDGE_FACTOR[:SEED]]` or `uniform:…`; `None` if the text is no such thing.
    pub fn parse(text: &str) -> Option<Result<Generator>> {
        let (kind, rest) = text.split_once(':')?;
        let kind = match kind {
            "kron" => Kind::Kron,
            "uniform" => Kind::Uniform,
            _ => return None,
        };
        let mut numbers = [0, 16, 1];
        let parts: Vec<&str> = rest.split(':').collect();
        for (i, part) in parts.iter().enumerate() {
            match part.parse() {
                Ok(number) if i < 3 => numbers[i] = number,
                _ => {
                    return Some(Err(Error::input(format!(
                        "{text}: expected {}:SCALE[:EDGE_FACTOR[:SEED]] with whole numbers",
                        text.split(':').next().unwrap_or("kron")
                    ))));
                }
            }
        }
        let scale = u32::try_from(numbers[0]).unwrap_or(u32::MAX);
        let generator = Generator { kind, scale, edge_factor: numbers[1], seed: numbers[2] };
        Some(generator.validate().map(|()| generator))
    }

    /// Refuses graphs that node indices cannot hold.
    pub fn validate(&self) -> Result<()> {
        if !(1..=31).contains(&self.scale) {
            return Err(Error::input(format!("scale {}: allowed is 1 to 31", self.scale)));
        }
        if !(1..=1 << 16).contains(&self.edge_factor) {
            return Err(Error::input(format!(
                "edge factor {}: allowed is 1 to 65536",
                self.edge_factor
            )));
        }
        Ok(())
    }

    /// The number of nodes.
    pub fn nodes(&self) -> usize {
        1 << self.scale
    }

    /// The edges that `rank` of `ranks` makes: whole blocks.
    pub fn edges(&self, rank: usize, ranks: usize) -> Edges {
        let total = self.edge_factor << self.scale;
        let blocks = Sharding::even(total.div_ceil(BLOCK_EDGES) as usize, ranks);
        let start = |block: usize| (block as u64 * BLOCK_EDGES).min(total);
        let range = blocks.range(rank);
        let count = (start(range.end) - start(range.start)) as usize;
        let mut edges = vec![(0, 0); count];
        edges.par_chunks_mut(BLOCK_EDGES as usize).zip(range).for_each(|(chunk, block)| {
            let mut random = SplitMix(mix(self.seed ^ mix(block as u64 + 1)));
            chunk.iter_mut().for_each(|edge| *edge = self.edge(&mut random));
        });
        Edges { edges, weights: Vec::new() }
    }

    fn edge(&self, random: &mut SplitMix) -> (u32, u32) {
        let mask = (1u64 << self.scale) - 1;
        if self.kind == Kind::Uniform {
            let bits = random.next();
            return ((bits & mask) as u32, (bits >> 32 & mask) as u32);
        }
        let (mut from, mut to, mut bits) = (0u64, 0u64, 0u64);
        for level in 0..self.scale {
            bits = if level % 2 == 0 { random.next() } else { bits >> 32 };
            let draw = bits & 0xffff_ffff;
            // Without branches: which quadrant comes is as unpredictable as can be.
            let lower = u64::from(draw >= AB);
            let right = u64::from(draw >= A) - lower + u64::from(draw >= ABC);
            (from, to) = (from << 1 | lower, to << 1 | right);
        }
        (self.permuted(from) as u32, self.permuted(to) as u32)
    }

    /// A permutation of the `scale`-bit numbers: multiplications by odd numbers and shifts that
    /// are xored can both be undone.
    fn permuted(&self, mut x: u64) -> u64 {
        let mask = (1u64 << self.scale) - 1;
        let shift = self.scale.div_ceil(2);
        let key = mix(self.seed.wrapping_add(0x5eed));
        for odd in [0x9e37_79b9_7f4a_7c15u64, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
            x = (x ^ key).wrapping_mul(odd) & mask;
            x ^= x >> shift;
        }
        x & mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KRON: Generator = Generator { kind: Kind::Kron, scale: 15, edge_factor: 20, seed: 3 };

    #[test]
    fn the_graph_is_the_same_for_any_number_of_ranks() {
        for generator in [KRON, Generator { kind: Kind::Uniform, ..KRON }] {
            let one = generator.edges(0, 1).edges;
            assert_eq!(one.len(), 20 << 15);
            assert!(one.iter().all(|&(a, b)| a < 1 << 15 && b < 1 << 15));
            for ranks in [2, 3, 7] {
                let all: Vec<_> =
                    (0..ranks).flat_map(|rank| generator.edges(rank, ranks).edges).collect();
                assert_eq!(all, one, "{ranks} ranks");
            }
            let other = Generator { seed: 4, ..generator }.edges(0, 1).edges;
            assert!(other.iter().zip(&one).filter(|(a, b)| a == b).count() < 100);
        }
    }

    #[test]
    fn permutations_hit_every_number_once() {
        for scale in 1..=12 {
            let generator = Generator { scale, ..KRON };
            let mut images: Vec<u64> = (0..1 << scale).map(|x| generator.permuted(x)).collect();
            images.sort_unstable();
            assert_eq!(images, (0..1 << scale).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn degrees_are_skewed_as_the_kind_asks() {
        let largest = |generator: Generator| {
            let mut degrees = vec![0; generator.nodes()];
            generator.edges(0, 1).edges.iter().for_each(|e| degrees[e.0 as usize] += 1);
            (degrees.iter().copied().max().unwrap(), degrees.iter().filter(|&&d| d == 0).count())
        };
        let (kron, kron_alone) = largest(KRON);
        let (uniform, uniform_alone) = largest(Generator { kind: Kind::Uniform, ..KRON });
        // The heaviest node of R-MAT gets the share 0.76^15 of 655,360 edges, 10,700.
        assert!((9_000..13_000).contains(&kron) && kron_alone > 5000, "{kron} {kron_alone}");
        assert!(uniform < 60 && uniform_alone < 10, "{uniform} {uniform_alone}");
    }

    #[test]
    fn names_of_graphs_are_parsed_or_refused() {
        let parsed = Generator::parse("kron:15:20:3").unwrap().unwrap();
        assert_eq!(parsed, KRON);
        let parsed = Generator::parse("uniform:9").unwrap().unwrap();
        assert_eq!((parsed.edge_factor, parsed.seed, parsed.nodes()), (16, 1, 512));
        assert!(Generator::parse("kron").is_none() && Generator::parse("a/kron:5").is_none());
        for bad in ["kron:", "kron:0", "kron:32", "kron:5:0", "kron:5:1:2:3", "uniform:x"] {
            assert_eq!(Generator::parse(bad).unwrap().unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
