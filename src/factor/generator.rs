//! A synthetic panel that is the same for any number of ranks.
//!
//! A value is a hash of (seed, stream, date, asset), turned into a normal number by Box and Muller,
//! so any rank makes any cell. Only prices depend on the past: every rank walks them from the
//! first date, 1 of (factors + 4) columns. Factor k belongs to the family k mod 8:
//!
//! | family | values |
//! | --- | --- |
//! | 0 | normal, persistent as the others are: noise between knots, 1, 10, 30 or 100 dates apart |
//! | 1, 2 | with a size tilt; with size and industry |
//! | 3 | lognormal |
//! | 4, 5, 7 | integers; 70 % zeros; two levels: ties |
//! | 6 | outliers |
//!
//! Factors know a little of the next return. 2 to 7 % of each are missing; 15 % of the assets are
//! listed late, and have no rows before; 1 % of the prices are suspended. Factor 0 has an empty
//! date, factor 1 a constant one, factor 2 one with two assets. Cost: a few hashes, a
//! logarithm and a cosine a cell.

mod blocks;

use std::f64::consts::TAU;
use std::path::Path;

use rayon::prelude::*;

use super::panel::{Factor, Panel};
use super::panel_file::{self, Codec};
use crate::error::{Error, Result};
use crate::files::FileRecord;
use crate::sharding::Sharding;
pub(super) use blocks::Blocks;

/// A synthetic panel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Synthetic {
    /// Number of assets.
    pub assets: usize,
    /// Number of dates.
    pub dates: usize,
    /// Number of factors.
    pub factors: usize,
    /// Number of industries.
    pub industries: usize,
    /// Another panel for every seed.
    pub seed: u64,
}

impl Default for Synthetic {
    fn default() -> Self {
        Synthetic { assets: 300, dates: 500, factors: 8, industries: 30, seed: 1 }
    }
}

