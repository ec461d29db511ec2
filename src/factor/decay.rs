//! Decay: what a factor still knows of the returns of later dates.
//!
//! The factor of date t is correlated with the return over one date that begins lag dates later,
//! p(t + delay + lag + 1) / p(t + delay + lag) - 1, for lags from 0: neighbouring lags share no
//! returns, unlike neighbouring horizons. Assets count that have the value and the return.
//!
//! The owner of a date computes its coefficients, with the returns that follow its dates from the
//! ranks that own them, once for all factors; tables are all-gathered, and every rank averages them
//! in the order of dates. Cost: as the coefficients of a study, for each lag.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config;
use super::ic::{Correlator, DayReturns};
use super::panel::{Factor, Panel};
use super::past::Past;
use super::returns;
use super::statistics::{Summary, summary};
use crate::communicator::Communicator;
use crate::error::Result;

/// The coefficients of one factor and one lag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Dates between the factor and the start of the return, besides the delay.
    pub lag: usize,
    /// Of Pearson coefficients.
    pub ic: Summary,
    /// Of rank coefficients.
    pub rank_ic: Summary,
}

/// What a thread works with.
#[derive(Default)]
struct Room {
    returns: DayReturns,
    correlator: Correlator,
    values: Vec<f64>,
    assets: Vec<u32>,
}

/// For each of the processed factors the lags from 0 to `ic.decay_lags`. Collective.
pub fn run(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    factors: &[Factor],
    of: &config::Returns,
    ic: &config::Ic,
) -> Result<Vec<Vec<Lag>>> {
    let (n, dates, lags) = (panel.assets.len(), panel.own_dates().len(), ic.decay_lags + 1);
    let daily = returns::daily(comm, panel, of, ic.decay_lags)?;
    let everything: Vec<u32> = (0..n as u32).collect();
    let width = factors.len() * lags;
    let mut own = (vec![f64::NAN; dates * width], vec![f64::NAN; dates * width]);
    let tables = own.0.par_chunks_mut(width).zip(own.1.par_chunks_mut(width));
    tables.enumerate().for_each_init(Room::default, |room, (date, (pearson, ranks))| {
        let Room { returns, correlator, values, assets } = room;
        let rows: Vec<&[f64]> =
            (date..date + lags).map(|t| daily.get(t * n..(t + 1) * n).unwrap_or(&[])).collect();
        returns.prepare(&everything, &rows);
        for (k, factor) in factors.iter().enumerate() {
            values.clear();
            assets.clear();
            for (asset, &x) in factor.values[date * n..(date + 1) * n].iter().enumerate() {
                if x.is_finite() {
                    // Without -0, which would sort before 0.
                    values.push(x + 0.0);
                    assets.push(asset as u32);
                }
            }
            let at = k * lags..(k + 1) * lags;
            let least = ic.minimum_pairs;
            correlator.ranks(values, assets, returns, least, &mut ranks[at.clone()]);
            correlator.pearson(values, assets, returns, least, &mut pearson[at]);
        }
    });
    let pearson = past.gather(comm, &own.0)?;
    let ranks = past.gather(comm, &own.1)?;
    let series = |table: &[f64], column: usize| -> Vec<f64> {
        table.iter().skip(column).step_by(width).copied().collect()
    };
    let lag = |column: usize| Lag {
        lag: column % lags,
        ic: summary(&series(&pearson, column), ic.ddof, 0),
        rank_ic: summary(&series(&ranks, column), ic.ddof, 0),
    };
    let all: Vec<Lag> = (0..width).into_par_iter().map(lag).collect();
    Ok(all.chunks(lags).map(<[Lag]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::fixtures::{Small, close_to};
    use crate::factor::preprocess::Preprocess;
    use crate::factor::study::{self, StudyOptions};
    use crate::launch;
    use crate::sharding::Sharding;

    fn run_on(ranks: usize, of: &config::Returns, lags: usize) -> Vec<Vec<Vec<Lag>>> {
        let small = Small::load();
        let sharding = Sharding::even(small.dates, ranks);
        let ic = config::Ic { decay_lags: lags, ..config::Ic::default() };
        launch::threads(ranks, |comm| {
            let panel = small.panel(&sharding, comm.rank());
            run(comm, &mut Past::default(), &panel, &panel.factors, of, &ic)
        })
        .unwrap()
    }

    #[test]
    fn a_lag_is_a_longer_delay_at_any_number_of_ranks() {
        let small = Small::load();
        let of = config::Returns { delay: 1, ..config::Returns::default() };
        let one = run_on(1, &of, 50).remove(0);
        for lag in [0, 1, 3, 7, 37, 39, 50] {
            let mut options =
                StudyOptions { preprocess: Preprocess::none(), ..StudyOptions::default() };
            options.returns =
                config::Returns { horizons: vec![1], delay: 1 + lag, ..config::Returns::default() };
            let study = launch::threads(1, |comm| {
                study::run(comm, &small.panel(&Sharding::even(40, 1), 0), &options)
            })
            .unwrap()
            .remove(0);
            for (k, row) in study.summary.iter().enumerate() {
                let found = &one[k][lag];
                assert_eq!((found.lag, found.rank_ic.n), (lag, row.rank_ic.n), "{k} {lag}");
                assert!(close_to(found.rank_ic.mean, row.rank_ic.mean, 0.0));
                assert!(close_to(found.ic.mean, row.ic.mean, 1e-12));
            }
        }
        assert!(one[0][0].rank_ic.n > 30 && one[0][38].rank_ic.mean.is_nan());
        for ranks in [2, 3, 4, 7, 41] {
            for found in run_on(ranks, &of, 50) {
                assert_eq!(format!("{found:?}"), format!("{one:?}"), "{ranks}");
            }
        }
    }
}
