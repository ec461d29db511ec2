//! Regression on industries and size.
//!
//! x = Σ dummies · a + b · l + e. By Frisch, Waugh and Lovell the residual of the whole regression
//! is that of one slope after x and l have lost their means inside industries: two sums over each
//! industry instead of a system of as many equations as industries. With weights (√ capitalisation)
//! means and products are weighted. A regressor that is constant inside all industries has slope 0.
//!
//! The mean is taken away once per industry and not per value, so values that are equal inside an
//! industry stay equal.

use super::ROUNDING;
use super::day::centre;
use super::lanes;

/// The regression of one cross-section, whose covariate is already centred.
pub(super) struct Regression<'a> {
    /// Where industries end.
    pub ends: &'a [u32],
    /// Whether there is a constant in each industry (or overall, if there is one group).
    pub intercept: bool,
    /// The regressor, or empty.
    pub covariate: &'a [f64],
    /// The sum of its squares (weighted if there are weights).
    pub squares: f64,
    /// The largest regressor before it was centred.
    pub size: f64,
    /// Weights, or empty.
    pub weight: &'a [f64],
}

impl Regression<'_> {
    /// Values become their residuals.
    #[inline(always)]
    pub(super) fn residuals(&self, values: &mut [f64]) {
        if self.weight.is_empty() {
            if self.intercept {
                centre(values, self.ends, true);
            }
        } else {
            centre_weighted(values, self.weight, self.ends, self.intercept);
        }
        if self.covariate.is_empty() {
            return;
        }
        let product = if self.weight.is_empty() {
            lanes::sum2(
                values,
                self.covariate,
                #[inline(always)]
                |x, l| x * l,
            )
        } else {
            lanes::sum3(self.weight, values, self.covariate)
        };
        let least = ROUNDING * self.size;
        let weights = if self.weight.is_empty() {
            values.len() as f64
        } else {
            lanes::sum(
                self.weight,
                #[inline(always)]
                |w| w,
            )
        };
        if self.squares > weights * least * least {
            let slope = product / self.squares;
            for (x, l) in values.iter_mut().zip(self.covariate) {
                *x -= slope * l;
            }
        }
    }
}

/// Takes the weighted mean of each group away and returns the weighted sum of squares.
#[inline(always)]
pub(super) fn centre_weighted(
    values: &mut [f64],
    weight: &[f64],
    ends: &[u32],
    intercept: bool,
) -> f64 {
    if intercept {
        let mut start = 0;
        for &end in ends {
            let range = start..end as usize;
            let (group, weight) = (&mut values[range.clone()], &weight[range]);
            let whole = lanes::sum(
                weight,
                #[inline(always)]
                |w| w,
            );
            let mean = lanes::sum2(
                group,
                weight,
                #[inline(always)]
                |x, w| x * w,
            ) / whole;
            group.iter_mut().for_each(|x| *x -= mean);
            start = end as usize;
        }
    }
    lanes::sum3(weight, values, values)
}
