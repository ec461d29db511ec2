//! Preprocessing of cross-sections: one date, one factor, all assets.
//!
//! fill → winsorise → neutralise → standardise, each on the values of one date only, so that the
//! rank that owns the date does all of it alone: no sum crosses ranks, and results have the same
//! bits at any number of ranks and threads. Missing is NaN; infinities count as missing, and -0
//! is 0. Fewer than [`LEAST`] values, or values that are constant up to rounding (deviation at
//! most 1e-12 of the largest one), give no cross-section.
//!
//! A [`Day`] holds what all factors of a date share: the usable assets in the order of their
//! industries, and their capitalisation. A [`Section`] holds the values of one factor without
//! gaps, in the same order, so that every sum over an industry reads contiguous memory in vectors.
//! Cost: two selections, four sums and three element-wise passes over a section in the first cache
//! level.

mod day;
mod lanes;
mod median;
mod neutralise;
mod section;
mod standardise;
mod winsorise;

use serde::{Deserialize, Serialize};

use super::config::{self, Config};

pub use day::{Day, DayInput};
pub(crate) use lanes::{dots, range, sum as sum_with, sum_pairs};
pub use section::{Brackets, Section};
pub(crate) use winsorise::quantile;

/// The fewest values that make a cross-section.
pub const LEAST: usize = 3;
/// Deviations below this share of the largest value are rounding.
const ROUNDING: f64 = 1e-12;

/// What is done to a cross-section.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preprocess {
    /// Missing values.
    pub fill: config::Fill,
    /// Outliers.
    pub winsorise: config::Winsorise,
    /// Industry and size.
    pub neutralise: config::Neutralise,
    /// Scale.
    pub standardise: config::Standardise,
}

impl Preprocess {
    /// Nothing but the cleaning of values.
    pub fn none() -> Preprocess {
        let mut options = Preprocess::default();
        options.winsorise.method = config::WinsoriseMethod::None;
        options.neutralise.industry = false;
        options.neutralise.capitalisation = config::Capitalisation::None;
        options.standardise.method = config::StandardiseMethod::None;
        options
    }

    /// Whether the regression, the weights or the mean need a capitalisation of every asset.
    pub fn needs_capitalisation(&self) -> bool {
        self.neutralise.capitalisation != config::Capitalisation::None
            || self.neutralise.weights == config::RegressionWeights::SqrtCap
            || self.standardise.mean == config::MeanWeights::Cap
    }

    /// Whether assets without an industry cannot take part.
    pub fn needs_industry(&self) -> bool {
        self.neutralise.industry
    }

    /// Whether assets are grouped by industry at all.
    pub fn groups(&self) -> bool {
        self.neutralise.industry || self.fill.method == config::FillMethod::IndustryMean
    }
}

impl From<&Config> for Preprocess {
    fn from(config: &Config) -> Preprocess {
        Preprocess {
            fill: config.fill.clone(),
            winsorise: config.winsorise.clone(),
            neutralise: config.neutralise.clone(),
            standardise: config.standardise.clone(),
        }
    }
}

/// A value as preprocessing sees it: infinities are missing, and -0 is 0, so that equal values
/// have equal bits.
#[inline(always)]
pub fn clean(x: f64) -> f64 {
    // Adding 0 turns -0 into 0 and changes nothing else.
    if x.is_finite() { x + 0.0 } else { f64::NAN }
}

#[cfg(test)]
mod tests;
