//! Division by one number of many, rounded as division is, without a division.
//!
//! With z + ζ = 1/d to twice the precision, q = x·z + x·ζ is less than one unit in the last place
//! from x/d. The remainder r = x − d·q is then exact in one fused multiply-add, and q + r·z is x/d
//! rounded to nearest (Markstein, "Computation of elementary functions on the IBM RISC System/6000
//! processor", 1990; Brisebarre, Muller and Raina, "Accelerating correctly rounded floating-point
//! division when the divisor is known in advance", 2004). Four multiplications instead of a
//! division: on a Zen 4, 4 cycles for 16 elements instead of 10.

/// A divisor from 2⁻⁶⁰ to 2⁶⁰, made ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Divisor {
    divisor: f32,
    inverse: f32,
    /// What the inverse lacks.
    rest: f32,
}

impl Divisor {
    /// # Panics
    /// If it is not from 2⁻⁶⁰ to 2⁶⁰.
    pub(super) fn new(divisor: f32) -> Divisor {
        let limit = f32::from_bits((127 + 60) << 23);
        assert!((1.0 / limit..=limit).contains(&divisor), "division by {divisor}");
        let (exact, inverse) = (f64::from(divisor), 1.0 / divisor);
        // Exact: a product of two f32 has 48 bits, and the difference from 1 fewer.
        let rest = (1.0 - exact * f64::from(inverse)) / exact;
        Divisor { divisor, inverse, rest: rest as f32 }
    }

    /// `x` divided by it, bit for bit, where neither `x` nor the quotient is so small that the
    /// remainder loses bits, or infinite: from 2⁻⁷⁵ to 2⁶⁵, 0, ∞ and NaN. That is where the roots
    /// of all f32 are.
    #[inline(always)]
    pub(super) fn divide(&self, x: f32) -> f32 {
        let near = x.mul_add(self.inverse, x * self.rest);
        let remainder = (-self.divisor).mul_add(near, x);
        let quotient = remainder.mul_add(self.inverse, near);
        // The remainder of infinity is not a number.
        if x < f32::INFINITY { quotient } else { x }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::simd::vectorised;

    /// Compares all `count` numbers with a stride, from the one with bits `first` on.
    fn check(divisor: f32, first: f32, stride: u32, count: u32) {
        let by = Divisor::new(divisor);
        let wrong = vectorised(
            #[inline(always)]
            || {
                let mut wrong = 0u32;
                for i in 0..count {
                    let x = f32::from_bits(first.to_bits() + i * stride);
                    wrong += u32::from(by.divide(x).to_bits() != (x / divisor).to_bits());
                }
                wrong
            },
        );
        assert_eq!(wrong, 0, "divided by {divisor}, from {first}");
    }

    /// Scaling by powers of two changes nothing, so all fractions of one binade are all there is.
    #[test]
    fn every_fraction_is_divided_as_by_division() {
        let corrections = [1u64, 2, 3, 10, 1000].map(|t| (1.0 - 0.999f64.powi(t as i32)).sqrt());
        let others = [0.95f64, 1.0, 1.0 - 2f64.powi(-24), 0.5 + 2f64.powi(-24), 1.0 / 3.0];
        for divisor in corrections.into_iter().chain(others) {
            check(divisor as f32, 1.0, 1, 1 << 23);
        }
    }

    #[test]
    fn roots_of_all_sizes_are_divided_as_by_division() {
        for divisor in [2f32.powi(-60), 1.3e-12, 0.031_622_8, 0.7, 1.0, 1.5, 2f32.powi(60)] {
            let least = f32::from_bits(1).sqrt();
            // 140 binades up, with a stride that has no factor in common with them.
            check(divisor, least, 8191, (140 << 23) / 8191);
            let by = Divisor::new(divisor);
            assert_eq!(by.divide(0.0).to_bits(), 0);
            assert_eq!(by.divide(f32::INFINITY), f32::INFINITY);
            assert!(by.divide(f32::NAN).is_nan());
        }
    }

    #[test]
    #[should_panic(expected = "division by 0")]
    fn nothing_is_divided_by_zero() {
        Divisor::new(0.0);
    }
}
