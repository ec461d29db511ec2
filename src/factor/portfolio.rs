//! The portfolio test: the best assets of a factor in equal parts, held between rebalancings.
//!
//! Every `rebalance` dates the owner of the date picks the highest assets (equal values in the
//! order of assets) that have a price, and buys them at the price of that date. Until the next
//! rebalancing shares are held, so weights drift: the value on date t is the mean of p(t) / p(t₀),
//! where a missing price is the last known one. At a rebalancing the drifted weights w become the
//! new ones v; Σ abs (v - w) is traded, and `cost` of it is lost. Turnover is half of what is
//! traded. A rebalancing without any asset holds cash.
//!
//! Holdings with their prices are all-gathered (a few numbers a rebalancing), then each rank values
//! its own dates, and values are all-gathered: the same bits at any number of ranks.
//!
//! ```text
//! annual return = nav^(days_per_year / dates) - 1,   Sharpe = mean / std (n - 1) · √days_per_year
//! ```

use serde::{Deserialize, Serialize};

use super::config::{self, Selection};
use super::panel::Panel;
use super::past::Past;
use super::returns::fill_prices;
use crate::communicator::Communicator;
use crate::error::{Error, Result};

/// How a portfolio did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Portfolio {
    /// Net asset value by date, after costs; 1 until the first rebalancing.
    pub nav: Vec<f64>,
    /// Value traded at each date, as a share of the portfolio; 0 between rebalancings.
    pub traded: Vec<f64>,
    /// Return in a year of `days_per_year` dates.
    pub annual_return: f64,
    /// The same of the benchmark over the same dates; NaN without one.
    pub annual_benchmark: f64,
    /// Annual return above that of the benchmark.
    pub annual_excess: f64,
    /// Standard deviation of returns in a year.
    pub annual_volatility: f64,
    /// Return over risk, without a riskless rate.
    pub sharpe: f64,
    /// The largest loss from a high, as a positive share.
    pub maximum_drawdown: f64,
    /// Mean of half of what is traded at a rebalancing, without the first.
    pub turnover: f64,
    /// How many rebalancings bought something.
    pub rebalancings: usize,
}

/// The holdings from one rebalancing on.
struct Holding {
    date: usize,
    /// Assets and the prices they were bought at.
    assets: Vec<(usize, f64)>,
}

/// Tests factors (own dates × assets each). Collective.
pub fn run_all(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    factors: &[&[f64]],
    options: &config::Portfolio,
) -> Result<Vec<Portfolio>> {
    let (own, n) = (panel.own_dates(), panel.assets.len());
    comm.agree(if panel.price.len() == own.len() * n {
        Ok(())
    } else {
        Err(Error::input("the panel has no prices, which a portfolio needs; name the column"))
    })?;
    let price = fill_prices(comm, panel)?.own;
    let benchmark = past.gather(comm, panel.benchmark.get(own).unwrap_or(&[]))?;
    let test = |factor: &&[f64]| run(comm, past, panel, factor, (&price, &benchmark), options);
    factors.iter().map(test).collect()
}

/// Tests one factor, with prices without gaps and those of the benchmark. Collective.
fn run(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    factor: &[f64],
    (price, benchmark): (&[f64], &[f64]),
    options: &config::Portfolio,
) -> Result<Portfolio> {
    let (own, n) = (panel.own_dates(), panel.assets.len());
    let holdings = gather_holdings(comm, past, panel, factor, options)?;
    let (mut growth, mut traded) = (Vec::new(), Vec::new());
    for day in 0..own.len() {
        let row = &price[day * n..(day + 1) * n];
        let date = panel.edges.first + own.start + day;
        // The holding that ends or goes on at this date, and the one that begins.
        let now = holdings.iter().position(|h| h.date >= date).unwrap_or(holdings.len());
        let before = now.checked_sub(1).map(|i| &holdings[i]);
        growth.push(before.map_or(1.0, |holding| value(holding, row)));
        let begins = holdings.get(now).filter(|h| h.date == date);
        traded.push(begins.map_or(0.0, |new| trade(before, new, row)));
    }
    let growth = past.gather(comm, &growth)?;
    let traded = past.gather(comm, &traded)?;
    Ok(judge(benchmark, &holdings, &growth, traded, options))
}

