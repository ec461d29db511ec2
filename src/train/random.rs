//! A small seeded generator for augmentation, initial values and generated data.
//!
//! splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): one
//! addition and three multiplications a number. Streams are named by numbers, such as (seed, epoch,
//! sample), so that what is drawn does not depend on who draws it or when.

/// A stream of random numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream that these numbers name; their order counts.
    pub fn of(names: &[u64]) -> Self {
        let mut state = Random(names.len() as u64);
        for &name in names {
            // Each name passes through the whole mixer before the next one is added.
            state = Random(state.next_u64() ^ name);
        }
        Random(state.next_u64())
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A number in `[low, high)`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number below `n`; its bias is below `n / 2⁶⁴`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "no number is below 0");
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }
}

/// The hash of a text by which data is split: FNV-1a, mixed with a seed.
pub fn hash_text(seed: u64, text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Random::of(&[seed, fnv]).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_every_name_and_by_order() {
        let names: [&[u64]; 7] = [&[], &[0], &[0, 0], &[1, 0], &[0, 1], &[1, 2], &[2, 1]];
        let firsts: std::collections::BTreeSet<u64> =
            names.iter().map(|n| Random::of(n).next_u64()).collect();
        assert_eq!(firsts.len(), names.len());
        assert_eq!(Random::of(&[4, 5]), Random::of(&[4, 5]));
    }

    #[test]
    fn numbers_fill_their_range_evenly() {
        let mut random = Random::of(&[3]);
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            counts[random.below(7)] += 1;
            let x = random.between(-2.0, 3.0);
            assert!((-2.0..3.0).contains(&x));
        }
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 500), "{counts:?}");
        let mean = (0..10_000).map(|_| random.unit()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }

    #[test]
    fn texts_are_hashed_with_the_seed() {
        assert_ne!(hash_text(0, "car1"), hash_text(0, "car2"));
        assert_ne!(hash_text(0, "car1"), hash_text(1, "car1"));
        assert_eq!(hash_text(5, "é"), hash_text(5, "é"));
    }
}
