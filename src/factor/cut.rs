//! How a panel is cut into blocks of dates: by a number of dates, or by what memory allows.
//!
//! With N assets, K factors, C composites, H horizons and P ranks, a date of a block takes
//!
//! ```text
//! 8 · N · (2 K + C + 2 H + 8) / P
//! ```
//!
//! bytes of a rank: factors, twice, since loading takes half as much again beside them and judging
//! them 4 bytes a cell of eight (they are processed in place); returns, prices and what goes with
//! them. Beside it stand rows that do not depend on the block: those that windows reach back on, up
//! to five times (prices, returns, volumes, with the copy that all ranks keep), and prices ahead,
//! three times.

use std::ops::Range;

use super::config::{CompositeWeights, Config};
use crate::error::{Error, Result};

/// What a block may hold; everything by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Dates in a block.
    pub dates: Option<usize>,
    /// Bytes that the part of a panel in memory may take on each rank.
    pub memory: Option<usize>,
}

/// Rows beyond the ends of a block that a configuration needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Before: the longest window.
    pub before: usize,
    /// After: the delay and the longest horizon or lag.
    pub after: usize,
}

impl Reach {
    /// That of a configuration.
    pub fn of(config: &Config) -> Reach {
        let windows = config.factors.technical.iter().map(|technical| technical.window);
        let horizon = config.returns.horizons.iter().max().copied().unwrap_or(0);
        // Decay looks at the returns of one date that begin up to so many dates later.
        let ahead = horizon.max(config.ic.decay_lags + 1);
        Reach { before: windows.max().unwrap_or(0), after: config.returns.delay + ahead }
    }
}

impl Cut {
    /// Whether there is more than one block, perhaps.
    pub fn is_asked(&self) -> bool {
        self.dates.is_some() || self.memory.is_some()
    }

    /// The dates of the blocks of a panel of so many dates, assets and factors (those of the file).
    pub fn ranges(
        &self,
        [dates, assets, factors]: [usize; 3],
        config: &Config,
        ranks: usize,
    ) -> Result<Vec<Range<usize>>> {
        let mut block = self.dates.unwrap_or(dates);
        if let Some(memory) = self.memory {
            let (fixed, date) = bytes(assets, factors, config);
            let left = memory.saturating_sub(fixed);
            // Dates in all; a rank holds the ceiling of its share.
            let most = left / date.max(1) * ranks;
            if most == 0 {
                let least = (fixed + date).div_ceil(1 << 20);
                return Err(Error::input(format!(
                    "--memory: {assets} assets need {least}M at least, for windows, horizons and \
                     one date a rank"
                )));
            }
            block = block.min(most);
        }
        let block = block.max(1);
        Ok((0..dates).step_by(block).map(|start| start..(start + block).min(dates)).collect())
    }
}

/// Bytes of a rank that do not depend on the block, and those of one date.
fn bytes(assets: usize, factors: usize, config: &Config) -> (usize, usize) {
    let Reach { before, after } = Reach::of(config);
    let composites: usize = config
        .composites
        .weights
        .iter()
        .map(|kind| match kind {
            CompositeWeights::Equal => 1,
            _ => config.composites.windows.len(),
        })
        .sum();
    let factors = factors + config.factors.technical.len();
    let columns = 2 * factors + composites + 2 * config.returns.horizons.len() + 8;
    let row = 8 * assets;
    (row.saturating_mul(5 * before + 3 * after), row.saturating_mul(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_all_dates_once_and_fit() {
        let config = Config::default();
        for dates in [1, 2, 7, 100] {
            for block in [1, 2, 7, 99, 100, 1000] {
                let cut = Cut { dates: Some(block), memory: None };
                let ranges = cut.ranges([dates, 10, 3], &config, 2).unwrap();
                let all: Vec<usize> = ranges.iter().cloned().flatten().collect();
                assert_eq!(all, (0..dates).collect::<Vec<usize>>());
                assert!(ranges.iter().all(|range| range.len() <= block));
            }
        }
        let whole = Cut::default().ranges([100, 10, 3], &config, 2).unwrap();
        assert_eq!((whole.len(), whole[0].clone()), (1, 0..100));
    }

    #[test]
    fn memory_gives_the_largest_block_that_fits() {
        let mut config = Config::default();
        config.returns.horizons = vec![1, 5];
        let size = [1000, 100, 6];
        config.ic.decay_lags = 2;
        // 24 columns of 100 assets a date; 15 rows of prices ahead.
        let bytes = |dates: usize| 800 * (24 * dates + 15);
        for ranks in [1, 3] {
            for dates in [1, 10, 333] {
                let cut = |memory| Cut { dates: None, memory: Some(memory) };
                let ranges = cut(bytes(dates)).ranges(size, &config, ranks).unwrap();
                assert_eq!(ranges[0].len(), (dates * ranks).min(1000));
                let below = cut(bytes(dates) - 1).ranges(size, &config, ranks);
                match below {
                    Ok(ranges) => assert_eq!(ranges[0].len(), (dates - 1) * ranks),
                    Err(error) => assert!(dates == 1 && error.message.contains("need 1M")),
                }
            }
        }
        let both = Cut { dates: Some(4), memory: Some(bytes(10)) };
        assert_eq!(both.ranges(size, &config, 1).unwrap()[0].len(), 4);
    }
}
