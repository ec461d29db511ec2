//! Forward returns: what an asset earns from a date on, over h dates.
//!
//! r(t) = p(t + delay + h) / p(t + delay) - 1, counted in rows of the panel, and missing where one
//! of both prices is: no price is invented, unless `fill_prices` asks for the last known one (as
//! alphalens does). The rows after the own dates come from the ranks that own them, once for all
//! factors: (delay + largest h) × assets × 8 bytes a rank.

use rayon::prelude::*;

use super::config::{Missing, Returns};
use super::edges::{fill, last_known};
use super::panel::{Beyond, Panel, rows_around};
use crate::communicator::Communicator;
use crate::error::{Error, Result};

/// Forward returns of the own dates.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The horizons, as configured.
    pub horizons: Vec<usize>,
    /// For each horizon a matrix: own dates × assets, NaN where missing.
    pub values: Vec<Vec<f64>>,
}

impl Forward {
    /// The returns of one own date, by horizon.
    pub fn row(&self, horizon: usize, date: usize, assets: usize) -> &[f64] {
        &self.values[horizon][date * assets..(date + 1) * assets]
    }
}

/// The forward returns of a panel. Collective.
pub fn forward(comm: &Communicator, panel: &Panel, options: &Returns) -> Result<Forward> {
    let n = panel.assets.len();
    let cells = panel.own_dates().len() * n;
    comm.agree(if panel.price.len() == cells {
        Ok(())
    } else {
        Err(Error::input("the panel has no prices, which forward returns need; name the column"))
    })?;
    let filled = if options.fill_prices { Some(fill_prices(comm, panel)?) } else { None };
    let (price, later) = match &filled {
        Some(filled) => (&filled.own, &filled.later),
        None => (&panel.price, &panel.edges.price_after),
    };
    let reach = options.delay + options.horizons.iter().max().copied().unwrap_or(0);
    // Rows beyond the end of the panel are missing anyway.
    let reach = reach.min(panel.dates.len() + later.len() / n.max(1));
    let beyond = Beyond { before: &[], after: later };
    let prices = rows_around(comm, panel, price, (0, reach), beyond)?;
    let at = |cell: usize| prices.get(cell).copied().unwrap_or(f64::NAN);
    let mut values: Vec<Vec<f64>> = options
        .horizons
        .iter()
        .map(|h| {
            let (from, to) = (options.delay * n, (options.delay + h) * n);
            let cell = |cell: usize| at(cell + to) / at(cell + from) - 1.0;
            let number = |r: f64| if r.is_finite() { r } else { f64::NAN };
            (0..cells).into_par_iter().map(|c| number(cell(c))).collect()
        })
        .collect();
    if options.missing == Missing::AllHorizons {
        for cell in 0..cells {
            if values.iter().any(|column| column[cell].is_nan()) {
                values.iter_mut().for_each(|column| column[cell] = f64::NAN);
            }
        }
    }
    Ok(Forward { horizons: options.horizons.clone(), values })
}

/// Returns over one date, of the own dates and of `later` dates that follow them, from the ranks
/// and blocks that know the prices; what comes after the last date is missing. Collective.
pub fn daily(
    comm: &Communicator,
    panel: &Panel,
    options: &Returns,
    later: usize,
) -> Result<Vec<f64>> {
    let n = panel.assets.len();
    let filled = if options.fill_prices { Some(fill_prices(comm, panel)?) } else { None };
    let (price, known) = match &filled {
        Some(filled) => (&filled.own, &filled.later),
        None => (&panel.price, &panel.edges.price_after),
    };
    let most = panel.dates.len() + known.len() / n.max(1);
    let (reach, delay) = (later.min(most), options.delay.min(most));
    let beyond = Beyond { before: &[], after: known };
    let prices = rows_around(comm, panel, price, (0, delay + reach + 1), beyond)?;
    let from = prices.get(delay * n..).unwrap_or(&[]);
    let pairs = from.iter().zip(from.get(n..).unwrap_or(&[]));
    let number = |r: f64| if r.is_finite() { r } else { f64::NAN };
    let mut returns: Vec<f64> = pairs.map(|(from, to)| number(to / from - 1.0)).collect();
    let own = panel.own_dates().len();
    returns.resize(if own == 0 { 0 } else { (own + later) * n }, f64::NAN);
    Ok(returns)
}

/// Prices where a missing one is the last known one.
pub(crate) struct Filled {
    /// Of the own dates.
    pub(crate) own: Vec<f64>,
    /// The rows after the last date of the panel.
    pub(crate) later: Vec<f64>,
}

/// Fills prices; the last known one may be that of an earlier rank or block. Collective.
pub(crate) fn fill_prices(comm: &Communicator, panel: &Panel) -> Result<Filled> {
    let n = panel.assets.len();
    let forward = |last: &mut [f64], rows: &mut [f64]| {
        for row in rows.chunks_exact_mut(n.max(1)) {
            fill(last, row);
            row.copy_from_slice(last);
        }
    };
    let (ends, _) = comm.all_gather_vec(&last_known(&panel.price, n))?;
    let mut last = panel.edges.last_price_of(n);
    let mut filled = Filled { own: panel.price.clone(), later: panel.edges.price_after.clone() };
    for (rank, end) in ends.chunks_exact(n.max(1)).enumerate() {
        if rank == panel.rank {
            forward(&mut last.clone(), &mut filled.own);
        }
        fill(&mut last, end);
    }
    forward(&mut last, &mut filled.later);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::fixtures::Small;
    use crate::launch;
    use crate::sharding::Sharding;

    /// The definition, on the whole panel.
    fn slow(small: &Small, h: usize, options: &Returns) -> Vec<f64> {
        let price = |date: usize, asset: usize| {
            let mut date = date;
            if date >= small.dates {
                return f64::NAN;
            }
            loop {
                let p = small.price[date * small.assets + asset];
                if p.is_finite() || !options.fill_prices || date == 0 {
                    return p;
                }
                date -= 1;
            }
        };
        (0..small.dates * small.assets)
            .map(|cell| {
                let (date, asset) = (cell / small.assets + options.delay, cell % small.assets);
                price(date + h, asset) / price(date, asset) - 1.0
            })
            .collect()
    }

    #[test]
    fn returns_match_their_definition_at_any_number_of_ranks() {
        let small = Small::load();
        for (delay, fill_prices) in [(0, false), (1, false), (0, true), (2, true)] {
            let horizons = vec![1, 5, 20, 100];
            let options = Returns { horizons, delay, fill_prices, missing: Missing::Pairwise };
            let expected: Vec<Vec<f64>> =
                options.horizons.iter().map(|&h| slow(&small, h, &options)).collect();
            for ranks in [1, 2, 3, 4, 7, 41] {
                let sharding = Sharding::even(small.dates, ranks);
                let shares = launch::threads(ranks, |comm| {
                    forward(comm, &small.panel(&sharding, comm.rank()), &options)
                })
                .unwrap();
                for (h, expected) in expected.iter().enumerate() {
                    let found: Vec<f64> =
                        shares.iter().flat_map(|share| share.values[h].clone()).collect();
                    assert_eq!(found.len(), expected.len());
                    for (a, b) in found.iter().zip(expected) {
                        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
                    }
                }
            }
        }
    }

    #[test]
    fn a_panel_without_prices_is_refused_everywhere() {
        let small = Small::load();
        let result = launch::threads(2, |comm| {
            let mut panel = small.panel(&Sharding::even(small.dates, 2), comm.rank());
            panel.price.clear();
            forward(comm, &panel, &Returns::default())
        });
        assert!(result.unwrap_err().message.contains("no prices"));
    }
}
