//! The small panel of `tests/data/factor` with its expected outputs, for unit tests.
//!
//! Made by numpy, scipy, statsmodels and alphalens-reloaded 0.5.1: 40 dates × 60 assets × 8
//! factors with an empty date, a constant date, a date of two assets, ties, outliers, late
//! listings and suspensions.

use std::path::PathBuf;

use super::panel::{Factor, Panel};
use super::preprocess::DayInput;
use crate::sharding::Sharding;

/// The panel as whole matrices.
pub(crate) struct Small {
    pub(crate) dates: usize,
    pub(crate) assets: usize,
    pub(crate) price: Vec<f64>,
    pub(crate) capitalisation: Vec<f64>,
    pub(crate) industry: Vec<u16>,
    pub(crate) factors: Vec<Vec<f64>>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/factor")
}

/// The values of a little-endian f64 array; its shape is known to the caller.
fn array(name: &str) -> Vec<f64> {
    let bytes = std::fs::read(folder().join(format!("{name}.npy"))).unwrap();
    assert_eq!(&bytes[..7], b"\x93NUMPY\x01");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(bytes[..header].windows(5).any(|w| w == b"'<f8'"), "{name}");
    bytes[header..].as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

/// A text file of expected outputs: the cells of each line after the first.
pub(crate) fn table(name: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    text.lines().skip(1).map(|l| l.split(',').map(str::to_owned).collect()).collect()
}

/// A cell as a number; an empty one is NaN.
pub(crate) fn number(cell: &str) -> f64 {
    if cell.is_empty() { f64::NAN } else { cell.parse().unwrap() }
}

/// Both missing, or within `tolerance` of each other, absolutely or relatively.
pub(crate) fn close_to(a: f64, b: f64, tolerance: f64) -> bool {
    a.is_nan() && b.is_nan() || (a - b).abs() <= tolerance * b.abs().max(1.0)
}

impl Small {
    pub(crate) fn load() -> Small {
        let (dates, assets) = (40, 60);
        let sectors = array("industry_f64");
        let industry = (0..dates * assets).map(|i| sectors[i % assets] as u16).collect();
        let factors = (0..8).map(|k| array(&format!("f{k:02}"))).collect();
        let (price, capitalisation) = (array("close"), array("mktcap"));
        Small { dates, assets, price, capitalisation, industry, factors }
    }

    /// An array of expected outputs.
    pub(crate) fn expected(&self, name: &str) -> Vec<f64> {
        array(&format!("expected_{name}"))
    }

    pub(crate) fn row<'a>(&self, matrix: &'a [f64], date: usize) -> &'a [f64] {
        &matrix[date * self.assets..(date + 1) * self.assets]
    }

    pub(crate) fn day(&self, date: usize) -> DayInput<'_> {
        DayInput {
            assets: self.assets,
            price: self.row(&self.price, date),
            capitalisation: self.row(&self.capitalisation, date),
            industry: &self.industry[date * self.assets..(date + 1) * self.assets],
            universe: &[],
        }
    }

    /// The share of `rank` of the panel.
    pub(crate) fn panel(&self, sharding: &Sharding, rank: usize) -> Panel {
        let own = sharding.range(rank);
        let cells = own.start * self.assets..own.end * self.assets;
        let factor = |(k, values): (usize, &Vec<f64>)| Factor {
            name: format!("f{k:02}"),
            values: values[cells.clone()].to_vec(),
        };
        Panel {
            dates: (0..self.dates as i32).map(|d| 18_000 + d).collect(),
            assets: (0..self.assets).map(|a| format!("a{a:03}")).collect(),
            sharding: sharding.clone(),
            rank,
            price: self.price[cells.clone()].to_vec(),
            capitalisation: self.capitalisation[cells.clone()].to_vec(),
            industry: self.industry[cells.clone()].to_vec(),
            industries: (0..7).map(|g| format!("i{g}")).collect(),
            factors: self.factors.iter().enumerate().map(factor).collect(),
            ..Panel::default()
        }
    }
}
