//! Each preset against the formulas of its tool, which `bench/peers/factor_presets.py` writes out
//! with numpy and scipy: processed values, coefficients, and returns of the outer groups.

use super::config::{Config, Preset};
use super::evaluation;
use super::fixtures::{Small, close_to, number, table};
use super::past::Past;
use super::study::{self, Study, StudyOptions};
use crate::launch;
use crate::sharding::Sharding;

const PRESETS: [(&str, Preset); 4] = [
    ("joinquant", Preset::Joinquant),
    ("alphalens", Preset::Alphalens),
    ("qlib", Preset::Qlib),
    ("barra", Preset::Barra),
];
/// The factors of the small panel that the expected values are for.
const FACTORS: [usize; 5] = [0, 1, 3, 4, 5];

/// The study of a preset, its processed values (factors × dates × assets), and the evaluations.
fn run(preset: Preset) -> (Study, Vec<Vec<f64>>, Vec<evaluation::Evaluation>) {
    let small = Small::load();
    let config = Config::preset(preset).unwrap();
    let sharding = Sharding::even(small.dates, 2);
    let mut shares = launch::threads(2, |comm| {
        let mut panel = small.panel(&sharding, comm.rank());
        let mut study = study::run(comm, &panel, &StudyOptions::from(&config))?;
        panel.factors = std::mem::take(&mut study.processed);
        let found = evaluation::run(comm, &mut Past::default(), &panel, &study.forward, &config)?;
        Ok((study, panel.factors, found))
    })
    .unwrap();
    let (_, second, _) = shares.remove(1);
    let (study, first, evaluations) = shares.remove(0);
    let whole = first.into_iter().zip(second).map(|(a, b)| [a.values, b.values].concat());
    (study, whole.collect(), evaluations)
}

#[test]
fn processed_values_are_those_of_the_tools() {
    let small = Small::load();
    for (name, preset) in PRESETS {
        let (_, found, _) = run(preset);
        let expected = match preset {
            Preset::Alphalens => Vec::new(),
            _ => small.expected(&format!("preset_{name}")),
        };
        let mut compared = 0;
        for t in 0..40 {
            for (i, k) in FACTORS.into_iter().enumerate() {
                for asset in 0..60 {
                    let cell = t * 60 + asset;
                    let wanted = match preset {
                        Preset::Alphalens => small.factors[k][cell],
                        _ => expected[(t * 5 + i) * 60 + asset],
                    };
                    let value = found[k][cell];
                    // A constant cross-section is none.
                    if preset == Preset::Alphalens && k == 1 && t == 5 {
                        assert!(value.is_nan());
                        continue;
                    }
                    assert!(close_to(value, wanted, 1e-12), "{name} f{k:02} {t}: {value} {wanted}");
                    compared += usize::from(wanted.is_finite());
                }
            }
        }
        assert!(compared > 7_500, "{name}: {compared}");
    }
}

#[test]
fn coefficients_and_groups_are_those_of_the_tools() {
    let ic = table("expected_preset_ic.csv");
    let groups = table("expected_preset_groups.csv");
    for (name, preset) in PRESETS {
        let (study, _, evaluations) = run(preset);
        let horizons = study.horizons.len();
        let at = |row: &[String]| -> (usize, usize, usize) {
            let number = |i: usize| row[i].parse().unwrap();
            (number(1), number(2), number(3))
        };
        let mut compared = (0, 0);
        for row in ic.iter().filter(|row| row[0] == name) {
            let (t, k, h) = at(row);
            let cell = (t * 8 + k) * horizons + h;
            for (found, wanted) in [(study.ic[cell], &row[4]), (study.rank_ic[cell], &row[5])] {
                assert!(close_to(found, number(wanted), 1e-12), "{row:?}: {found}");
                compared.0 += usize::from(!wanted.is_empty());
            }
        }
        for row in groups.iter().filter(|row| row[0] == name) {
            let (t, k, h) = at(row);
            let found = &evaluations[k].quantiles;
            let sides = (found.by_date[h][t * 5], found.by_date[h][t * 5 + 4]);
            let wanted = (number(&row[4]), number(&row[5]));
            assert!(close_to(sides.0, wanted.0, 1e-12), "{row:?}: {sides:?}");
            assert!(close_to(sides.1, wanted.1, 1e-12), "{row:?}: {sides:?}");
            let half = if preset == Preset::Qlib { 2.0 } else { 1.0 };
            let spread = (wanted.1 - wanted.0) / half;
            assert!(close_to(found.spread[h][t], spread, 1e-12), "{row:?}");
            compared.1 += usize::from(spread.is_finite());
        }
        let least = if preset == Preset::Barra { 0 } else { 80 };
        assert!(compared.0 > 250 && compared.1 >= least, "{name}: {compared:?}");
    }
}
