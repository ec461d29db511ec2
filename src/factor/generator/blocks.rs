//! A synthetic panel made block by block. Prices walk on from block to block, so ranges ascend.

use std::ops::Range;

use super::{Asset, Synthetic, Walk};
use crate::factor::panel::Panel;
use crate::sharding::Sharding;

/// A synthetic panel and how far it is made.
pub(in crate::factor) struct Blocks {
    made: Synthetic,
    assets: Vec<Asset>,
    walk: Walk,
    benchmark: Vec<f64>,
}

impl Blocks {
    pub(in crate::factor) fn new(made: Synthetic) -> Blocks {
        let assets = made.assets();
        Blocks { walk: made.walk(&assets), assets, benchmark: made.market_path(), made }
    }

    pub(in crate::factor) fn size(&self) -> Synthetic {
        self.made
    }

    /// The share of `rank` of `ranks` of a range of dates.
    pub(in crate::factor) fn block(
        &mut self,
        dates: Range<usize>,
        rank: usize,
        ranks: usize,
    ) -> Panel {
        let sharding = Sharding::even(dates.len(), ranks);
        let own = sharding.range(rank);
        let own = dates.start + own.start..dates.start + own.end;
        let part = self.made.part(&self.assets, &mut self.walk, own);
        Panel {
            dates: part.dates[dates.clone()].to_vec(),
            benchmark: self.benchmark[dates].to_vec(),
            sharding,
            rank,
            ..part
        }
    }

    /// The prices of a range of dates that is not made yet, all of them on every rank.
    pub(in crate::factor) fn prices(&self, dates: Range<usize>) -> Vec<f64> {
        let mut walk = self.walk.clone();
        Synthetic { factors: 0, ..self.made }.part(&self.assets, &mut walk, dates).price
    }
}
