//! Decay: what a factor still knows of the returns of later dates.
//!
//! The factor of date t is correlated with the return over one date that begins lag dates later,
//! p(t + delay + lag + 1) / p(t + delay + lag) - 1, for lags from 0: neighbouring lags share no
//! returns, unlike neighbouring horizons. Assets count that have the value and the return.
//!
//! The owner of a date computes its coefficients (`sections`), with the returns that follow its
//! dates from the ranks that own them, once for all factors; every rank averages the gathered
//! tables in the order of dates. Cost: as the coefficients of a study, for each lag, but returns
//! are sorted once, not once a lag: those of lag l on one date are those of lag l - 1 on the next.

use serde::{Deserialize, Serialize};

use super::statistics::{Summary, summary};

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

/// A lag, from its coefficients by date.
pub(super) fn summarise(lag: usize, pearson: &[f64], ranks: &[f64], ddof: u32) -> Lag {
    Lag { lag, ic: summary(pearson, ddof, 0), rank_ic: summary(ranks, ddof, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::config::{self, Config};
    use crate::factor::evaluation;
    use crate::factor::fixtures::{Small, close_to};
    use crate::factor::past::Past;
    use crate::factor::preprocess::Preprocess;
    use crate::factor::returns;
    use crate::factor::study::{self, StudyOptions};
    use crate::launch;
    use crate::sharding::Sharding;

    fn run_on(ranks: usize, of: &config::Returns, lags: usize) -> Vec<Vec<Vec<Lag>>> {
        let small = Small::load();
        let sharding = Sharding::even(small.dates, ranks);
        let mut config = Config { returns: of.clone(), ..Config::default() };
        config.ic.decay_lags = lags;
        launch::threads(ranks, |comm| {
            let panel = small.panel(&sharding, comm.rank());
            let forward = returns::forward(comm, &panel, of)?;
            let found = evaluation::run(comm, &mut Past::default(), &panel, &forward, &config)?;
            Ok(found.into_iter().map(|one| one.decay).collect())
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
