//! The fields of a CSV record as dates, names and numbers.

use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};

use crate::error::{Error, Result};
use crate::factor::config::Infinite;
use crate::factor::dates;
use crate::factor::input::columns::Roles;
use crate::factor::input::names::{MISSING, Names};

/// Which fields of a record are wanted.
pub(super) struct Fields {
    columns: usize,
    date: usize,
    asset: usize,
    industry: Option<usize>,
    numbers: Vec<usize>,
    names: Vec<String>,
    infinite: Infinite,
    /// The dates whose rows are wanted; all if there are none.
    only: Option<RangeInclusive<i32>>,
}

/// What a block of lines holds.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) dates: Vec<i32>,
    pub(super) assets: (Names, Vec<u32>),
    pub(super) industries: (Names, Vec<u32>),
    pub(super) numbers: Vec<Vec<f64>>,
    /// The rows of the text that these are; empty if they are all.
    pub(super) kept: Vec<u32>,
}

pub(super) fn records<R: Read>(reader: R) -> csv::Reader<R> {
    ReaderBuilder::new().has_headers(false).flexible(true).from_reader(reader)
}

impl Fields {
    pub(super) fn new(
        names: &[String],
        roles: &Roles,
        path: &Path,
        infinite: Infinite,
        only: Option<RangeInclusive<i32>>,
    ) -> Result<Fields> {
        let place = |wanted: &str| {
            names.iter().position(|name| name == wanted).ok_or_else(|| {
                let what = format!("no column '{wanted}'; there are {}", names.join(", "));
                Error::line(path, 1, what)
            })
        };
        Ok(Fields {
            columns: names.len(),
            date: place(&roles.date)?,
            asset: place(&roles.asset)?,
            industry: roles.industry.as_deref().map(place).transpose()?,
            numbers: roles.numbers().map(place).collect::<Result<_>>()?,
            names: roles.numbers().map(str::to_owned).collect(),
            infinite,
            only,
        })
    }

    /// The rows of whole lines; or the row that is wrong, and how.
    pub(super) fn parse(&self, text: &[u8]) -> std::result::Result<Parsed, (usize, String)> {
        let mut parsed =
            Parsed { numbers: vec![Vec::new(); self.numbers.len()], ..Parsed::default() };
        let mut reader = records(text);
        let mut record = ByteRecord::new();
        let mut last: (Vec<u8>, i32) = Default::default();
        for row in 0.. {
            match reader.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) if parsed.kept.len() == row => {
                    // All of them: their places say nothing.
                    parsed.kept = Vec::new();
                    break;
                }
                Ok(false) => break,
                Err(e) => return Err((row, e.to_string())),
            }
            let before = parsed.dates.len();
            self.parse_row(&record, &mut parsed, &mut last).map_err(|what| (row, what))?;
            if self.only.is_some() && parsed.dates.len() > before {
                parsed.kept.push(row as u32);
            }
        }
        Ok(parsed)
    }

    fn parse_row(
        &self,
        record: &ByteRecord,
        parsed: &mut Parsed,
        last: &mut (Vec<u8>, i32),
    ) -> std::result::Result<(), String> {
        if record.len() != self.columns {
            let (found, expected) = (record.len(), self.columns);
            return Err(format!("{found} fields; expected {expected}, as in the first line"));
        }
        let shown = |field: usize| String::from_utf8_lossy(&record[field]).into_owned();
        // Dates repeat: one is parsed when it changes.
        if last.0 != record[self.date] || last.0.is_empty() {
            let date = dates::parse(&record[self.date]).ok_or_else(|| {
                format!("'{}' is no date; expected YYYY-MM-DD or yyyymmdd", shown(self.date))
            })?;
            *last = (record[self.date].to_vec(), date);
        }
        if self.only.as_ref().is_some_and(|only| !only.contains(&last.1)) {
            return Ok(());
        }
        parsed.dates.push(last.1);
        let asset = record[self.asset].trim_ascii();
        if asset.is_empty() {
            return Err("no asset".into());
        }
        let asset = parsed.assets.0.number(asset);
        parsed.assets.1.push(asset);
        if let Some(industry) = self.industry {
            let text = record[industry].trim_ascii();
            let names = &mut parsed.industries.0;
            let number = if is_missing(text) { MISSING } else { names.number(text) };
            parsed.industries.1.push(number);
        }
        for ((column, &field), name) in
            parsed.numbers.iter_mut().zip(&self.numbers).zip(&self.names)
        {
            let x = number(&record[field])
                .or_else(|| truth(&record[field]).map(|truth| f64::from(u8::from(truth))))
                .ok_or_else(|| {
                    let advice = "a column of text can be left out by factors.exclude";
                    format!("{name}: '{}' is no number; {advice}", shown(field))
                })?;
            match self.infinite {
                Infinite::Error if x.is_infinite() => {
                    let advice = "write it as missing, or set input.infinite";
                    return Err(format!("{name}: '{}' ({advice})", shown(field)));
                }
                _ => column.push(if x.is_infinite() { f64::NAN } else { x }),
            }
        }
        Ok(())
    }
}

pub(super) fn is_missing(field: &[u8]) -> bool {
    let is = |word: &str| field.eq_ignore_ascii_case(word.as_bytes());
    field.is_empty() || ["nan", "na", "n/a", "null", "none"].into_iter().any(is)
}

/// The number in a field, NaN if it is missing.
pub(super) fn number(field: &[u8]) -> Option<f64> {
    let field = field.trim_ascii();
    let first = field.first().copied().unwrap_or(b'n');
    if first.is_ascii_alphabetic() && is_missing(field) || field.is_empty() {
        return Some(f64::NAN);
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

pub(super) fn truth(field: &[u8]) -> Option<bool> {
    let is = |word: &str| field.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
    match () {
        () if ["true", "yes", "y"].into_iter().any(is) => Some(true),
        () if ["false", "no", "n"].into_iter().any(is) => Some(false),
        () => None,
    }
}
