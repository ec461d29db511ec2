//! One cross-section: the values of one factor on one date, without gaps.

use super::day::{Day, centre};
use super::neutralise::{Regression, centre_weighted};
use super::winsorise::{self, Room};
use super::{LEAST, Preprocess, clean, lanes, standardise};
use crate::reduce::simd::vectorised;

pub use super::winsorise::Brackets;

/// The values of one factor on one date. Its room is used again for the next.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The values, in the order of places.
    pub values: Vec<f64>,
    /// The place ([`Day::order`]) of each value, ascending.
    pub places: Vec<u32>,
    ends: Vec<u32>,
    covariate: Vec<f64>,
    weight: Vec<f64>,
    mean_weight: Vec<f64>,
    room: Room,
    order: Vec<u32>,
    row: Vec<f64>,
}

impl Section {
    /// Loads and processes a row of one value per asset. False if no cross-section comes of it;
    /// [`Section::values`] is empty then.
    pub fn process(
        &mut self,
        day: &Day,
        row: &[f64],
        options: &Preprocess,
        brackets: &mut Brackets,
    ) -> bool {
        self.load(day, row, options.neutralise.industry);
        let good = self.values.len() >= LEAST && {
            self.winsorise(options, brackets);
            self.neutralise_and_scale(day, options)
        };
        if !good {
            self.values.clear();
            self.places.clear();
        }
        good
    }

    /// Loads the values that are there, and fills gaps.
    pub fn load(&mut self, day: &Day, row: &[f64], industries: bool) {
        let n = day.order.len();
        // The row is read in the order of industries, which no prefetcher foresees: one pass in
        // its own order brings it near first.
        self.row.clear();
        self.row.extend_from_slice(row);
        let row = &self.row[..];
        self.values.resize(n, 0.0);
        self.places.resize(n, 0);
        self.ends.clear();
        let (mut kept, mut start) = (0, 0);
        for (group, &end) in day.ends.iter().enumerate() {
            let places = start..end as usize;
            start = end as usize;
            let known = !(day.last_unknown && group + 1 == day.ends.len());
            let mean = if day.fillable.is_empty() || !known {
                f64::NAN
            } else {
                mean_of(&day.order[places.clone()], row)
            };
            let first = kept;
            if mean.is_nan() {
                let (values, kept_places) = (&mut self.values[..n], &mut self.places[..n]);
                for (p, &asset) in (places.start as u32..).zip(&day.order[places]) {
                    // Written always and kept if it is a number, without a branch.
                    let x = row[asset as usize];
                    values[kept] = x + 0.0;
                    kept_places[kept] = p;
                    kept += usize::from(x.is_finite());
                }
            } else {
                for p in places {
                    let x = clean(row[day.order[p] as usize]);
                    let x = if x.is_nan() && day.fillable[p] { mean } else { x };
                    self.values[kept] = x;
                    self.places[kept] = p as u32;
                    kept += usize::from(!x.is_nan());
                }
            }
            if industries && kept > first {
                self.ends.push(kept as u32);
            }
        }
        self.values.truncate(kept);
        self.places.truncate(kept);
        if !industries {
            self.ends.push(kept as u32);
        }
    }

    /// Bounds outliers.
    pub fn winsorise(&mut self, options: &Preprocess, brackets: &mut Brackets) {
        let values = &mut self.values;
        vectorised(
            #[inline(always)]
            || {
                let bounds =
                    winsorise::bounds(values, &options.winsorise, brackets, &mut self.room);
                if let Some((low, high)) = bounds {
                    for x in values.iter_mut() {
                        let capped = if *x > high { high } else { *x };
                        *x = if capped < low { low } else { capped };
                    }
                }
            },
        );
    }

    /// Takes the residuals of the regression, and brings them to one scale.
    fn neutralise_and_scale(&mut self, day: &Day, options: &Preprocess) -> bool {
        let Section { values, places, mean_weight, .. } = self;
        let size = vectorised(
            #[inline(always)]
            || {
                let (low, high) = lanes::range(values);
                high.abs().max(low.abs())
            },
        );
        mean_weight.clear();
        if !day.mean_weight.is_empty() {
            mean_weight.extend(places.iter().map(|&p| day.mean_weight[p as usize]));
        }
        self.neutralise(day, options);
        let Section { values, mean_weight, order, .. } = self;
        vectorised(
            #[inline(always)]
            || standardise::standardise(values, mean_weight, size, &options.standardise, order),
        )
    }

    /// Values become residuals of the regression on industries and size.
    pub fn neutralise(&mut self, day: &Day, options: &Preprocess) {
        let Section { values, places, ends, covariate, weight, .. } = self;
        let intercept = options.neutralise.industry || options.neutralise.intercept;
        let whole = values.len() == day.order.len();
        weight.clear();
        weight.extend(places.iter().take(day.weight.len()).map(|&p| day.weight[p as usize]));
        let regression = if whole && day.weight.is_empty() {
            let (covariate, squares) = (&day.centred[..], day.centred_squares);
            Regression { ends, intercept, covariate, squares, size: day.covariate_size, weight }
        } else {
            covariate.clear();
            let centred = &day.centred;
            covariate.extend(places.iter().take(centred.len()).map(|&p| centred[p as usize]));
            let squares = vectorised(
                #[inline(always)]
                || match () {
                    () if covariate.is_empty() => 0.0,
                    () if weight.is_empty() => centre(covariate, ends, intercept),
                    () => centre_weighted(covariate, weight, ends, intercept),
                },
            );
            Regression { ends, intercept, covariate, squares, size: day.covariate_size, weight }
        };
        vectorised(
            #[inline(always)]
            || regression.residuals(values),
        );
    }
}

/// The mean of the values that are known among `assets`; NaN if there are none.
fn mean_of(assets: &[u32], row: &[f64]) -> f64 {
    let (mut sum, mut known) = (0.0, 0u32);
    for x in assets.iter().map(|&a| row[a as usize]).filter(|x| x.is_finite()) {
        sum += x;
        known += 1;
    }
    sum / f64::from(known)
}
