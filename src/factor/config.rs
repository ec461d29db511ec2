//! The configuration of a factor run: TOML, in which every key is optional.
//!
//! A preset is a TOML text of its own; the tables of the user's file are laid over it, so a key
//! that the file sets wins. Before that the file is read alone, since only then errors know their
//! lines. `TEMPLATE` is what `factor init` writes.

mod options;

use std::ops::Range;
use std::path::Path;

use toml::{Table, Value};

use crate::error::{Error, Result};
pub use options::*;

/// All keys with their defaults and what they mean.
pub const TEMPLATE: &str = include_str!("config/template.toml");

impl Preset {
    fn text(self) -> &'static str {
        match self {
            Preset::None => "",
            Preset::Joinquant => include_str!("config/presets/joinquant.toml"),
            Preset::Alphalens => include_str!("config/presets/alphalens.toml"),
            Preset::Qlib => include_str!("config/presets/qlib.toml"),
            Preset::Barra => include_str!("config/presets/barra.toml"),
        }
    }
}

impl Config {
    /// Reads a configuration file.
    pub fn load(path: &Path) -> Result<Config> {
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, "read", &e))?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let line = bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
            Error::line(path, line as u64, "not UTF-8; save the file as UTF-8")
        })?;
        Config::parse(text, path)
    }

    /// Parses the text of a file whose name is `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Config> {
        let failed = |e: toml::de::Error| explain(&e, text, path);
        let alone: Config = toml::from_str(text).map_err(failed)?;
        let user: Table = toml::from_str(text).map_err(failed)?;
        let mut merged = preset_table(alone.preset)?;
        lay_over(&mut merged, user);
        let config: Config = merged.try_into().map_err(failed)?;
        match config.fault() {
            None => Ok(config),
            Some(fault) => {
                let what = format!("{}: {}", fault.key, fault.what);
                Err(match line_of_key(text, fault.key) {
                    Some(line) => Error::line(path, line, what),
                    None => Error::input(format!("{}: {what}", path.display())),
                })
            }
        }
    }

    /// Whether anything is made of the processed factors but their coefficients.
    pub fn uses_processed_factors(&self) -> bool {
        let made = [
            self.quantiles.enabled,
            self.fama_macbeth.enabled,
            self.screening.enabled,
            self.portfolio.enabled,
            self.ic.correlations,
            !self.composites.weights.is_empty(),
        ];
        made.contains(&true)
    }

    /// The options of a tool.
    pub fn preset(preset: Preset) -> Result<Config> {
        let mut table = preset_table(preset)?;
        let name = Value::try_from(preset).map_err(|e| Error::internal(e.to_string()))?;
        table.insert("preset".into(), name);
        table.try_into().map_err(|e: toml::de::Error| Error::internal(e.to_string()))
    }

    /// Refuses values that no file may have.
    pub fn validate(&self) -> Result<()> {
        match self.fault() {
            Some(fault) => Err(Error::input(format!("{}: {}", fault.key, fault.what))),
            None => Ok(()),
        }
    }

    /// The first value that is impossible.
    fn fault(&self) -> Option<Fault> {
        let fraction = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let w = &self.winsorise;
        let horizon = |h: Option<usize>| h.is_none_or(|h| self.returns.horizons.contains(&h));
        let checks = [
            (positive(w.n), "winsorise.n", "expected a number > 0"),
            (positive(w.scale), "winsorise.scale", "expected a number > 0, such as 1.4826"),
            (fraction(w.lower), "winsorise.lower", "expected a quantile from 0 to 1"),
            (fraction(w.upper), "winsorise.upper", "expected a quantile from 0 to 1"),
            (w.lower < w.upper, "winsorise.upper", "expected more than winsorise.lower"),
            (w.ddof <= 1, "winsorise.ddof", "expected 0 or 1"),
            (self.standardise.ddof <= 1, "standardise.ddof", "expected 0 or 1"),
            (self.ic.ddof <= 1, "ic.ddof", "expected 0 or 1"),
            (self.ic.minimum_pairs >= 2, "ic.minimum_pairs", "expected 2 or more"),
            (!self.returns.horizons.is_empty(), "returns.horizons", "expected one at least"),
            (
                self.returns.horizons.iter().all(|&h| (1..=100_000).contains(&h)),
                "returns.horizons",
                "expected numbers from 1",
            ),
            (distinct(&self.returns.horizons), "returns.horizons", "the same horizon twice"),
            (self.returns.delay <= 100_000, "returns.delay", "expected at most 100000"),
            (self.ic.decay_lags <= 10_000, "ic.decay_lags", "expected at most 10000"),
            (
                (2..=1_000).contains(&self.quantiles.count),
                "quantiles.count",
                "expected a number from 2 to 1000",
            ),
            (
                positive(self.quantiles.spread_divisor),
                "quantiles.spread_divisor",
                "expected a number > 0",
            ),
            (
                self.composites.windows.iter().all(|&n| n > 0),
                "composites.windows",
                "expected numbers from 1",
            ),
            (horizon(self.composites.horizon), "composites.horizon", NO_HORIZON),
            (horizon(self.screening.horizon), "screening.horizon", NO_HORIZON),
            (
                fraction(self.screening.maximum_correlation),
                "screening.maximum_correlation",
                "expected a number from 0 to 1",
            ),
            (self.portfolio.top >= 1, "portfolio.top", "expected 1 or more"),
            (self.portfolio.quantiles >= 2, "portfolio.quantiles", "expected 2 or more"),
            (self.portfolio.rebalance >= 1, "portfolio.rebalance", "expected 1 or more"),
            (fraction(self.portfolio.cost), "portfolio.cost", "expected a share from 0 to 1"),
            (positive(self.portfolio.days_per_year), "portfolio.days_per_year", "expected > 0"),
        ];
        let fault = checks.into_iter().find(|check| !check.0);
        let fault = fault.map(|(_, key, what)| Fault { key, what: what.to_owned() });
        fault.or_else(|| self.factors.technical.iter().find_map(technical_fault))
    }
}

