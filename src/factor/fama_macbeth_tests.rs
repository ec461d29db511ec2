//! Regressions against statsmodels, against the normal equations, and on any number of ranks.

use super::*;
use crate::factor::fixtures::{Small, close_to, number, table};
use crate::factor::panel::Factor;
use crate::factor::returns;
use crate::launch;
use crate::sharding::Sharding;

fn run_on(
    ranks: usize,
    chosen: &[usize],
    horizons: &[usize],
    change: fn(&mut Vec<Factor>),
) -> Vec<Vec<FamaMacbeth>> {
    let small = Small::load();
    let sharding = Sharding::even(small.dates, ranks);
    launch::threads(ranks, |comm| {
        let mut panel = small.panel(&sharding, comm.rank());
        change(&mut panel.factors);
        let of = config::Returns { horizons: horizons.to_vec(), ..config::Returns::default() };
        let forward = returns::forward(comm, &panel, &of)?;
        run(comm, &mut Past::default(), &panel, chosen, &forward, &config::FamaMacbeth::default())
    })
    .unwrap()
}

#[test]
fn coefficients_match_statsmodels() {
    let found = run_on(3, &[1, 2, 3, 6], &[1, 5], |_| ()).remove(1);
    let rows = table("expected_fama_macbeth.csv");
    assert_eq!(rows.len(), 10);
    for (i, row) in rows.iter().enumerate() {
        let all = &found[i / 5];
        let one = &all.coefficients[i % 5];
        assert_eq!((all.horizon.to_string(), &one.factor), (row[0].clone(), &row[1]));
        assert_eq!(all.lags, all.horizon - 1);
        let counts = [all.dates, all.few_assets, all.collinear].map(|n| n.to_string());
        assert_eq!(counts, row[2..5]);
        assert_eq!(all.dates + all.few_assets + all.collinear, 40);
        let s = &one.summary;
        assert_eq!((s.n, one.series.len()), (all.dates, 40));
        let numbers = [all.mean_assets, all.mean_r2, s.mean, s.std, s.t, s.p, s.t_newey_west];
        for (a, cell) in numbers.iter().zip(&row[5..]) {
            assert!(close_to(*a, number(cell), 1e-11), "{row:?}: {a}");
        }
        // The normal distribution at hand is good to ten digits.
        assert!(close_to(s.p_newey_west, number(&row[12]), 1e-9), "{row:?}: {}", s.p_newey_west);
    }
}

#[test]
fn all_ranks_have_the_same_bits() {
    let one = run_on(1, &[0, 1, 4], &[1, 5, 20], |_| ()).remove(0);
    assert!(one.iter().all(|all| all.dates > 10 && all.mean_r2 > 0.0), "{one:?}");
    for ranks in [2, 3, 4, 7, 41] {
        for found in run_on(ranks, &[0, 1, 4], &[1, 5, 20], |_| ()) {
            assert_eq!(format!("{found:?}"), format!("{one:?}"), "{ranks}");
        }
    }
}

/// A planted return is found again, and residuals are orthogonal even where scales are wild and
/// factors nearly explain one another.
#[test]
fn a_planted_slope_comes_back() {
    let n = 50;
    let mixed = |i: usize, seed: usize| ((i * 7_919 + seed * 104_729 + i * i * 31) % 1_009) as f64;
    let a: Vec<f64> = (0..n).map(|i| mixed(i, 1) * 1e-6 + 5.0).collect();
    let b: Vec<f64> = (0..n).map(|i| mixed(i, 2) * 1e6 - 3.0).collect();
    let c: Vec<f64> = (0..n).map(|i| b[i] * (1.0 + 1e-3 * mixed(i, 3) / 1_009.0)).collect();
    let y: Vec<f64> = (0..n).map(|i| 0.01 + 40.0 * a[i] - 2e-9 * b[i] + 3e-9 * c[i]).collect();
    let mut found = [f64::NAN; 6];
    let mut room = Room::default();
    room.begin(y.len(), &[&a, &b, &c]);
    room.regress(&y, &[&a, &b, &c], 5, &mut found);
    let expected = [50.0, 1.0, 0.01, 40.0, -2e-9, 3e-9];
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} {expected}");
    }
    assert!((found[4] / -2e-9 - 1.0).abs() < 1e-6 && (found[5] / 3e-9 - 1.0).abs() < 1e-6);
    // Without factors the constant is the mean return.
    let mut found = [f64::NAN; 3];
    room.begin(y.len(), &[]);
    room.regress(&y, &[], 2, &mut found);
    assert!(close_to(found[2], y.iter().sum::<f64>() / 50.0, 1e-15) && found[1] == 0.0);
}

#[test]
fn factors_that_explain_one_another_are_counted() {
    let twice = |factors: &mut Vec<Factor>| {
        factors[0].values = factors[1].values.iter().map(|x| 3.0 - 2.0 * x).collect();
    };
    let found = run_on(2, &[0, 1], &[1], twice).remove(0).remove(0);
    assert_eq!(found.dates, 0);
    assert_eq!((found.collinear, found.few_assets), (39, 1));
    assert!(found.mean_r2.is_nan() && found.coefficients[1].summary.mean.is_nan());
}