/// All rebalancings so far, the same on every rank; dates count from the first block.
fn gather_holdings(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    factor: &[f64],
    options: &config::Portfolio,
) -> Result<Vec<Holding>> {
    let (own, n) = (panel.own_dates(), panel.assets.len());
    let (mut sizes, mut assets, mut prices) = (Vec::new(), Vec::new(), Vec::new());
    for day in 0..own.len() {
        let date = panel.edges.first + own.start + day;
        if !date.is_multiple_of(options.rebalance) {
            continue;
        }
        let cells = day * n..(day + 1) * n;
        let row = &panel.price[cells.clone()];
        let chosen = choose(&factor[cells], row, options);
        // All below 2^53.
        sizes.extend([date as f64, chosen.len() as f64]);
        prices.extend(chosen.iter().map(|&asset| row[asset]));
        assets.extend(chosen.iter().map(|&asset| asset as f64));
    }
    let sizes = past.gather(comm, &sizes)?;
    let assets = past.gather(comm, &assets)?;
    let prices = past.gather(comm, &prices)?;
    let mut bought = assets.into_iter().map(|asset| asset as usize).zip(prices);
    let holding = |pair: &[f64]| Holding {
        date: pair[0] as usize,
        assets: bought.by_ref().take(pair[1] as usize).collect(),
    };
    Ok(sizes.chunks_exact(2).map(holding).collect())
}

/// The assets to hold, best first.
fn choose(factor: &[f64], price: &[f64], options: &config::Portfolio) -> Vec<usize> {
    let usable = |&a: &usize| factor[a].is_finite() && price[a].is_finite() && price[a] > 0.0;
    let key = |a: usize| {
        // Falls as the value rises; equal values follow in the order of assets.
        let bits = factor[a].to_bits();
        (if bits >> 63 == 1 { bits } else { !bits & (u64::MAX >> 1) }, a as u32)
    };
    let mut assets: Vec<(u64, u32)> = (0..factor.len()).filter(usable).map(key).collect();
    let most = match options.select {
        Selection::Top => options.top,
        Selection::Quantile => assets.len() / options.quantiles,
    };
    // Only those that are held are sorted.
    if most < assets.len() {
        assets.select_nth_unstable(most);
        assets.truncate(most);
    }
    assets.sort_unstable();
    assets.into_iter().map(|(_, asset)| asset as usize).collect()
}

/// The value of a holding relative to when it was bought.
fn value(holding: &Holding, price: &[f64]) -> f64 {
    if holding.assets.is_empty() {
        return 1.0;
    }
    let sum: f64 = holding.assets.iter().map(|&(asset, paid)| price[asset] / paid).sum();
    sum / holding.assets.len() as f64
}

/// What is traded between two holdings, as a share of the portfolio.
fn trade(before: Option<&Holding>, new: &Holding, price: &[f64]) -> f64 {
    let mut change = vec![0.0; price.len()];
    if let Some(old) = before.filter(|old| !old.assets.is_empty()) {
        let whole = value(old, price) * old.assets.len() as f64;
        old.assets.iter().for_each(|&(asset, paid)| change[asset] -= price[asset] / paid / whole);
    }
    let share = 1.0 / new.assets.len().max(1) as f64;
    new.assets.iter().for_each(|&(asset, _)| change[asset] += share);
    change.iter().map(|change| change.abs()).sum()
}

