//! The exact sum of any number of `f64`, rounded once: the same bits in any order and grouping.
//!
//! A superaccumulator (Kulisch; the small variant of Neal, "Fast exact summation using small and
//! large superaccumulators", 2015): one wide fixed-point number that covers every bit an `f64` can
//! hold. Bit 0 is worth 2⁻¹⁰⁷⁴, the smallest subnormal. The number is kept as signed 64-bit limbs
//! spaced 32 bits, so that limb `i` is worth 2^(32·i − 1074) and has 31 bits to spare: a value
//! touches three limbs, and carries wait until 2³⁰ values have been added.
//!
//! The spare bits are also what makes it a distributed sum: after carrying, each limb is below 2³²
//! in size, so an elementwise `i64` sum over up to 2²⁰ ranks cannot overflow and is the
//! accumulator of all their values. An all-reduce of [`LIMBS`] integers gives one exact sum.
//!
//! Cost: about 3 ns a value, 568 bytes an accumulator. Summing short blocks in `f64` first and
//! adding only the block sums makes it free where blocks are the same for every caller.

/// Limbs of the fixed-point number: 2098 bits of `f64`, and 63 bits for the number of values.
const DIGITS: usize = 68;
/// Where the numbers of NaN, +∞ and −∞ seen are counted.
const NAN: usize = DIGITS;
const PLUS_INFINITY: usize = DIGITS + 1;
const MINUS_INFINITY: usize = DIGITS + 2;
/// The length of [`ExactSum::limbs`].
pub const LIMBS: usize = DIGITS + 3;

/// Values that may be added between two carries: each adds less than 2³² to a limb.
const ADDS_BETWEEN_CARRIES: u32 = 1 << 30;
const LOW: i64 = 0xffff_ffff;

/// A sum of `f64` that is exact until [`ExactSum::value`] rounds it.
///
/// ```
/// use rankwise::reduce::exact::ExactSum;
///
/// let mut sum = ExactSum::new();
/// for x in [1e308, 1.0, -1e308, 1e-320] {
///     sum.add(x);
/// }
/// assert_eq!(sum.value(), 1.0);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExactSum {
    limbs: [i64; LIMBS],
    adds: u32,
}

impl Default for ExactSum {
    fn default() -> Self {
        ExactSum::new()
    }
}

impl ExactSum {
    /// The sum of nothing: zero.
    pub fn new() -> Self {
        ExactSum { limbs: [0; LIMBS], adds: 0 }
    }

    /// Adds one value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let (exponent, fraction) = ((bits >> 52) as usize & 0x7ff, bits & ((1 << 52) - 1));
        if exponent == 0x7ff {
            return self.add_special(value);
        }
        // Subnormals lack the hidden bit and share the scale of exponent 1.
        let mantissa = if exponent == 0 { fraction } else { fraction | 1 << 52 };
        let shift = exponent.max(1) - 1;
        let wide = u128::from(mantissa) << (shift % 32);
        let sign = if bits >> 63 == 0 { 1 } else { -1 };
        let limb = &mut self.limbs[shift / 32..shift / 32 + 3];
        limb[0] += sign * (wide as i64 & LOW);
        limb[1] += sign * ((wide >> 32) as i64 & LOW);
        limb[2] += sign * ((wide >> 64) as i64);
        self.adds += 1;
        if self.adds >= ADDS_BETWEEN_CARRIES {
            self.carry();
        }
    }

    #[cold]
    fn add_special(&mut self, value: f64) {
        let counter = match value {
            v if v.is_nan() => NAN,
            v if v > 0.0 => PLUS_INFINITY,
            _ => MINUS_INFINITY,
        };
        self.limbs[counter] = 1;
    }

    /// Adds everything that `other` has added.
    pub fn merge(&mut self, other: &ExactSum) {
        if self.adds.saturating_add(other.adds) >= ADDS_BETWEEN_CARRIES {
            self.carry();
        }
        let mut other_carried = None;
        let other = if other.adds >= ADDS_BETWEEN_CARRIES / 2 {
            let copy = other_carried.insert(other.clone());
            copy.carry();
            copy
        } else {
            other
        };
        for (mine, theirs) in self.limbs[..DIGITS].iter_mut().zip(&other.limbs[..DIGITS]) {
            *mine += theirs;
        }
        for special in DIGITS..LIMBS {
            self.limbs[special] |= other.limbs[special];
        }
        // Carried limbs count as one add each: they are below 2³² as well.
        self.adds += other.adds + 1;
    }

    /// The accumulator as [`LIMBS`] integers below 2³² in size, whose elementwise sums over up to
    /// 2²⁰ accumulators are accepted by [`ExactSum::from_limbs`].
    pub fn limbs(&self) -> Vec<i64> {
        let mut carried = self.clone();
        carried.carry();
        carried.limbs.to_vec()
    }

    /// The accumulator whose limbs, or sum of limbs, are given.
    ///
    /// # Panics
    /// If there are not [`LIMBS`] of them.
    pub fn from_limbs(limbs: &[i64]) -> Self {
        assert_eq!(limbs.len(), LIMBS, "an exact sum has {LIMBS} limbs");
        let mut sum = ExactSum::new();
        sum.limbs.copy_from_slice(limbs);
        sum.limbs[DIGITS..].iter_mut().for_each(|count| *count = i64::from(*count > 0));
        sum.carry();
        sum
    }

    /// Moves what exceeds 32 bits into the next limb; only the last limb keeps a sign.
    fn carry(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..DIGITS - 1] {
            let total = *limb + carry;
            *limb = total & LOW;
            carry = total >> 32;
        }
        self.limbs[DIGITS - 1] += carry;
        self.adds = 0;
    }

    /// The sum, rounded to nearest, ties to even; an exact zero is +0. Sums that see a NaN, or both
    /// infinities, are NaN; an infinity is itself; a sum beyond the range of `f64` is an infinity.
    pub fn value(&self) -> f64 {
        match self.limbs[DIGITS..].iter().map(|&count| count > 0).collect::<Vec<_>>()[..] {
            [false, false, false] => {}
            [false, true, false] => return f64::INFINITY,
            [false, false, true] => return f64::NEG_INFINITY,
            _ => return f64::NAN,
        }
        let mut magnitude = self.clone();
        magnitude.carry();
        let negative = magnitude.limbs[DIGITS - 1] < 0;
        if negative {
            magnitude.limbs[..DIGITS].iter_mut().for_each(|limb| *limb = -*limb);
            magnitude.carry();
        }
        let value = round(&magnitude.limbs[..DIGITS]);
        if negative { -value } else { value }
    }
}

