//! Whole studies: against scipy and alphalens, and with the same bits at any number of ranks.

use super::super::config::{FillMethod, Missing};
use super::super::fixtures::{Small, close_to, number, table};
use super::*;
use crate::launch;
use crate::sharding::Sharding;

fn studies(small: &Small, ranks: usize, options: &StudyOptions) -> Vec<Study> {
    let sharding = Sharding::even(small.dates, ranks);
    launch::threads(ranks, |comm| run(comm, &small.panel(&sharding, comm.rank()), options)).unwrap()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn all_ranks_have_the_same_bits_at_any_number_of_ranks() {
    let small = Small::load();
    let mut options = StudyOptions::default();
    for (fill, history) in
        [(FillMethod::None, 0), (FillMethod::IndustryMean, 7), (FillMethod::Drop, 3)]
    {
        options.preprocess.fill.method = fill;
        options.universe.minimum_history = history;
        let one = studies(&small, 1, &options).remove(0);
        assert!(one.rank_ic.iter().filter(|x| !x.is_nan()).count() > 300);
        for ranks in [2, 3, 4, 7, 41] {
            let all = studies(&small, ranks, &options);
            for study in &all {
                assert_eq!(bits(&study.ic), bits(&one.ic), "{ranks} {fill:?}");
                assert_eq!(bits(&study.rank_ic), bits(&one.rank_ic), "{ranks} {fill:?}");
                for (a, b) in study.summary.iter().zip(&one.summary) {
                    assert_eq!(format!("{a:?}"), format!("{b:?}"));
                }
            }
            for k in 0..8 {
                let whole: Vec<f64> =
                    all.iter().flat_map(|s| s.processed[k].values.clone()).collect();
                assert_eq!(bits(&whole), bits(&one.processed[k].values));
            }
        }
    }
}

#[test]
fn coefficients_match_scipy() {
    let small = Small::load();
    let study = studies(&small, 3, &StudyOptions::default()).remove(1);
    for (i, (a, b)) in study.rank_ic.iter().zip(small.expected("ic")).enumerate() {
        assert!(close_to(*a, b, 1e-15), "{i}: {a} {b}");
    }
    let rows: Vec<IcRow> = study.ic_rows().collect();
    assert_eq!(rows.len(), 40 * 8 * 3);
    assert_eq!((rows[25].date, rows[25].factor, rows[25].horizon), (18_001, 0, 5));
}

#[test]
fn the_rules_of_alphalens_give_its_coefficients() {
    let small = Small::load();
    let mut options = StudyOptions::default();
    options.returns.fill_prices = true;
    options.returns.missing = Missing::AllHorizons;
    let expected = small.expected("ic_alphalens_mode");
    let study = studies(&small, 2, &options).remove(0);
    assert_eq!(study.rank_ic.len(), expected.len());
    for (i, (a, b)) in study.rank_ic.iter().zip(&expected).enumerate() {
        assert!(close_to(*a, *b, 1e-14), "{i}: {a} {b}");
    }
}

#[test]
fn what_the_panel_lacks_is_named_on_all_ranks() {
    let small = Small::load();
    let lacking = |change: fn(&mut Panel), options: &StudyOptions| {
        let sharding = Sharding::even(small.dates, 3);
        let result = launch::threads(3, |comm| {
            let mut panel = small.panel(&sharding, comm.rank());
            change(&mut panel);
            run(comm, &panel, options)
        });
        result.unwrap_err().message
    };
    let options = StudyOptions::default();
    assert!(lacking(|p| p.capitalisation.clear(), &options).contains("no capitalisation"));
    assert!(lacking(|p| p.industry.clear(), &options).contains("no industries"));
    let mut options = StudyOptions::default();
    options.universe.industries = vec!["i9".into()];
    assert!(lacking(|_| {}, &options).contains("no industry 'i9'"));
    options.universe.industries.clear();
    options.universe.exclude_flagged = true;
    assert!(lacking(|_| {}, &options).contains("no flag"));
}

#[test]
fn the_table_of_alphalens_comes_out() {
    let small = Small::load();
    let mut config = Config::preset(config::Preset::Alphalens).unwrap();
    config.returns.horizons = vec![1, 5];
    let study = studies(&small, 3, &StudyOptions::from(&config)).remove(2);
    for (k, name) in [(0, "f00"), (1, "f01")] {
        for (h, row) in table(&format!("al_{name}_ic_table.csv")).iter().enumerate() {
            let s = &study.summary[k * 2 + h].rank_ic;
            let found = [s.mean, s.std, s.ir, s.t, s.p, s.skew, s.kurtosis];
            for (found, cell) in found.iter().zip(&row[1..]) {
                assert!(close_to(*found, number(cell), 1e-11), "{row:?}: {found}");
            }
        }
    }
}

#[test]
fn horizons_influence_one_another_only_when_asked() {
    let small = Small::load();
    let first = |horizons: &[usize], missing| {
        let mut options = StudyOptions::default();
        options.returns.horizons = horizons.to_vec();
        options.returns.missing = missing;
        let study = studies(&small, 2, &options).remove(0);
        (0..8).flat_map(|k| study.rank_series(k, 0)).collect::<Vec<f64>>()
    };
    let alone = first(&[1], Missing::Pairwise);
    assert_eq!(bits(&first(&[1, 5, 20], Missing::Pairwise)), bits(&alone));
    assert_eq!(bits(&first(&[1], Missing::AllHorizons)), bits(&alone));
    let joint = first(&[1, 5, 20], Missing::AllHorizons);
    let known = |series: &[f64]| series.iter().filter(|x| !x.is_nan()).count();
    // The last dates have no return over twenty.
    assert!(known(&joint) + 8 * 18 <= known(&alone), "{} {}", known(&joint), known(&alone));
}
