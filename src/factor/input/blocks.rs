//! A long table read by blocks of dates.
//!
//! A first pass reads the keys (dates, assets, industries) of all parts of the files, one part a
//! thread at a time, and keeps what is distinct: all dates and assets, the last industry of each
//! asset, which decides their order, and the first and last date of each part. A part is a row
//! group of Parquet, some 2 MB of lines of a plain CSV file, or a packed CSV file. Then a block
//! looks at the parts that touch its dates:
//!
//! * of Parquet it decodes the rows from the first to the last one of its dates, shared among the
//!   ranks; pages before them are skipped. Dates come from the rows, not from the statistics of the
//!   file, which may be missing.
//! * of CSV, ranks share the parts, and parse the numbers of the rows of its dates.
//!
//! So of a table that is sorted by date every number is read once; of an unsorted one, nearly all
//! of it is looked at for every block, as is a packed file for every block that it touches.
//!
//! Memory: the block, and for each thread the bytes of one column chunk, packed, or 2 MB of text.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use rayon::prelude::*;

use super::columns::Roles;
use super::long::{self, Axes, ELSEWHERE, Industries, Keys, Rows, Table};
use super::names::{self, MISSING, Names};
use super::{csv, parquet};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::factor::config::Infinite;
use crate::factor::panel::Panel;

/// A table of which all is known but the numbers.
pub(super) struct Blocks {
    /// The parts of all ranks.
    parts: Parts,
    files: Vec<PathBuf>,
    roles: Roles,
    /// The first and the last date of each part.
    spans: Vec<[i32; 2]>,
    dates: Vec<i32>,
    assets: Vec<String>,
    /// The place of each asset.
    places: HashMap<Box<[u8]>, u32>,
    industries: Vec<String>,
}

/// What a block can read by itself.
pub(super) enum Parts {
    /// Row groups.
    Parquet(parquet::Share),
    /// Pieces of files, and what infinite numbers are.
    Csv(Vec<csv::Piece>, Infinite),
}

/// What is distinct in some parts.
#[derive(Default)]
struct Survey {
    dates: Vec<i32>,
    assets: Names,
    industries: Names,
    /// For each asset the last date with an industry, and that one's number.
    last: Vec<Option<(i32, u32)>>,
    spans: Vec<[i32; 2]>,
}

impl Survey {
    fn of(keys: &Keys) -> Survey {
        let mut survey = Survey::default();
        survey.add(keys);
        survey
    }

    fn add(&mut self, keys: &Keys) {
        let all = || keys.dates.iter().copied();
        // A group without rows touches nothing.
        self.spans.push([all().min().unwrap_or(i32::MAX), all().max().unwrap_or(i32::MIN)]);
        self.dates.extend(keys.dates.chunk_by(|a, b| a == b).map(|same| same[0]));
        self.dates.sort_unstable();
        self.dates.dedup();
        let assets = self.assets.merge(&keys.assets.0);
        self.last.resize(self.assets.texts().count(), None);
        if let Some((names, rows)) = &keys.industries {
            let industries = self.industries.merge(names);
            let of_rows = keys.dates.iter().zip(&keys.assets.1).zip(rows);
            for ((&date, &asset), &industry) in of_rows.filter(|row| *row.1 != MISSING) {
                let last = &mut self.last[assets[asset as usize] as usize];
                *last = (*last).max(Some((date, industries[industry as usize])));
            }
        }
    }

    fn merge(&mut self, other: Survey) {
        self.spans.extend(other.spans);
        self.dates.extend(other.dates);
        self.dates.sort_unstable();
        self.dates.dedup();
        let assets = self.assets.merge(&other.assets);
        let industries = self.industries.merge(&other.industries);
        self.last.resize(self.assets.texts().count(), None);
        for (asset, last) in assets.into_iter().zip(other.last) {
            let last = last.map(|(date, industry)| (date, industries[industry as usize]));
            let known = &mut self.last[asset as usize];
            *known = (*known).max(last);
        }
    }
}

impl Blocks {
    /// Reads the keys of a Parquet table, given all of its row groups. Collective.
    pub(super) fn parquet(
        comm: &Communicator,
        share: parquet::Share,
        roles: Roles,
        files: Vec<PathBuf>,
    ) -> Result<Blocks> {
        let own: Vec<usize> = share.sharding(comm.ranks()).range(comm.rank()).collect();
        let mut survey = Survey::default();
        let keys =
            |&group: &usize| Table::Parquet(share.part(std::iter::once(group), 0, 1)).keys(&roles);
        let mut read = || -> Result<()> {
            for groups in own.chunks(rayon::current_num_threads()) {
                let parts: Vec<Result<Survey>> =
                    groups.par_iter().map(|group| keys(group).map(|k| Survey::of(&k))).collect();
                for part in parts {
                    survey.merge(part?);
                }
            }
            Ok(())
        };
        comm.agree(read())?;
        Blocks::known(comm, survey, Parts::Parquet(share), roles, files)
    }

    /// Reads the keys of a CSV table. Collective.
    pub(super) fn csv(
        comm: &Communicator,
        infinite: Infinite,
        roles: Roles,
        files: Vec<PathBuf>,
    ) -> Result<Blocks> {
        let (mut survey, mut pieces) = (Survey::default(), Vec::<csv::Piece>::new());
        let share = (comm.rank(), comm.ranks());
        let of = |keys| Survey::of(&keys);
        let read = csv::survey(&files, share, &roles, of, |piece, mut part: Survey| {
            if pieces.last() == Some(&piece) {
                // More of a packed file: one part, with one span.
                let more = part.spans.pop().unwrap_or([i32::MAX, i32::MIN]);
                if let Some(span) = survey.spans.last_mut() {
                    *span = [span[0].min(more[0]), span[1].max(more[1])];
                }
            } else {
                pieces.push(piece);
            }
            survey.merge(part);
        });
        comm.agree(read)?;
        let pieces = csv::gather(comm, &pieces, &files)?;
        Blocks::known(comm, survey, Parts::Csv(pieces, infinite), roles, files)
    }

