//! One visit to every cross-section: all that the evaluations ask of a factor on one date.
//!
//! A thread takes some consecutive dates. On each it lays the returns out once for all factors;
//! then each factor is sorted once, and its order gives the rank coefficients of all lags, the
//! groups and the ranks that stability compares. A date is a row of the result:
//!
//! ```text
//! factors × (Pearson by lag | ranks by lag | horizons × groups | horizons × (portfolio, mean))
//! ```
//!
//! Nothing is made of the size of the factors but that table and 4 bytes a cell of standings. Cost:
//! about 45 ns a cell with 11 lags and 3 horizons, half of it coefficients.

use rayon::prelude::*;

use super::config::{Config, Demean, Missing};
use super::earnings::{self, Members, SideBySide};
use super::ic::{Correlator, DayReturns};
use super::panel::{Factor, Panel};
use super::quantiles::{self, cut};
use super::ranks::Order;
use super::returns::Forward;
use super::weighted;

/// Dates that a thread takes at once: it sorts the returns of as many dates more as there are lags.
const DATES: usize = 16;

/// How a row of one date and factor is made up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) factors: usize,
    pub(super) lags: usize,
    pub(super) horizons: usize,
    pub(super) groups: usize,
}

impl Layout {
    /// That of so many factors.
    pub(super) fn of(factors: usize, config: &Config) -> Layout {
        let (lags, horizons) = (config.ic.decay_lags + 1, config.returns.horizons.len());
        Layout { factors, lags, horizons, groups: config.quantiles.count }
    }

    /// Numbers of a factor.
    pub(super) fn of_factor(&self) -> usize {
        2 * self.lags + self.horizons * (self.groups + 2)
    }

    /// Numbers of a date.
    pub(super) fn of_date(&self) -> usize {
        self.factors * self.of_factor()
    }
}

/// What a thread works with.
#[derive(Default)]
struct Room {
    lagged: DayReturns,
    side: SideBySide,
    correlator: Correlator,
    order: Order,
    assets: Vec<u32>,
    values: Vec<f64>,
    sums: earnings::Room,
}

/// What all dates share.
struct Task<'t> {
    panel: &'t Panel,
    factors: &'t [Factor],
    forward: &'t Forward,
    /// Returns over one date, of the own dates and as many more as lags.
    daily: &'t [f64],
    config: &'t Config,
    layout: Layout,
    /// All assets.
    everything: Vec<u32>,
}

/// Visits the own dates of some processed factors of a panel. Returns dates × [`Layout::of_date`],
/// and writes into `standings` where each asset stands: dates × factors × assets.
pub(super) fn visit(
    panel: &Panel,
    factors: &[Factor],
    forward: &Forward,
    daily: &[f64],
    config: &Config,
    standings: &mut Vec<u32>,
) -> Vec<f64> {
    let (n, dates) = (panel.assets.len(), panel.own_dates().len());
    let layout = Layout::of(factors.len(), config);
    let (width, cells) = (layout.of_date(), layout.factors * n);
    let mut table = vec![f64::NAN; dates * width];
    standings.clear();
    standings.resize(dates * cells, 0);
    let everything = (0..n as u32).collect();
    let task = Task { panel, factors, forward, daily, config, layout, everything };
    if cells > 0 {
        let parts = table.par_chunks_mut(DATES * width);
        let parts = parts.zip(standings.par_chunks_mut(DATES * cells));
        parts.enumerate().for_each_init(Room::default, |room, (part, (table, standings))| {
            let rows = table.chunks_exact_mut(width).zip(standings.chunks_exact_mut(cells));
            for (i, (row, standings)) in rows.enumerate() {
                task.visit_date(room, part * DATES + i, i == 0, row, standings);
            }
        });
    }
    table
}

