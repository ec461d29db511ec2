//! Ranks that hardly changed are not sent again: `--delta`.
//!
//! # Rule
//! Every node has the rank xᵤ and the rank x̃ᵤ that its readers know. After a step, x̃ᵤ becomes xᵤ
//! if `|xᵤ − x̃ᵤ| > θ`; otherwise all readers, on whatever rank, go on with x̃ᵤ, and the exchange
//! leaves the value out (`communicator::needed`, `Resend::Changed`). θ = fraction · limit / n with
//! the limit of the stopping rule, an L1 norm over n nodes. The decision depends on the values of
//! the node alone, so results have the same bits on any number of ranks; they are not those of a
//! run without `--delta`.
//!
//! # Error
//! A step from x̃ instead of x differs from the exact step F(x) by at most α·h in the L1 norm, with
//! h = Σ|xᵤ − x̃ᵤ|, since column sums are at most α. With the contraction of F,
//! ```text
//! ‖x' − x*‖ ≤ α·‖x − x*‖ + α·h ≤ α·(‖x − x'‖ + ‖x' − x*‖) + α·h
//! ‖x' − x*‖ ≤ α/(1 − α) · (residual + h)
//! ```
//! where x', x and h are those of one step: h at its start. It is the bound of an exact run with h
//! added to its residual. So iteration stops when `residual + h`, and not the residual alone, is
//! below the limit: what a run without `--delta` promises holds here too. At most the fraction of
//! the limit is used up by h.
//!
//! Dangling nodes have no readers and are not part of h. Cost: 8 bytes a node and a pass over them.

use super::partition::GRAIN;
use crate::element::Element;
use crate::reduce::exact::ExactSum;
use crate::reduce::gather::Precision;

/// What the readers of the own nodes know.
#[derive(Debug)]
pub(super) struct Withheld<P: Precision> {
    known: Vec<P::Sum>,
    threshold: f64,
}

impl<P: Precision> Withheld<P> {
    /// From the ranks of the start, which all know.
    pub(super) fn new(x: &[P::Sum], threshold: f64) -> Self {
        Withheld { known: x.to_vec(), threshold }
    }

    /// Puts the contributions of known ranks in the place of those that changed too little; returns
    /// Σ|xᵤ − x̃ᵤ| over the own nodes.
    pub(super) fn withhold(
        &mut self,
        (x, scale): (&[P::Sum], &[P::Sum]),
        next: &mut [P::Wire],
    ) -> ExactSum {
        let mut sum = ExactSum::new();
        let blocks = self.known.chunks_mut(GRAIN).zip(next.chunks_mut(GRAIN));
        let own = x.chunks(GRAIN).zip(scale.chunks(GRAIN));
        for ((known, next), (x, scale)) in blocks.zip(own) {
            let mut block = 0.0;
            for i in 0..x.len() {
                let change = (x[i] - known[i]).to_f64().abs();
                if change <= self.threshold && scale[i] != P::Sum::default() {
                    next[i] = P::narrow(known[i] * scale[i]);
                    block += change;
                } else {
                    known[i] = x[i];
                }
            }
            if block != 0.0 {
                sum.add(block);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::gather::Double;

    #[test]
    fn small_changes_add_up_until_they_are_sent() {
        let scale = [2.0, 0.0, 2.0];
        let mut withheld = Withheld::<Double>::new(&[1.0, 1.0, 1.0], 0.25);
        let mut next = [9.0; 3];
        // Below the threshold; a dangling node; above it.
        let sum = withheld.withhold((&[1.125, 1.125, 1.5], &scale), &mut next);
        assert_eq!((next, sum.value()), ([2.0, 9.0, 9.0], 0.125));
        let sum = withheld.withhold((&[1.25, 1.0, 1.5], &scale), &mut next);
        assert_eq!((next, sum.value()), ([2.0, 9.0, 3.0], 0.25));
        next = [9.0; 3];
        let sum = withheld.withhold((&[1.375, 1.0, 1.5], &scale), &mut next);
        assert_eq!((next, sum.value()), ([9.0, 9.0, 3.0], 0.0), "the sum of three is sent");
        let sum = withheld.withhold((&[1.375, 1.0, 1.25], &scale), &mut next);
        assert_eq!((next, sum.value()), ([2.75, 9.0, 3.0], 0.25));
    }
}
