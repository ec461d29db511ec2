//! A panel in memory: dates × assets, sharded by dates.
//!
//! Every column is one matrix of f64, date after date, with NaN where nothing is known. All ranks
//! know all dates and all assets; a rank holds the rows of its own dates. Assets may be kept in the
//! order of their industries, so that sums over an industry read contiguous memory.

use crate::sharding::Sharding;

/// The rows of one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// All dates of the panel, ascending, in days since 1970-01-01.
    pub dates: Vec<i32>,
    /// All assets of the panel, in the order of the columns of every matrix.
    pub assets: Vec<String>,
    /// Which rank owns which dates.
    pub sharding: Sharding,
    /// This rank.
    pub rank: usize,
    /// Price of each own date and asset: `own dates × assets`, NaN where missing. Empty if the
    /// panel has none.
    pub price: Vec<f64>,
    /// Market capitalisation, as `price`; empty if the panel has none.
    pub capitalisation: Vec<f64>,
    /// Traded volume (or turnover), as `price`; empty if the panel has none.
    pub volume: Vec<f64>,
    /// Number of the industry of each own date and asset in `industries`, or `u16::MAX` where
    /// unknown; empty if the panel has none.
    pub industry: Vec<u16>,
    /// Names of the industries, ascending.
    pub industries: Vec<String>,
    /// Whether the asset is flagged (special treatment) on the date; empty if the panel has none.
    pub flagged: Vec<bool>,
    /// The factors: a name and a matrix as `price`.
    pub factors: Vec<Factor>,
}

/// One factor of a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// Its column name.
    pub name: String,
    /// `own dates × assets`, NaN where missing.
    pub values: Vec<f64>,
}

impl Panel {
    /// The own dates, as a range of `dates`.
    pub fn own_dates(&self) -> std::ops::Range<usize> {
        self.sharding.range(self.rank)
    }
}
