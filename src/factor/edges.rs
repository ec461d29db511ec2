//! What a block of dates has to know of the dates before and after it, so that its results have
//! the bits of the whole panel.
//!
//! | for | is kept | bytes a rank |
//! | --- | --- | --- |
//! | windows of technical factors | the last w rows of prices, volumes before | w × assets × 16 |
//! | forward returns | delay + largest horizon rows of prices after | rows × assets × 8 |
//! | the history of the universe | how many prices each asset has had | assets × 4 |
//! | filled prices | the last known price of each asset | assets × 8 |
//!
//! All ranks hold the same edges: rows are replicated, since with few dates a rank many ranks need
//! the same ones. What comes before is carried on from block to block; what comes after is read.

use super::panel::Panel;
use crate::communicator::Communicator;
use crate::element::{Element, Op};
use crate::error::Result;

/// Beyond the ends of a block. The default is that of a whole panel: nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edges {
    /// How many dates come before.
    pub first: usize,
    /// The last rows of prices before the first date, as many as windows reach back.
    pub price_before: Vec<f64>,
    /// The last rows of volumes before the first date.
    pub volume_before: Vec<f64>,
    /// The first rows of prices after the last date.
    pub price_after: Vec<f64>,
    /// How many prices each asset has had before; empty for none.
    pub prices: Vec<u32>,
    /// The last known price of each asset before; empty for none.
    pub last_price: Vec<f64>,
}

impl Edges {
    /// Those of the block that follows `panel`, with at most `reach` rows before it. What comes
    /// after is not known yet. Collective.
    pub fn following(comm: &Communicator, panel: &Panel, reach: usize) -> Result<Edges> {
        let edges = &panel.edges;
        let n = panel.assets.len();
        let own: Vec<u32> = (0..n)
            .map(|asset| {
                let prices = panel.price.iter().skip(asset).step_by(n);
                prices.filter(|p| !p.is_nan()).count() as u32
            })
            .collect();
        let mut prices = comm.all_reduce_vec(&own, Op::Sum)?;
        prices.iter_mut().zip(&edges.prices).for_each(|(n, before)| *n += before);
        let ends = comm.all_gather_vec(&last_known(&panel.price, n))?.0;
        let mut last_price = edges.last_price_of(n);
        ends.chunks_exact(n.max(1)).for_each(|end| fill(&mut last_price, end));
        Ok(Edges {
            first: edges.first + panel.dates.len(),
            price_before: last_rows(comm, panel, n, &edges.price_before, &panel.price, reach)?,
            volume_before: last_rows(comm, panel, n, &edges.volume_before, &panel.volume, reach)?,
            price_after: Vec::new(),
            prices,
            last_price,
        })
    }

    /// The last known price of each of `n` assets, NaN for none.
    pub fn last_price_of(&self, n: usize) -> Vec<f64> {
        if self.last_price.is_empty() { vec![f64::NAN; n] } else { self.last_price.clone() }
    }
}

/// Puts what is known in `row` over `last`.
pub(super) fn fill(last: &mut [f64], row: &[f64]) {
    last.iter_mut().zip(row).filter(|pair| pair.1.is_finite()).for_each(|(last, p)| *last = *p);
}

/// The last known value of each of `n` columns.
pub(super) fn last_known(matrix: &[f64], n: usize) -> Vec<f64> {
    let mut last = vec![f64::NAN; n];
    matrix.chunks_exact(n.max(1)).for_each(|row| fill(&mut last, row));
    last
}

/// The last `reach` rows, of `width`, of those before a panel and its own. Collective.
pub(super) fn last_rows<T: Element>(
    comm: &Communicator,
    panel: &Panel,
    width: usize,
    before: &[T],
    matrix: &[T],
    reach: usize,
) -> Result<Vec<T>> {
    // How many rows of the own part are among the last ones of the panel.
    let later = panel.dates.len() - panel.own_dates().end;
    let own = reach.saturating_sub(later) * width;
    let rows = comm.all_gather_vec(&matrix[matrix.len().saturating_sub(own)..])?.0;
    let old = (reach * width).saturating_sub(rows.len()).min(before.len());
    Ok([&before[before.len() - old..], &rows].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::fixtures::Small;
    use crate::launch;
    use crate::sharding::Sharding;

    #[test]
    fn edges_are_the_same_whatever_the_blocks() {
        let small = Small::load();
        let n = small.assets;
        for ranks in [1, 2, 3, 5] {
            for block in [1, 2, 7, 40] {
                for reach in [0, 1, 9, 60] {
                    let found = launch::threads(ranks, |comm| {
                        let mut edges = Edges::default();
                        for start in (0..35).step_by(block) {
                            let dates = start..(start + block).min(35);
                            let sharding = Sharding::even(dates.len(), ranks);
                            let own = sharding.range(comm.rank());
                            let cells = (start + own.start) * n..(start + own.end) * n;
                            let panel = Panel {
                                dates: dates.map(|date| date as i32).collect(),
                                assets: vec![String::new(); n],
                                rank: comm.rank(),
                                price: small.price[cells].to_vec(),
                                sharding,
                                edges,
                                ..Panel::default()
                            };
                            edges = Edges::following(comm, &panel, reach)?;
                        }
                        Ok(edges)
                    })
                    .unwrap();
                    let price = &small.price[..35 * n];
                    let bits = |xs: &[f64]| xs.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    for edges in found {
                        assert_eq!(edges.first, 35);
                        let rows = &price[(35 - reach.min(35)) * n..];
                        assert_eq!(bits(&edges.price_before), bits(rows));
                        assert_eq!(bits(&edges.last_price), bits(&last_known(price, n)));
                        for (asset, &count) in edges.prices.iter().enumerate() {
                            let own = price.iter().skip(asset).step_by(n);
                            assert_eq!(own.filter(|p| !p.is_nan()).count() as u32, count);
                        }
                    }
                }
            }
        }
    }
}
