//! Evaluations of the small panel, for unit tests: with its raw factors, under any configuration or
//! under the rules of alphalens.

use super::config::{Config, Demean, Preset};
use super::evaluation::{Evaluation, run};
use super::fixtures::Small;
use super::past::Past;
use super::returns;
use crate::launch;
use crate::sharding::Sharding;

/// The evaluation of factor `k` on every rank.
pub(crate) fn evaluate(ranks: usize, k: usize, config: &Config) -> Vec<Evaluation> {
    let small = Small::load();
    let sharding = Sharding::even(small.dates, ranks);
    launch::threads(ranks, |comm| {
        let mut panel = small.panel(&sharding, comm.rank());
        panel.factors = vec![panel.factors.swap_remove(k)];
        let forward = returns::forward(comm, &panel, &config.returns)?;
        Ok(run(comm, &mut Past::default(), &panel, &forward, config)?.remove(0))
    })
    .unwrap()
}

/// What alphalens makes of factor `k` with periods 1 and 5.
pub(crate) fn alphalens(ranks: usize, k: usize, demean: Demean) -> Vec<Evaluation> {
    let mut config = Config::preset(Preset::Alphalens).unwrap();
    config.returns.horizons = vec![1, 5];
    config.quantiles.demean = demean;
    evaluate(ranks, k, &config)
}