/// Net asset values, and what they are like.
fn judge(
    benchmark: &[f64],
    holdings: &[Holding],
    growth: &[f64],
    traded: Vec<f64>,
    options: &config::Portfolio,
) -> Portfolio {
    let mut nav = Vec::with_capacity(growth.len());
    let mut base = 1.0;
    for (date, (growth, traded)) in growth.iter().zip(&traded).enumerate() {
        let held = base * growth;
        let now = held * (1.0 - options.cost * traded);
        nav.push(now);
        if holdings.iter().any(|h| h.date == date) {
            base = now;
        }
    }
    let bought: Vec<usize> =
        holdings.iter().filter(|h| !h.assets.is_empty()).map(|h| h.date).collect();
    let start = bought.first().copied().unwrap_or(nav.len().saturating_sub(1));
    let returns: Vec<f64> =
        nav.get(start..).unwrap_or(&[]).windows(2).map(|w| w[1] / w[0] - 1.0).collect();
    let n = returns.len() as f64;
    let annual = |whole: f64| whole.powf(options.days_per_year / n) - 1.0;
    let mean = returns.iter().sum::<f64>() / n;
    let squares: f64 = returns.iter().map(|r| (r - mean) * (r - mean)).sum();
    let deviation = (squares / (n - 1.0)).sqrt();
    let (mut high, mut drawdown) = (1.0f64, 0.0f64);
    for &value in &nav {
        high = high.max(value);
        drawdown = drawdown.max(1.0 - value / high);
    }
    let benchmark = match (benchmark.get(start), benchmark.last()) {
        (Some(first), Some(last)) => annual(last / first),
        _ => f64::NAN,
    };
    // Costs of the first purchase count: it starts from 1.
    let annual_return = annual(nav.last().copied().unwrap_or(1.0));
    let later = traded.iter().enumerate().filter(|&(t, _)| bought.iter().skip(1).any(|&b| b == t));
    let (sum, count) = later.fold((0.0, 0u32), |(sum, count), (_, x)| (sum + x / 2.0, count + 1));
    Portfolio {
        annual_return,
        annual_benchmark: benchmark,
        annual_excess: annual_return - benchmark,
        annual_volatility: deviation * options.days_per_year.sqrt(),
        sharpe: mean / deviation * options.days_per_year.sqrt(),
        maximum_drawdown: drawdown,
        turnover: sum / f64::from(count),
        rebalancings: bought.len(),
        nav,
        traded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::fixtures::Small;
    use crate::launch;
    use crate::sharding::Sharding;

    #[test]
    fn all_ranks_have_the_same_bits() {
        let small = Small::load();
        for select in [Selection::Top, Selection::Quantile] {
            let options = config::Portfolio {
                select,
                top: 7,
                rebalance: 6,
                cost: 0.002,
                ..config::Portfolio::default()
            };
            let on = |ranks: usize| {
                let sharding = Sharding::even(small.dates, ranks);
                launch::threads(ranks, |comm| {
                    let panel = small.panel(&sharding, comm.rank());
                    let factor = &panel.factors[1].values[..];
                    Ok(run_all(comm, &mut Past::default(), &panel, &[factor], &options)?.remove(0))
                })
                .unwrap()
            };
            let one = on(1).remove(0);
            assert!(one.rebalancings == 7 && one.turnover > 0.0 && one.sharpe.is_finite());
            for ranks in [2, 3, 4, 7, 41] {
                for found in on(ranks) {
                    assert_eq!(format!("{found:?}"), format!("{one:?}"), "{ranks}");
                }
            }
        }
    }

    #[test]
    fn the_highest_are_chosen_and_equal_ones_in_the_order_of_assets() {
        let value = |i: usize| match i % 7 {
            0 => f64::NAN,
            m => [0.5, -1.0, 2.0, 0.0, -0.25, 0.5][m - 1] * (1 + i / 14) as f64,
        };
        for n in [0, 1, 6, 40] {
            let factor: Vec<f64> = (0..n).map(value).collect();
            let price: Vec<f64> = (0..n).map(|i| if i % 5 == 0 { 0.0 } else { 1.0 }).collect();
            let mut all: Vec<usize> =
                (0..n).filter(|&a| factor[a].is_finite() && price[a] > 0.0).collect();
            all.sort_by(|&a, &b| factor[b].total_cmp(&factor[a]));
            for top in [1, 5, 100] {
                let options = config::Portfolio { top, ..config::Portfolio::default() };
                let found = choose(&factor, &price, &options);
                assert_eq!(found, all[..top.min(all.len())], "{n} {top}");
            }
        }
    }

    #[test]
    fn a_portfolio_by_hand() {
        // Two of three assets, held for two dates; prices chosen so that weights drift.
        let price = [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 3.0, 1.0, 1.0, 3.0, 2.0, 0.5];
        let factor = [3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0];
        let options = config::Portfolio {
            top: 2,
            rebalance: 2,
            cost: 0.1,
            days_per_year: 3.0,
            ..config::Portfolio::default()
        };
        let found = launch::threads(2, |comm| {
            let small = Small::load();
            let sharding = Sharding::even(4, 2);
            let mut panel = small.panel(&Sharding::even(40, 2), comm.rank());
            let own = sharding.range(comm.rank());
            panel.price = price[own.start * 3..own.end * 3].to_vec();
            (panel.dates, panel.assets) =
                (vec![0, 1, 2, 3], vec!["a".into(), "b".into(), "c".into()]);
            panel.benchmark = vec![1.0, 1.0, 1.0, 2.0];
            panel.sharding = sharding;
            let factor = &factor[own.start * 3..own.end * 3];
            Ok(run_all(comm, &mut Past::default(), &panel, &[factor], &options)?.remove(0))
        })
        .unwrap()
        .remove(1);
        // Bought: 1 traded. Drift on date 2: a 3/4, b 1/4; new: c 1/2, b 1/2: 3/4 + 1/4 + 1/2.
        assert_eq!(found.traded, [1.0, 0.0, 1.5, 0.0]);
        let nav = [0.9, 1.35, 1.8 * 0.85, 1.8 * 0.85 * 1.25];
        assert!(found.nav.iter().zip(nav).all(|(a, b)| (a - b).abs() < 1e-15), "{:?}", found.nav);
        assert!((found.annual_return - (nav[3] - 1.0)).abs() < 1e-14);
        assert!((found.annual_excess - (nav[3] - 2.0)).abs() < 1e-14);
        assert_eq!(found.turnover, 0.75);
        assert!((found.maximum_drawdown - 0.1).abs() < 1e-15);
        assert_eq!(found.rebalancings, 2);
    }
}
