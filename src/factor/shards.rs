//! Where time-series factors are computed: on date shards with halos, or on asset shards.
//!
//! A window of w dates needs w earlier rows. Either each rank gets them for its own dates (halo),
//! or the panel is turned round, so that a rank has all dates of its own assets, and the factors
//! that were computed there are turned back. What crosses ranks, for c columns (prices, volumes), K
//! factors, T dates and N assets on P ranks:
//!
//! ```text
//! halo      = 8 · N · c · Σ min(w, first date of the rank)       ≈ 8 N c w (P - 1)   for w ≤ T/P
//! transpose = 8 · (c + K) · Σ dates of the rank · assets of others = 8 N T (c + K) (P - 1)/P
//! ```
//!
//! So halos move less as long as w · P < T · (c + K) / c: always on few ranks, but not for windows
//! of a year on hundreds of them, where each halo comes from many ranks. The smaller sum is chosen;
//! both give the same bits, since a value is computed by one rank from the same numbers in the same
//! order.
//!
//! Cross-sections (fill, means of industries, neutralisation, ranks, correlations) always stay with
//! the owner of the date, and no sum of floating-point numbers crosses ranks. Assets could stay
//! sharded there too: normal equations are 3 G + 3 numbers a date and factor (n, Σx, Σl by
//! industry; Σxx, Σxl, Σll), 744 bytes for G = 30 industries against 8 N for a cross-section. But
//! medians, quantiles and ranks would need histograms, 2 rounds of 2,048 counters = 16 kB a date
//! and factor, which is a cross-section of 2,000 assets; and date shards move none of both. They
//! are possible whenever one cross-section fits on a rank, and a million assets of 50 factors are
//! 400 MB.

use serde::Serialize;

use super::config::Technical;
use super::panel::Panel;
use crate::communicator::Communicator;
use crate::error::Result;
use crate::sharding::Sharding;

/// Which axis is shared among ranks while time-series factors are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shards {
    /// Dates, with the rows before them.
    Halo,
    /// Assets, with all dates.
    Transpose,
}

/// What both ways move, and which is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Bytes that cross ranks with halos.
    pub halo_bytes: u64,
    /// Bytes that cross ranks when the panel is turned round and back.
    pub transpose_bytes: u64,
    /// The way with fewer bytes.
    pub chosen: Shards,
}

impl Exchange {
    /// For the technical factors of a panel.
    pub fn of(panel: &Panel, wanted: &[Technical]) -> Exchange {
        let columns = 1 + usize::from(wanted.iter().any(|t| t.kind.needs_volume()));
        let window = wanted.iter().map(|t| t.window).max().unwrap_or(0);
        Exchange::new(&panel.sharding, panel.assets.len(), window, columns, wanted.len())
    }

    /// From sizes alone.
    pub fn new(
        dates: &Sharding,
        assets: usize,
        window: usize,
        columns: usize,
        factors: usize,
    ) -> Exchange {
        let owners = Sharding::even(assets, dates.ranks());
        let ranks = (0..dates.ranks()).filter(|&rank| dates.count(rank) > 0);
        let halo: u64 =
            ranks.map(|rank| dates.range(rank).start.min(window) as u64 * assets as u64).sum();
        let away = |rank| dates.count(rank) as u64 * (assets - owners.count(rank)) as u64;
        let turned: u64 = (0..dates.ranks()).map(away).sum();
        let halo_bytes = 8 * columns as u64 * halo;
        let transpose_bytes = 8 * (columns + factors) as u64 * turned;
        let chosen = if halo_bytes <= transpose_bytes { Shards::Halo } else { Shards::Transpose };
        Exchange { halo_bytes, transpose_bytes, chosen }
    }
}

/// From own dates × all assets to all dates × own assets. Collective.
pub fn to_assets(
    comm: &Communicator,
    dates: &Sharding,
    assets: &Sharding,
    matrix: &[f64],
) -> Result<Vec<f64>> {
    let (own, width) = (dates.count(comm.rank()), assets.n());
    let mut sent = Vec::with_capacity(matrix.len());
    for rank in 0..comm.ranks() {
        for row in matrix.chunks_exact(width.max(1)) {
            sent.extend_from_slice(&row[assets.range(rank)]);
        }
    }
    let counts: Vec<usize> = (0..comm.ranks()).map(|rank| own * assets.count(rank)).collect();
    // What comes in rank order is in date order.
    Ok(comm.all_to_all_vec(&sent, &counts)?.0)
}

/// From all dates × own assets to own dates × all assets. Collective.
pub fn to_dates(
    comm: &Communicator,
    dates: &Sharding,
    assets: &Sharding,
    matrix: &[f64],
) -> Result<Vec<f64>> {
    let (rank, width) = (comm.rank(), assets.n());
    let held = assets.count(rank);
    let counts: Vec<usize> = (0..comm.ranks()).map(|other| dates.count(other) * held).collect();
    let received = comm.all_to_all_vec(matrix, &counts)?.0;
    let own = dates.count(rank);
    let mut whole = vec![f64::NAN; own * width];
    let mut rest = &received[..];
    for other in 0..comm.ranks() {
        let columns = assets.range(other);
        let (part, after) = rest.split_at(own * columns.len());
        rest = after;
        for (date, values) in part.chunks_exact(columns.len().max(1)).enumerate() {
            whole[date * width + columns.start..][..columns.len()].copy_from_slice(values);
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;

    #[test]
    fn a_panel_is_turned_round_and_back() {
        for ranks in [1, 2, 3, 4, 7] {
            for (t, n) in [(0, 3), (1, 1), (5, 0), (6, 2), (11, 23)] {
                launch::threads(ranks, |comm| {
                    let (dates, assets) = (Sharding::even(t, ranks), Sharding::even(n, ranks));
                    let value = |date: usize, asset: usize| (date * n + asset) as f64;
                    let cells = |dates: std::ops::Range<usize>, assets: std::ops::Range<usize>| {
                        dates
                            .flat_map(|d| assets.clone().map(move |a| value(d, a)))
                            .collect::<Vec<f64>>()
                    };
                    let own = cells(dates.range(comm.rank()), 0..n);
                    let turned = to_assets(comm, &dates, &assets, &own)?;
                    assert_eq!(turned, cells(0..t, assets.range(comm.rank())));
                    assert_eq!(to_dates(comm, &dates, &assets, &turned)?, own);
                    Ok(())
                })
                .unwrap();
            }
        }
    }

    #[test]
    fn the_smaller_sum_of_bytes_is_chosen() {
        let on = |ranks, window, columns, factors| {
            Exchange::new(&Sharding::even(2400, ranks), 1000, window, columns, factors)
        };
        // 7 ranks get 250 rows of 1,000 prices; or 7/8 of 2,400 × 1,000 cells go there and back.
        let few = on(8, 250, 1, 1);
        assert_eq!(few.halo_bytes, 7 * 250 * 1000 * 8);
        assert_eq!(few.transpose_bytes, 2 * 2400 * 1000 / 8 * 7 * 8);
        assert_eq!(few.chosen, Shards::Halo);
        // 25 dates a rank: the first ten have fewer than 250 dates before them.
        let many = on(96, 250, 1, 1);
        assert_eq!(many.halo_bytes, (45 * 25 + 86 * 250) * 1000 * 8);
        assert_eq!(many.chosen, Shards::Transpose);
        assert_eq!(on(96, 250, 2, 20).chosen, Shards::Halo);
        assert_eq!(on(1, 250, 1, 1).halo_bytes, 0);
    }
}