impl Task<'_> {
    /// Fills the row of one date; a thread goes on from the date before unless this is its `first`.
    fn visit_date(
        &self,
        room: &mut Room,
        date: usize,
        first: bool,
        row: &mut [f64],
        standings: &mut [u32],
    ) {
        let (n, lags) = (self.panel.assets.len(), self.layout.lags);
        let daily = |date: usize| self.daily.get(date * n..(date + 1) * n).unwrap_or(&[]);
        if first {
            let rows: Vec<&[f64]> = (date..date + lags).map(daily).collect();
            room.lagged.prepare(&self.everything, &rows);
        } else {
            room.lagged.follow(&self.everything, daily(date + lags - 1));
        }
        let horizons = 0..self.layout.horizons;
        let returns: Vec<&[f64]> = horizons.map(|h| self.forward.row(h, date, n)).collect();
        room.side.prepare(&returns);
        let rows = row.chunks_exact_mut(self.layout.of_factor());
        for ((factor, row), standings) in
            self.factors.iter().zip(rows).zip(standings.chunks_exact_mut(n))
        {
            let values = &factor.values[date * n..(date + 1) * n];
            let (decay, earned) = row.split_at_mut(2 * lags);
            room.take(values, None);
            room.decay(self.config.ic.minimum_pairs, decay);
            if self.config.returns.missing == Missing::AllHorizons {
                room.take(values, returns.first().copied());
            }
            self.earn(room, date, &returns, standings, earned);
        }
    }

    /// Groups and portfolio of the cross-section that the room holds.
    fn earn(
        &self,
        room: &mut Room,
        date: usize,
        returns: &[&[f64]],
        standings: &mut [u32],
        into: &mut [f64],
    ) {
        let options = &self.config.quantiles;
        if !cut(&room.order, options.count, options.binning, standings) {
            return;
        }
        if room.assets.iter().any(|&asset| standings[asset as usize] == 0) {
            room.leave_out(standings);
        }
        let (groups, weighted) = into.split_at_mut(self.layout.horizons * options.count);
        let Room { assets, values, side, sums, .. } = room;
        let members = Members { assets, values, standings };
        if options.demean != Demean::Industry {
            let demean = options.demean == Demean::Date;
            earnings::earned(members, side, demean, sums, groups, weighted);
            return;
        }
        let n = standings.len();
        let industry = self.panel.industry.get(date * n..(date + 1) * n).unwrap_or(&[]);
        let mut row = vec![f64::NAN; n];
        assets.iter().zip(&*values).for_each(|(&asset, &x)| row[asset as usize] = x);
        let of_horizon = groups.chunks_exact_mut(options.count).zip(weighted.chunks_exact_mut(2));
        for (returns, (groups, weighted)) in returns.iter().zip(of_horizon) {
            quantiles::by_industry(returns, standings, industry, options.count, groups);
            let found = weighted::of_date(&row, returns, industry, Demean::Industry);
            weighted.copy_from_slice(&found);
        }
    }
}

impl Room {
    /// Takes and sorts the values that are there, in the order of assets; only those with a number
    /// in `with`, if that is given.
    fn take(&mut self, row: &[f64], with: Option<&[f64]>) {
        let Room { assets, values, order, .. } = self;
        assets.resize(row.len(), 0);
        values.resize(row.len(), 0.0);
        let mut kept = 0;
        for (asset, &x) in row.iter().enumerate() {
            // Written always and kept if it is a number, without a branch; without -0.
            values[kept] = x + 0.0;
            assets[kept] = asset as u32;
            let wanted = with.is_none_or(|with| !with[asset].is_nan());
            kept += usize::from(x.is_finite() & wanted);
        }
        assets.truncate(kept);
        values.truncate(kept);
        order.sort(values, assets);
    }

    /// Leaves assets out that stand nowhere.
    fn leave_out(&mut self, standings: &[u32]) {
        let stands = |asset: u32| standings[asset as usize] != 0;
        let mut kept = self.assets.iter().map(|&asset| stands(asset));
        self.values.retain(|_| kept.next().unwrap_or(false));
        self.assets.retain(|&asset| stands(asset));
    }

    /// The coefficients of all lags.
    fn decay(&mut self, least: usize, into: &mut [f64]) {
        let Room { lagged, correlator, order, assets, values, .. } = self;
        let (pearson, ranks) = into.split_at_mut(into.len() / 2);
        correlator.ranks_of(order, lagged, least, ranks);
        correlator.pearson(values, assets, lagged, least, pearson);
    }
}