/// The value of carried, non-negative limbs, rounded once.
fn round(limbs: &[i64]) -> f64 {
    let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else {
        return 0.0;
    };
    let highest = 32 * top + 63 - limbs[top].leading_zeros() as usize;
    // The lowest bit that the result can hold; bits below it decide the rounding.
    let lowest = highest.saturating_sub(52);
    if lowest > 2045 {
        return f64::INFINITY;
    }
    let mut mantissa = bits_at(limbs, lowest) & ((1 << 53) - 1);
    if lowest > 0 {
        let half = bits_at(limbs, lowest - 1) & 1 == 1;
        let whole = (lowest - 1) / 32;
        let sticky = limbs[..whole].iter().any(|&limb| limb != 0)
            || limbs[whole] & ((1 << ((lowest - 1) % 32)) - 1) != 0;
        mantissa += u64::from(half && (sticky || mantissa & 1 == 1));
    }
    // The hidden bit of the mantissa adds one to the exponent field, and so does a mantissa that
    // rounding made one bit longer; from the largest number this gives the bits of infinity.
    f64::from_bits(((lowest as u64) << 52) + mantissa)
}

/// At least 54 bits of carried limbs, from bit `position` on.
fn bits_at(limbs: &[i64], position: usize) -> u64 {
    let limb = |i: usize| u128::from(limbs.get(i).map_or(0, |&l| l as u64));
    let first = position / 32;
    let wide = limb(first) | limb(first + 1) << 32 | limb(first + 2) << 64;
    (wide >> (position % 32)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::new();
        values.iter().for_each(|&v| sum.add(v));
        sum.value()
    }

    /// splitmix64.
    struct Random(u64);
    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
        fn finite(&mut self, spread: u64) -> f64 {
            let exponent = 1023 - spread / 2 + self.next() % spread;
            f64::from_bits(self.next() & (1 << 63 | ((1 << 52) - 1)) | exponent << 52)
        }
        fn shuffle<T>(&mut self, values: &mut [T]) {
            (1..values.len()).for_each(|i| values.swap(i, self.next() as usize % (i + 1)));
        }
    }

    /// Bit by bit in two's complement with 2304 bits, then the nearest `f64` by comparing with
    /// both neighbours: shares nothing with the accumulator but the definition.
    fn reference(values: &[f64]) -> f64 {
        let mut total = [0u8; 288];
        for &value in values {
            accumulate(&mut total, value);
        }
        let negative = total[287] & 0x80 != 0;
        if negative {
            negate(&mut total);
        }
        let bit = |i: usize| total[i / 8] >> (i % 8) & 1 == 1;
        let Some(highest) = (0..2304).rev().find(|&i| bit(i)) else { return 0.0 };
        let lowest = highest.saturating_sub(52);
        let mantissa = (lowest..=highest).rev().fold(0u64, |m, i| m * 2 + u64::from(bit(i)));
        let half = lowest > 0 && bit(lowest - 1);
        let rest = (0..lowest.saturating_sub(1)).any(bit);
        let rounded = mantissa + u64::from(half && (rest || mantissa % 2 == 1));
        let size = scale(rounded as f64, lowest as i32 - 1074);
        if negative { -size } else { size }
    }

    /// x·2^power, exact for what `reference` needs, and infinite when too large.
    fn scale(mut x: f64, mut power: i32) -> f64 {
        while power > 0 {
            x *= 2.0;
            power -= 1;
        }
        while power < 0 {
            x /= 2.0;
            power += 1;
        }
        x
    }

    fn accumulate(total: &mut [u8; 288], value: f64) {
        let bits = value.abs().to_bits();
        let exponent = (bits >> 52) as usize;
        let mantissa = bits & ((1 << 52) - 1) | if exponent > 0 { 1 << 52 } else { 0 };
        let shift = exponent.max(1) - 1;
        let mut term = [0u8; 288];
        (0..53).filter(|i| mantissa >> i & 1 == 1).for_each(|i| {
            term[(shift + i) / 8] |= 1 << ((shift + i) % 8);
        });
        if value.is_sign_negative() {
            negate(&mut term);
        }
        let mut carry = 0u16;
        for (a, b) in total.iter_mut().zip(term) {
            carry += u16::from(*a) + u16::from(b);
            *a = carry as u8;
            carry >>= 8;
        }
    }

    fn negate(number: &mut [u8; 288]) {
        let mut carry = 1u16;
        for byte in number.iter_mut() {
            carry += u16::from(!*byte);
            *byte = carry as u8;
            carry >>= 8;
        }
    }

    #[test]
    fn hard_cases() {
        let ulp = f64::EPSILON;
        let half_ulp_of_max = 2f64.powi(970);
        let cases: &[(&[f64], f64)] = &[
            (&[], 0.0),
            (&[-0.0], 0.0),
            (&[1e308, -1e308, 1e-320], 1e-320),
            (&[1e308, 1e308, -1e308], 1e308),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[-f64::MAX, -f64::MAX, 1.0], f64::NEG_INFINITY),
            (&[f64::MAX, f64::MAX, -f64::MAX], f64::MAX),
            // Half an ulp of the largest number rounds to infinity, anything less does not.
            (&[f64::MAX, half_ulp_of_max], f64::INFINITY),
            (&[f64::MAX, half_ulp_of_max, -5e-324], f64::MAX),
            (&[1.0, ulp / 2.0], 1.0),
            (&[1.0, ulp / 2.0, 5e-324], 1.0 + ulp),
            (&[1.0, ulp / 2.0, -5e-324], 1.0),
            (&[1.0 + ulp, ulp / 2.0], 1.0 + 2.0 * ulp),
            (&[-1.0 - ulp, -ulp / 2.0], -1.0 - 2.0 * ulp),
            (&[5e-324; 3], 1.5e-323),
            (&[f64::MIN_POSITIVE, -5e-324], 2.225_073_858_507_201e-308),
            (&[f64::INFINITY, -1e308], f64::INFINITY),
            (&[f64::NEG_INFINITY, f64::MAX], f64::NEG_INFINITY),
        ];
        for (values, expected) in cases {
            assert_eq!(sum(values).to_bits(), expected.to_bits(), "{values:?}");
            if values.iter().all(|v| v.is_finite()) {
                assert_eq!(reference(values).to_bits(), expected.to_bits(), "{values:?}");
            }
        }
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(sum(&[1.0, f64::NAN]).is_nan());
    }

    #[test]
    fn random_sums_match_the_reference_in_any_order_and_grouping() {
        let mut random = Random(7);
        for round in 0..400u64 {
            let spread = [4, 60, 300, 2040][round as usize % 4];
            let mut values: Vec<f64> = (0..round % 40).map(|_| random.finite(spread)).collect();
            if round % 3 == 0 {
                // Cancellation: only the odd ones remain.
                let opposite: Vec<f64> = values.iter().skip(1).map(|v| -v).collect();
                values.extend(opposite);
            }
            let expected = reference(&values).to_bits();
            for parts in 1..5 {
                random.shuffle(&mut values);
                let sums: Vec<ExactSum> = (0..parts)
                    .map(|part| {
                        let mut sum = ExactSum::new();
                        values.iter().skip(part).step_by(parts).for_each(|&v| sum.add(v));
                        sum
                    })
                    .collect();
                let mut merged = ExactSum::new();
                sums.iter().for_each(|sum| merged.merge(sum));
                assert_eq!(merged.value().to_bits(), expected, "{values:?}");
                let mut limbs = vec![0i64; LIMBS];
                for sum in &sums {
                    limbs.iter_mut().zip(sum.limbs()).for_each(|(a, b)| *a += b);
                }
                assert_eq!(ExactSum::from_limbs(&limbs).value().to_bits(), expected);
            }
        }
    }

    #[test]
    fn limbs_of_a_million_ranks_add_up() {
        for value in [f64::MAX, -f64::MAX, 5e-324, -5e-324, 1.0 / 3.0, -0.1] {
            let mut one = ExactSum::new();
            one.add(value);
            let limbs: Vec<i64> = one.limbs().iter().map(|limb| limb * (1 << 20)).collect();
            let expected = value * f64::from(1 << 20);
            assert_eq!(ExactSum::from_limbs(&limbs).value().to_bits(), expected.to_bits());
        }
    }

    #[test]
    fn carries_happen_in_time() {
        let mut sum = ExactSum::new();
        sum.add(1.5);
        // Doubling by merging passes the limit of waiting carries many times over.
        for _ in 0..60 {
            let copy = sum.clone();
            sum.merge(&copy);
        }
        assert_eq!(sum.value(), 1.5 * (1u64 << 60) as f64);
    }
}