    /// A table of whose parts this rank has surveyed its own. Collective.
    fn known(
        comm: &Communicator,
        survey: Survey,
        parts: Parts,
        roles: Roles,
        files: Vec<PathBuf>,
    ) -> Result<Blocks> {
        let dates = long::distinct_dates(comm, &survey.dates)?;
        if dates.is_empty() {
            let first = files.first().map_or(String::new(), |file| file.display().to_string());
            return comm.agree(Err(Error::input(format!("{first}: no rows"))));
        }
        let spans = comm.all_gather_vec(survey.spans.as_flattened())?.0;
        let (names, own_names) = names::gather(comm, &survey.assets)?;
        let (industries, own_industries) = names::gather(comm, &survey.industries)?;
        comm.agree(long::industry_count(industries.len()))?;
        let mut last = vec![0u64; names.len()];
        for (&name, known) in own_names.iter().zip(&survey.last) {
            if let Some((date, industry)) = *known {
                let industry = u64::from(own_industries[industry as usize]);
                let date = (i64::from(date) - i64::from(i32::MIN)) as u64 + 1;
                last[name as usize] = date << 16 | industry;
            }
        }
        let last = comm.all_reduce_vec(&last, Op::Max)?;
        let last: Vec<u16> =
            last.iter().map(|&x| if x == 0 { u16::MAX } else { x as u16 }).collect();
        let order = long::asset_order(&last);
        let assets: Vec<String> = order.iter().map(|&name| names[name as usize].clone()).collect();
        let place = |(place, name): (usize, &String)| (name.as_bytes().into(), place as u32);
        let places = assets.iter().enumerate().map(place).collect();
        let spans = spans.as_chunks().0.to_vec();
        Ok(Blocks { parts, files, roles, spans, dates, assets, places, industries })
    }

    /// The number of dates, assets and factors.
    pub(super) fn shape(&self) -> [usize; 3] {
        [self.dates.len(), self.assets.len(), self.roles.factors.len()]
    }

    /// All columns of a range of dates. Collective.
    pub(super) fn block(&self, comm: &Communicator, dates: Range<usize>) -> Result<Panel> {
        self.read(comm, dates, &self.roles)
    }

    /// The prices of a range of dates, the same on all ranks. Collective.
    pub(super) fn prices(&self, comm: &Communicator, dates: Range<usize>) -> Result<Vec<f64>> {
        if self.roles.price.is_none() || dates.is_empty() {
            return Ok(Vec::new());
        }
        let roles = Roles {
            price: self.roles.price.clone(),
            date: self.roles.date.clone(),
            asset: self.roles.asset.clone(),
            ..Roles::default()
        };
        let panel = self.read(comm, dates, &roles)?;
        Ok(comm.all_gather_vec(&panel.price)?.0)
    }

    fn read(&self, comm: &Communicator, dates: Range<usize>, roles: &Roles) -> Result<Panel> {
        let dates = self.dates[dates].to_vec();
        let (first, last) = (dates[0], dates[dates.len() - 1]);
        let touches = |span: &[i32; 2]| span[0] <= last && first <= span[1];
        let touched = (0..self.spans.len()).filter(|&part| touches(&self.spans[part]));
        let (rank, ranks) = (comm.rank(), comm.ranks());
        let read = || {
            let mut table = match &self.parts {
                Parts::Parquet(share) => {
                    let wanted = (&self.roles.date[..], first..=last);
                    Table::Parquet(share.between(touched, wanted, rank, ranks)?)
                }
                Parts::Csv(pieces, infinite) => {
                    let own = csv::share(touched.map(|part| &pieces[part]), rank, ranks);
                    let only = Some(first..=last);
                    let files = self.files.clone();
                    Table::Csv(csv::Share::read_pieces(files, &own, roles, *infinite, only)?)
                }
            };
            Ok((table.keys(roles)?, table))
        };
        let (keys, table) = comm.agree(read())?;
        let place = |date: &i32| dates.binary_search(date).map_or(ELSEWHERE, |date| date as u32);
        let asset = |name: &[u8]| {
            self.places.get(name).copied().ok_or_else(|| {
                let name = String::from_utf8_lossy(name);
                let file = self.files[0].display();
                Error::input(format!("{file}: asset {name} is new; the file changed meanwhile"))
            })
        };
        let assets: Result<Vec<u32>> = keys.assets.0.texts().map(asset).collect();
        let assets = comm.agree(assets)?;
        let rows = Rows {
            dates: keys.dates.par_iter().map(place).collect(),
            assets: keys.assets.1.iter().map(|&own| assets[own as usize]).collect(),
        };
        let industries = keys.industries.map(|(names, rows)| {
            let number = |name: &[u8]| {
                self.industries.binary_search_by(|known| known.as_bytes().cmp(name)).unwrap_or(0)
            };
            let places: Vec<u32> = names.texts().map(|name| number(name) as u32).collect();
            let place = |&own: &u32| places.get(own as usize).copied().unwrap_or(MISSING);
            Industries { names: self.industries.clone(), rows: rows.iter().map(place).collect() }
        });
        let axes = Axes { dates, assets: self.assets.clone() };
        long::lay_out(comm, table, roles, &self.files, axes, rows, industries)
    }
}