/// What a hash is for.
#[derive(Clone, Copy)]
enum Stream {
    Industry = 1,
    Listed,
    Market,
    OfIndustry,
    Own,
    Tail,
    Level,
    Size,
    Drift,
    Suspended,
    NoCap,
    Volume,
    Flagged,
    /// Factor k takes 4 streams from here on.
    Factor = 100,
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in [0, 1).
fn uniform(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// A standard normal number.
fn normal(hash: u64) -> f64 {
    let radius = (-2.0 * (((hash >> 32) as f64 + 0.5) / 4_294_967_296.0).ln()).sqrt();
    radius * (TAU * (hash as u32 as f64 / 4_294_967_296.0)).cos()
}

/// What is known of each asset before any date.
struct Asset {
    name: String,
    industry: u16,
    /// The first date with rows.
    listed: usize,
    log_level: f64,
    log_size: f64,
    /// The place by which it is hashed.
    number: u64,
}

/// Cumulated log returns up to a date.
#[derive(Clone)]
struct Walk {
    /// The date that comes next.
    date: usize,
    sums: Vec<f64>,
    drift: Vec<f64>,
}

impl Synthetic {
    /// From `synthetic` or `synthetic:assets=2000,dates=1000,factors=20,industries=30,seed=1`;
    /// `None` if the text is no such thing.
    pub fn parse(text: &str) -> Option<Result<Synthetic>> {
        let rest = match text.split_once(':') {
            Some(("synthetic", rest)) => rest,
            None if text == "synthetic" => "",
            _ => return None,
        };
        let mut synthetic = Synthetic::default();
        for part in rest.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let pair = part.split_once('=').and_then(|(k, v)| Some((k, v.parse::<u64>().ok()?)));
            let slot = match pair.map_or("", |pair| pair.0) {
                "assets" => &mut synthetic.assets,
                "dates" => &mut synthetic.dates,
                "factors" => &mut synthetic.factors,
                "industries" => &mut synthetic.industries,
                "seed" => {
                    synthetic.seed = pair.map_or(0, |pair| pair.1);
                    continue;
                }
                _ => {
                    return Some(Err(Error::input(format!(
                        "{text}: '{part}'; expected assets=N, dates=N, factors=N, industries=N or \
                         seed=N, separated by commas"
                    ))));
                }
            };
            *slot = pair.map_or(0, |pair| pair.1 as usize);
        }
        Some(synthetic.validate().map(|()| synthetic))
    }

    /// Refuses sizes that no panel has.
    pub fn validate(&self) -> Result<()> {
        let limits = [
            ("assets", self.assets, 1, 10_000_000),
            ("dates", self.dates, 1, 100_000),
            ("factors", self.factors, 0, 100_000),
            ("industries", self.industries, 1, 60_000),
        ];
        for (name, value, least, most) in limits {
            if !(least..=most).contains(&value) {
                return Err(Error::input(format!(
                    "synthetic: {name}={value}; allowed is {least} to {most}"
                )));
            }
        }
        Ok(())
    }

    /// The panel of `rank` of `ranks`.
    pub fn panel(&self, rank: usize, ranks: usize) -> Panel {
        let sharding = Sharding::even(self.dates, ranks);
        let assets = self.assets();
        let mut walk = self.walk(&assets);
        let mut panel = self.part(&assets, &mut walk, sharding.range(rank));
        // The benchmark is known to all ranks on all dates.
        panel.benchmark = self.market_path();
        Panel { sharding, rank, ..panel }
    }

    /// Writes the panel as a long table, in row groups of whole dates.
    pub fn write(&self, path: &Path, codec: Codec) -> Result<FileRecord> {
        self.write_groups(path, codec, (GROUP_ROWS / self.assets).max(1))
    }

    /// [`Synthetic::write`] with so many dates in a row group.
    pub(super) fn write_groups(
        &self,
        path: &Path,
        codec: Codec,
        dates: usize,
    ) -> Result<FileRecord> {
        let assets = self.assets();
        let mut walk = self.walk(&assets);
        let benchmark = self.market_path();
        let parts = (0..self.dates).step_by(dates).map(|start| {
            let part = self.part(&assets, &mut walk, start..(start + dates).min(self.dates));
            Panel { benchmark: benchmark.clone(), ..part }
        });
        let listed: Vec<usize> = assets.iter().map(|asset| asset.listed).collect();
        panel_file::write(path, codec, parts, |date, asset| date >= listed[asset])
    }

    fn hash(&self, stream: u64, date: usize, asset: u64) -> u64 {
        // Three rounds: neighbouring dates, assets and streams have nothing in common.
        mix(mix(mix(self.seed ^ stream << 40) ^ date as u64) ^ asset)
    }

    /// The assets in the order of a panel: by industry, then by name.
    fn assets(&self) -> Vec<Asset> {
        let digits = self.assets.saturating_sub(1).to_string().len();
        let mut assets: Vec<Asset> = (0..self.assets)
            .map(|number| {
                let draw = |stream: Stream| self.hash(stream as u64, 0, number as u64);
                let g = self.industries as f64;
                let drawn = (uniform(draw(Stream::Industry)).powf(1.5) * g) as usize;
                let late = number > 0 && uniform(draw(Stream::Listed)) < 0.15;
                let start = 1 + (mix(draw(Stream::Listed)) as usize) % (self.dates / 2).max(1);
                Asset {
                    name: format!("A{number:0digits$}"),
                    // Every industry has an asset, if there are enough.
                    industry: if number < self.industries { number } else { drawn } as u16,
                    listed: if late { start.min(self.dates - 1) } else { 0 },
                    log_level: 10f64.ln() + 0.5 * normal(draw(Stream::Level)),
                    log_size: 22.0 + 1.2 * normal(draw(Stream::Size)),
                    number: number as u64,
                }
            })
            .collect();
        assets.sort_by_key(|asset| asset.industry);
        assets
    }

    fn walk(&self, assets: &[Asset]) -> Walk {
        let zeros = vec![0.0; assets.len()];
        Walk { date: 0, sums: zeros.clone(), drift: zeros }
    }

    fn market(&self, date: usize) -> f64 {
        0.0003 + 0.010 * normal(self.hash(Stream::Market as u64, date, 0))
    }

    /// The price of the benchmark on all dates.
    fn market_path(&self) -> Vec<f64> {
        let mut sum = 0.0;
        (0..self.dates)
            .map(|date| {
                sum += self.market(date);
                1000.0 * f64::exp(sum)
            })
            .collect()
    }

    /// The log returns of a date.
    fn returns(&self, assets: &[Asset], date: usize) -> Vec<f64> {
        let market = self.market(date);
        let industries: Vec<f64> = (0..self.industries as u64)
            .map(|g| 0.006 * normal(self.hash(Stream::OfIndustry as u64, date, g)))
            .collect();
        let own = |asset: &Asset| {
            let draw = |stream: Stream| normal(self.hash(stream as u64, date, asset.number));
            let own = 0.014 * draw(Stream::Own) * (0.25 * draw(Stream::Tail)).exp();
            (market + industries[usize::from(asset.industry)] + own).clamp(-0.3, 0.3)
        };
        assets.par_iter().map(own).collect()
    }

    /// The dates of `range` as a panel of one rank that knows all dates.
    fn part(&self, assets: &[Asset], walk: &mut Walk, range: std::ops::Range<usize>) -> Panel {
        let width = assets.len();
        let cells = range.len() * width;
        let (mut price, mut capitalisation) = (Vec::new(), Vec::new());
        let mut log_sizes = Vec::with_capacity(cells);
        let mut next_returns = Vec::with_capacity(cells);
        price.reserve_exact(cells);
        capitalisation.reserve_exact(cells);
        while walk.date < range.end {
            let date = walk.date;
            let returns = self.returns(assets, date);
            for (a, asset) in assets.iter().enumerate() {
                walk.sums[a] += returns[a];
                let draw = self.hash(Stream::Drift as u64, date, asset.number);
                walk.drift[a] += 0.004 * (uniform(draw) - 0.5);
            }
            walk.date += 1;
            if date < range.start {
                continue;
            }
            for (a, asset) in assets.iter().enumerate() {
                let draw = |stream: Stream| uniform(self.hash(stream as u64, date, asset.number));
                let log_size = asset.log_size + walk.sums[a] + walk.drift[a];
                let listed = date >= asset.listed;
                let quoted = listed && draw(Stream::Suspended) >= 0.01;
                let sized = listed && draw(Stream::NoCap) >= 0.002;
                let p = (asset.log_level + walk.sums[a]).exp();
                price.push(if quoted { p } else { f64::NAN });
                capitalisation.push(if sized { log_size.exp() } else { f64::NAN });
                log_sizes.push((log_size - 22.0) / 1.2);
            }
            next_returns.extend(self.returns(assets, date + 1));
        }
        let per_cell = |value: &(dyn Fn(usize, &Asset) -> f64 + Sync)| -> Vec<f64> {
            let cell = |i: usize| value(range.start + i / width, &assets[i % width]);
            (0..cells).into_par_iter().map(cell).collect()
        };
        let volume = per_cell(&|date, asset| {
            let draw = self.hash(Stream::Volume as u64, date, asset.number);
            if date < asset.listed { f64::NAN } else { (14.0 + 0.6 * normal(draw)).exp() }
        });
        let flagged = per_cell(&|date, asset| {
            // For spells of 20 dates.
            let draw = uniform(self.hash(Stream::Flagged as u64, date / 20, asset.number));
            f64::from(u8::from(date >= asset.listed && draw < 0.02))
        });
        let cell_industry = |i: usize| {
            let asset = &assets[i % width];
            if range.start + i / width < asset.listed { u16::MAX } else { asset.industry }
        };
        let digits = (self.industries - 1).to_string().len();
        let factors = (0..self.factors)
            .map(|k| {
                let values = (0..cells).into_par_iter().map(|i| {
                    let (date, asset) = (range.start + i / width, &assets[i % width]);
                    self.factor(k, date, asset, log_sizes[i], next_returns[i])
                });
                Factor { name: format!("f{k:02}"), values: values.collect() }
            })
            .collect();
        let in_use = assets.last().map_or(0, |asset| usize::from(asset.industry) + 1);
        Panel {
            dates: (0..self.dates).map(business_day).collect(),
            assets: assets.iter().map(|asset| asset.name.clone()).collect(),
            sharding: Sharding::from_counts(&[range.start, range.len(), self.dates - range.end]),
            rank: 1,
            price,
            capitalisation,
            volume,
            industry: (0..cells).map(cell_industry).collect(),
            industries: (0..in_use).map(|g| format!("I{g:0digits$}")).collect(),
            flagged: flagged.into_iter().map(|x| x > 0.0).collect(),
            factors,
            ..Panel::default()
        }
    }

    /// A value of factor `k`; the families are those of the table above.
    fn factor(&self, k: usize, date: usize, asset: &Asset, size: f64, next_return: f64) -> f64 {
        let stream = Stream::Factor as u64 + 4 * k as u64;
        let draw = |of: u64, date: usize| self.hash(stream + of, date, asset.number);
        let gap = uniform(draw(0, date)) < 0.02 + 0.01 * (k % 6) as f64;
        let special = match (k, date) {
            (0, 3) => Some(f64::NAN),
            (1, 5) => Some(1.25),
            (2, 7) if asset.number > 1 => Some(f64::NAN),
            _ => None,
        };
        if gap || date < asset.listed {
            return f64::NAN;
        }
        if let Some(value) = special {
            return value;
        }
        let apart = [1, 10, 30, 100][k % 4];
        let (knot, after) = (date / apart, (date % apart) as f64 / apart as f64);
        // Two weights whose squares add up to 1 keep the variance at 1.
        let (early, late) = ((1.0 - after).sqrt(), after.sqrt());
        let slow = normal(draw(1, knot)) * early
            + if apart > 1 { normal(draw(1, knot + 1)) * late } else { 0.0 };
        let base = if apart > 1 { 0.95 * slow + 0.31 * normal(draw(2, date)) } else { slow };
        let x = base + 0.03 * ((k % 5) as f64 - 1.0) * next_return / 0.02;
        match k % 8 {
            1 => x + 0.8 * size,
            2 => x + 0.7 * size + f64::from(asset.industry % 7) - 3.0,
            3 => (1.2 * x).exp(),
            4 => (x * 1.5).round() + 0.0,
            5 if x < 0.5 => 0.0,
            5 => (x * 10.0).round() / 10.0,
            6 if uniform(draw(3, date)) < 0.004 => 31.0 * x,
            7 => x.signum(),
            _ => x,
        }
    }
}

/// Rows of a row group.
const GROUP_ROWS: usize = 1 << 17;

/// Monday to Friday from 2015-01-05 on.
fn business_day(date: usize) -> i32 {
    16_440 + (date / 5 * 7 + date % 5) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrices of all ranks on end.
    fn joined(synthetic: Synthetic, ranks: usize) -> Vec<Vec<u64>> {
        let mut all: Vec<Vec<u64>> = vec![Vec::new(); synthetic.factors + 5];
        for rank in 0..ranks {
            let panel = synthetic.panel(rank, ranks);
            let given = [&panel.price, &panel.capitalisation, &panel.volume];
            let factors = panel.factors.iter().map(|factor| &factor.values);
            for (all, matrix) in all.iter_mut().zip(given.into_iter().chain(factors)) {
                all.extend(matrix.iter().map(|x| x.to_bits()));
            }
            let n = all.len();
            all[n - 2].extend(panel.industry.iter().map(|&g| u64::from(g)));
            all[n - 1].extend(panel.flagged.iter().map(|&flag| u64::from(flag)));
        }
        all
    }

    #[test]
    fn the_panel_is_the_same_on_any_number_of_ranks() {
        for dates in [1, 2, 9] {
            let synthetic =
                Synthetic { assets: 17, dates, factors: 9, industries: 5, ..Synthetic::default() };
            let one = joined(synthetic, 1);
            assert!(one.iter().all(|matrix| matrix.len() == dates * 17));
            for ranks in [2, 3, 4, 7] {
                assert_eq!(one, joined(synthetic, ranks), "{ranks} ranks");
            }
            assert_ne!(one, joined(Synthetic { seed: 2, ..synthetic }, 1));
        }
    }

    #[test]
    fn families_look_as_they_should() {
        let synthetic = Synthetic { assets: 400, dates: 60, ..Synthetic::default() };
        let panel = synthetic.panel(0, 1);
        let known = |k: usize| -> Vec<f64> {
            panel.factors[k].values.iter().copied().filter(|x| !x.is_nan()).collect()
        };
        let share = |xs: &[f64], test: &dyn Fn(f64) -> bool| {
            xs.iter().filter(|&&x| test(x)).count() as f64 / xs.len() as f64
        };
        let cells = panel.price.len() as f64;
        for k in 0..8 {
            assert!((0.8..0.99).contains(&(known(k).len() as f64 / cells)), "gaps of {k}");
        }
        let x = known(0);
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!(share(&known(3), &|x| x > 0.0) == 1.0);
        assert!(share(&known(4), &|x| x.fract() == 0.0) == 1.0);
        assert!((0.6..0.8).contains(&share(&known(5), &|x| x == 0.0)));
        assert!((0.0005..0.004).contains(&share(&known(6), &|x| x.abs() > 8.0)));
        assert!(share(&known(7), &|x| x.abs() == 1.0) == 1.0);
        let row = |k: usize, date: usize| &panel.factors[k].values[date * 400..(date + 1) * 400];
        assert!(row(0, 3).iter().all(|x| x.is_nan()));
        assert!(row(1, 5).iter().all(|&x| x.is_nan() || x == 1.25));
        assert!(row(2, 7).iter().filter(|x| !x.is_nan()).count() <= 2);
        assert!(panel.assets.len() == 400 && panel.benchmark.len() == 60);
        let gone = panel.price.iter().filter(|x| x.is_nan()).count() as f64 / cells;
        assert!((0.02..0.12).contains(&gone), "{gone}");
    }

    #[test]
    fn texts_become_sizes_or_errors() {
        let parsed = Synthetic::parse("synthetic:assets=20,dates=10,factors=2,seed=9");
        let parsed = parsed.unwrap().unwrap();
        assert_eq!((parsed.assets, parsed.dates, parsed.factors, parsed.seed), (20, 10, 2, 9));
        assert_eq!(Synthetic::parse("synthetic").unwrap().unwrap(), Synthetic::default());
        assert_eq!(Synthetic::parse("panel.parquet"), None);
        for text in ["synthetic:asset=3", "synthetic:assets", "synthetic:dates=0", "synthetic:3"] {
            assert!(Synthetic::parse(text).unwrap().is_err(), "{text}");
        }
    }
}