const NO_HORIZON: &str = "expected one of returns.horizons";

/// An impossible value.
struct Fault {
    key: &'static str,
    what: String,
}

fn technical_fault(technical: &Technical) -> Option<Fault> {
    let least = technical.kind.least_window();
    let what = if technical.window < least || technical.window > 100_000 {
        format!("{}: a window from {least} is expected", technical.name())
    } else if technical.skip >= technical.window {
        format!("{}: skip is less than window", technical.name())
    } else if technical.skip > 0 && technical.kind != TechnicalKind::Momentum {
        format!("{}: only momentum has a skip", technical.name())
    } else {
        return None;
    };
    Some(Fault { key: "factors.technical", what })
}

fn distinct(numbers: &[usize]) -> bool {
    numbers.iter().enumerate().all(|(i, number)| !numbers[..i].contains(number))
}

fn preset_table(preset: Preset) -> Result<Table> {
    toml::from_str(preset.text()).map_err(|e| Error::internal(format!("preset: {e}")))
}

/// Sets what `over` sets.
fn lay_over(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(table)), Value::Table(value)) => lay_over(table, value),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

/// A TOML error with its file, line and key, and the key that was probably meant.
fn explain(error: &toml::de::Error, text: &str, path: &Path) -> Error {
    let message = error.message();
    let Some(Range { start, .. }) = error.span() else {
        return Error::input(format!("{}: {message}", path.display()));
    };
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count();
    let key = text.lines().nth(line).and_then(|line| key_at(before, line));
    let mut what = key.map_or(String::new(), |key| format!("{key}: "));
    match message.split_once(", expected ") {
        Some((unknown, known)) if unknown.starts_with("unknown ") => {
            let words: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            let given = unknown.split('`').nth(1).unwrap_or("");
            let kind = if unknown.starts_with("unknown field") { "key" } else { "value" };
            what += &format!("unknown {kind} '{given}'; ");
            what += &match closest(given, words.iter().copied()) {
                Some(word) => format!("did you mean '{word}'?"),
                None => format!("expected one of {}", words.join(", ")),
            };
        }
        _ => what += &message.replace('\n', " "),
    }
    Error::line(path, line as u64 + 1, what)
}

/// The word that is most like `given`, if one is like it at all.
pub fn closest<'w>(given: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let alike = |word: &str| strsim::jaro_winkler(&given.to_lowercase(), &word.to_lowercase());
    words
        .map(|word| (alike(word), word))
        .filter(|pair| pair.0 > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|pair| pair.1)
}

/// The full key of a line, given the text before it.
fn key_at(before: &str, line: &str) -> Option<String> {
    let section = header(line).or_else(|| before.lines().rev().find_map(header));
    let key = line.split_once('=').filter(|_| header(line).is_none()).map(|pair| pair.0.trim());
    match (section, key) {
        (Some(section), Some(key)) => Some(format!("{section}.{key}")),
        (section, key) => section.or(key).map(str::to_owned),
    }
}

/// The name in a line `[name]`.
fn header(line: &str) -> Option<&str> {
    let line = line.trim();
    let name = line.strip_prefix('[')?.split(']').next()?;
    line.contains(']').then(|| name.trim_start_matches('[').trim())
}

/// The line, from 1, that sets `section.name`.
fn line_of_key(text: &str, key: &str) -> Option<u64> {
    let mut before = 0;
    for (number, line) in text.lines().enumerate() {
        let found = key_at(&text[..before], line);
        if found.is_some_and(|found| found.replace(' ', "") == key) && header(line).is_none() {
            return Some(number as u64 + 1);
        }
        before += line.len() + 1;
        before = before.min(text.len());
    }
    None
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
