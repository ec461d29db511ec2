//! Nothing that a date shows may depend on later dates, but for forward returns and what is made
//! of them: a panel that ends earlier gives the same bits up to its end. The test plants factors
//! that do look ahead, and must catch them.

use super::config::{CompositeWeights, Config, Technical, TechnicalKind};
use super::fixtures::Small;
use super::panel::Factor;
use super::past::Past;
use super::study::{self, StudyOptions};
use super::technical::technical_factors;
use super::{job, returns};
use crate::launch;
use crate::sharding::Sharding;

/// Dates of the shorter panel.
const CUT: usize = 30;

/// The small panel up to a date.
fn until(dates: usize) -> Small {
    let mut small = Small::load();
    let cells = dates * small.assets;
    small.dates = dates;
    small.price.truncate(cells);
    small.capitalisation.truncate(cells);
    small.factors.iter_mut().for_each(|matrix| matrix.truncate(cells));
    small.industry.truncate(cells);
    small
}

fn configuration() -> Config {
    let mut config = Config::default();
    let kinds = [
        TechnicalKind::Momentum,
        TechnicalKind::Reversal,
        TechnicalKind::Volatility,
        TechnicalKind::MaximumReturn,
        TechnicalKind::MovingAverageGap,
        TechnicalKind::MaximumDrawdown,
    ];
    let technical = |kind| Technical { kind, window: 6, skip: 0, name: None };
    config.factors.technical = kinds.map(technical).to_vec();
    config.returns.delay = 1;
    config.composites.weights = vec![
        CompositeWeights::Equal,
        CompositeWeights::Ic,
        CompositeWeights::Ir,
        CompositeWeights::MaxIr,
    ];
    config.composites.windows = vec![8];
    config.composites.factors = vec!["f01".into(), "f02".into(), "f04".into()];
    config.portfolio.top = 9;
    config.portfolio.rebalance = 4;
    config
}

/// A name and its values, date by date.
type Column = (String, Vec<f64>);

/// Everything that a date may be asked for when it is the latest one, by date; names and rows.
fn shown(small: &Small, planted: bool) -> Vec<Column> {
    let config = configuration();
    launch::threads(1, |comm| {
        let mut panel = small.panel(&Sharding::even(small.dates, 1), 0);
        let technical = technical_factors(comm, &panel, &config.factors.technical)?;
        panel.factors.extend(technical);
        if planted {
            let forward = returns::forward(comm, &panel, &config.returns)?;
            let values = forward.values[0].clone();
            panel.factors.push(Factor { name: "tomorrow".into(), values });
        }
        let mut found = study::run(comm, &panel, &StudyOptions::from(&config))?;
        panel.factors = std::mem::take(&mut found.processed);
        let made = job::composites(&config, &found, &panel)?;
        panel.factors.extend(made);
        let portfolios = job::portfolios(comm, &mut Past::default(), &config, &panel)?;
        let nav = portfolios.into_iter().map(|t| (format!("nav of {}", t.factor), t.portfolio.nav));
        let factors = panel.factors.iter().map(|f| (f.name.clone(), f.values.clone()));
        Ok(factors.chain(nav).collect())
    })
    .unwrap()
    .remove(0)
}

/// The names of what differs on some date that both panels have.
fn differences(planted: bool) -> Vec<String> {
    let (long, short) = (shown(&until(40), planted), shown(&until(CUT), planted));
    assert_eq!(long.len(), short.len());
    let bits = |values: &[f64]| -> Vec<u64> { values.iter().map(|x| x.to_bits()).collect() };
    let differs = |((name, long), (_, short)): (&Column, &Column)| {
        let known = short.iter().filter(|x| x.is_finite()).count();
        assert!(known > CUT / 2, "{name}: {known}");
        (bits(&long[..short.len()]) != bits(short)).then(|| name.clone())
    };
    long.iter().zip(&short).filter_map(differs).collect()
}

#[test]
fn later_dates_change_nothing_and_planted_look_ahead_is_seen() {
    assert_eq!(differences(false), [""; 0]);
    let found = differences(true);
    assert_eq!(found, ["tomorrow", "nav of tomorrow"]);
}
