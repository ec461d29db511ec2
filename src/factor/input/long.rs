//! A long table as a panel: rows go to the owners of their dates in one exchange a column.
//!
//! 1. Every rank reads the keys of its rows: dates and assets (and industries). The distinct ones
//!    of all ranks are gathered, so all know all dates and assets; dates are sharded evenly.
//! 2. Rows become cells of the panel. Each rank tells the owners which cells come (4 bytes a row),
//!    and the owners look for cells that come twice.
//! 3. Each column is read, moved by an all-to-all and put into its matrix, so that beside the panel
//!    a rank holds a few columns and not a second panel: its rows of the column, what it sends if
//!    rows are not in the order of their owners, what it receives, and 12 bytes of keys a row. That
//!    is below twice the panel's share from five columns on. CSV is parsed before, all columns at
//!    once; they are freed one by one as the panel grows.
//!
//! Assets are ordered by their last known industry and then by name, so an industry is contiguous.
//! Everything follows from the rows alone, not from who read them: the panel is the same on any
//! number of ranks.

use std::path::PathBuf;

use rayon::prelude::*;

use super::columns::Roles;
use super::names::{self, MISSING, Names};
use super::{csv, parquet};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::factor::panel::{Factor, Panel};
use crate::sharding::Sharding;

/// The rows that this rank read.
#[allow(clippy::large_enum_variant)] // there is one
pub(super) enum Table {
    Parquet(parquet::Share),
    Csv(csv::Share),
}

/// The key columns of the rows of this rank.
pub(super) struct Keys {
    pub(super) dates: Vec<i32>,
    pub(super) assets: (Names, Vec<u32>),
    pub(super) industries: Option<(Names, Vec<u32>)>,
}

/// Where rows go.
struct Route {
    /// Rows by their owners, without those elsewhere; `None` if they are in that order already.
    order: Option<Vec<u32>>,
    counts: Vec<usize>,
    /// The own cells that come, in the order in which they come.
    cells: Vec<u32>,
    /// The number of own cells.
    own: usize,
}

impl Table {
    pub(super) fn keys(&mut self, roles: &Roles) -> Result<Keys> {
        match self {
            Table::Csv(share) => Ok(Keys {
                dates: std::mem::take(&mut share.dates),
                assets: std::mem::take(&mut share.assets),
                industries: roles.industry.as_ref().map(|_| std::mem::take(&mut share.industries)),
            }),
            Table::Parquet(share) => {
                let industry = roles.industry.as_deref();
                let (dates, (assets, industries)) = rayon::join(
                    || share.dates(&roles.date),
                    || {
                        rayon::join(
                            || share.texts(&roles.asset, true),
                            || industry.map(|name| share.texts(name, false)).transpose(),
                        )
                    },
                );
                Ok(Keys { dates: dates?, assets: assets?, industries: industries? })
            }
        }
    }

    /// File and row (or line) of a row.
    fn locate(&self, row: usize) -> Result<(usize, u64)> {
        match self {
            Table::Parquet(share) => Ok(share.locate(row)),
            Table::Csv(share) => share.locate(row),
        }
    }
}

/// Lays the rows of all ranks out as a panel. Collective.
pub(super) fn panel(
    comm: &Communicator,
    mut table: Table,
    roles: &Roles,
    files: &[PathBuf],
) -> Result<Panel> {
    let Keys { dates: row_dates, assets, industries: row_industries } =
        comm.agree(table.keys(roles))?;
    let dates = distinct_dates(comm, &row_dates)?;
    if dates.is_empty() {
        let first = files.first().map_or(String::new(), |file| file.display().to_string());
        return comm.agree(Err(Error::input(format!("{first}: no rows"))));
    }
    let places = |date: &i32| dates.binary_search(date).unwrap_or(0) as u32;
    let mut rows = Rows { dates: row_dates.par_iter().map(places).collect(), assets: Vec::new() };
    drop(row_dates);
    let (names, own_names) = names::gather(comm, &assets.0)?;
    let industries = match row_industries {
        Some((own, numbers)) => Some(Industries::gather(comm, &own, numbers)?),
        None => None,
    };
    let last = match &industries {
        Some(industries) => {
            industries.last_known(comm, &rows.dates, &assets.1, &own_names, names.len())?
        }
        None => vec![u16::MAX; names.len()],
    };
    let order = asset_order(&last);
    let mut place_of = vec![0u32; order.len()];
    order.iter().enumerate().for_each(|(place, &name)| place_of[name as usize] = place as u32);
    let place = |&own: &u32| place_of[own_names[own as usize] as usize];
    rows.assets = assets.1.iter().map(place).collect();
    drop(assets);
    let assets = order.iter().map(|&name| names[name as usize].clone()).collect();
    lay_out(comm, table, roles, files, Axes { dates, assets }, rows, industries)
}

/// The dates of a panel or a block of it, and its assets in their order.
pub(super) struct Axes {
    pub(super) dates: Vec<i32>,
    pub(super) assets: Vec<String>,
}

/// Brings rows to the owners of their dates. Collective.
pub(super) fn lay_out(
    comm: &Communicator,
    table: Table,
    roles: &Roles,
    files: &[PathBuf],
    Axes { dates, assets }: Axes,
    rows: Rows,
    industries: Option<Industries>,
) -> Result<Panel> {
    let sharding = Sharding::even(dates.len(), comm.ranks());
    let width = assets.len();
    let route = comm.agree(Route::new(comm.rank(), &rows, &sharding, width))?;
    let route = route.announce(comm, &rows, &sharding, width)?;
    refuse_duplicates(
        comm,
        &table,
        &rows,
        &route,
        &Labels { dates: &dates, assets: &assets, files, sharding: &sharding },
    )?;
    drop(rows);
    let mut panel = Panel { dates, assets, rank: comm.rank(), sharding, ..Panel::default() };
    if let Some(Industries { names, rows }) = industries {
        let values = rows.iter().map(|&n| if n == MISSING { f64::NAN } else { f64::from(n) });
        let matrix = route.deliver(comm, values.collect())?;
        let number = |&x: &f64| if x.is_nan() { u16::MAX } else { x as u16 };
        panel.industry = matrix.iter().map(number).collect();
        panel.industries = names;
    }
    let matrices = route.columns(comm, table, roles)?;
    fill(comm, panel, roles, matrices)
}

/// Puts the matrices of `Roles::numbers` in their places. Collective.
pub(super) fn fill(
    comm: &Communicator,
    mut panel: Panel,
    roles: &Roles,
    matrices: Vec<Vec<f64>>,
) -> Result<Panel> {
    let mut matrices = matrices.into_iter();
    let mut next = |role: &Option<String>| match role {
        Some(_) => matrices.next().unwrap_or_default(),
        None => Vec::new(),
    };
    panel.price = next(&roles.price);
    panel.capitalisation = next(&roles.capitalisation);
    panel.volume = next(&roles.volume);
    if roles.benchmark.is_some() {
        let matrix = next(&roles.benchmark);
        let own = matrix
            .chunks(panel.assets.len().max(1))
            .map(|row| row.iter().copied().find(|x| !x.is_nan()).unwrap_or(f64::NAN));
        panel.benchmark = comm.all_gather_vec(&own.collect::<Vec<f64>>())?.0;
    }
    panel.flagged = next(&roles.flag).into_iter().map(|x| !x.is_nan() && x != 0.0).collect();
    panel.factors = roles
        .factors
        .iter()
        .zip(matrices)
        .map(|(name, values)| Factor { name: name.clone(), values })
        .collect();
    Ok(panel)
}

/// Places of the rows of this rank in the panel; [`ELSEWHERE`] for a date that is not in it.
pub(super) struct Rows {
    pub(super) dates: Vec<u32>,
    pub(super) assets: Vec<u32>,
}

/// The date of a row that belongs to no date of the panel, which is a block.
pub(super) const ELSEWHERE: u32 = u32::MAX;

pub(super) fn distinct_dates(comm: &Communicator, rows: &[i32]) -> Result<Vec<i32>> {
    let mut own = Vec::new();
    for &date in rows {
        if own.last() != Some(&date) {
            own.push(date);
        }
    }
    own.sort_unstable();
    own.dedup();
    let mut all = comm.all_gather_vec(&own)?.0;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The industries of all ranks and those of the own rows.
pub(super) struct Industries {
    pub(super) names: Vec<String>,
    pub(super) rows: Vec<u32>,
}

impl Industries {
    fn gather(comm: &Communicator, own: &Names, mut rows: Vec<u32>) -> Result<Industries> {
        let (names, places) = names::gather(comm, own)?;
        comm.agree(industry_count(names.len()))?;
        rows.iter_mut().filter(|n| **n != MISSING).for_each(|n| *n = places[*n as usize]);
        Ok(Industries { names, rows })
    }

    /// The industry of each asset on the last date on which it has one.
    fn last_known(
        &self,
        comm: &Communicator,
        dates: &[u32],
        assets: &[u32],
        names: &[u32],
        count: usize,
    ) -> Result<Vec<u16>> {
        let mut last = vec![0u64; count];
        for ((&date, &asset), &industry) in dates.iter().zip(assets).zip(&self.rows) {
            if industry != MISSING {
                let last = &mut last[names[asset as usize] as usize];
                *last = (*last).max((u64::from(date) + 1) << 16 | u64::from(industry));
            }
        }
        let last = comm.all_reduce_vec(&last, Op::Max)?;
        Ok(last.iter().map(|&x| if x == 0 { u16::MAX } else { x as u16 }).collect())
    }
}

/// Refuses more industries than numbers.
pub(super) fn industry_count(count: usize) -> Result<()> {
    if count < usize::from(u16::MAX) {
        return Ok(());
    }
    Err(Error::input(format!("{count} industries; at most {} are supported", u16::MAX - 1)))
}

/// The assets, given in the order of their names, in the order of a panel: by industry (unknown
/// ones last), then by name.
pub(super) fn asset_order(last_industry: &[u16]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..last_industry.len() as u32).collect();
    order.sort_by_key(|&asset| last_industry[asset as usize]);
    order
}

impl Route {
    fn new(rank: usize, rows: &Rows, sharding: &Sharding, width: usize) -> Result<Route> {
        let own = sharding.count(rank).checked_mul(width).filter(|&n| n < u32::MAX as usize);
        let Some(own) = own.filter(|_| rows.dates.len() < u32::MAX as usize) else {
            return Err(Error::input(format!(
                "{} dates × {width} assets on one rank; at most {} cells are supported: use more \
                 ranks",
                sharding.count(rank),
                u32::MAX
            )));
        };
        let owners: Vec<u32> = owners(sharding);
        let owner = |row: usize| owners.get(rows.dates[row] as usize).map(|&rank| rank as usize);
        let n = rows.dates.len();
        let mut counts = vec![0; sharding.ranks()];
        let mut in_order = true;
        let mut last = 0;
        for row in 0..n {
            let Some(owner) = owner(row) else {
                in_order = false;
                continue;
            };
            counts[owner] += 1;
            in_order &= owner >= last;
            last = owner;
        }
        let order = (!in_order).then(|| {
            let starts = Sharding::from_counts(&counts);
            let mut next: Vec<usize> = (0..counts.len()).map(|r| starts.range(r).start).collect();
            let mut order = vec![0; starts.n()];
            for row in 0..n {
                if let Some(owner) = owner(row) {
                    order[next[owner]] = row as u32;
                    next[owner] += 1;
                }
            }
            order
        });
        Ok(Route { order, counts, cells: Vec::new(), own })
    }

    /// Tells the owners which cells will come. Collective.
    fn announce(
        mut self,
        comm: &Communicator,
        rows: &Rows,
        sharding: &Sharding,
        width: usize,
    ) -> Result<Route> {
        let starts: Vec<u32> = (0..sharding.ranks())
            .flat_map(|rank| {
                let range = sharding.range(rank);
                std::iter::repeat_n(range.start as u32, range.len())
            })
            .collect();
        let cell = |row: usize| {
            let date = rows.dates[row];
            (date - starts[date as usize]) * width as u32 + rows.assets[row]
        };
        let cells: Vec<u32> = match &self.order {
            None => (0..rows.dates.len()).into_par_iter().map(cell).collect(),
            Some(order) => order.par_iter().map(|&row| cell(row as usize)).collect(),
        };
        self.cells = match comm.ranks() {
            1 => cells,
            _ => comm.all_to_all_vec(&cells, &self.counts)?.0,
        };
        Ok(self)
    }

    /// The values of the own rows as the own matrix of all ranks' rows. Collective.
    fn deliver(&self, comm: &Communicator, values: Vec<f64>) -> Result<Vec<f64>> {
        let values = match &self.order {
            None => values,
            Some(order) => order.par_iter().map(|&row| values[row as usize]).collect(),
        };
        let values = match comm.ranks() {
            1 => values,
            _ => comm.all_to_all_vec(&values, &self.counts)?.0,
        };
        let mut matrix = vec![f64::NAN; self.own];
        for (&cell, &value) in self.cells.iter().zip(&values) {
            matrix[cell as usize] = value;
        }
        Ok(matrix)
    }

    /// The matrices of all columns of numbers. Collective.
    fn columns(&self, comm: &Communicator, table: Table, roles: &Roles) -> Result<Vec<Vec<f64>>> {
        let names: Vec<&str> = roles.numbers().collect();
        match table {
            Table::Csv(mut share) => {
                names.iter().map(|_| self.deliver(comm, share.next_numbers())).collect()
            }
            Table::Parquet(share) if comm.ranks() == 1 && self.order.is_none() => {
                // Nothing travels: each thread decodes a column straight into its matrix.
                let matrices: Vec<Result<Vec<f64>>> =
                    names.par_iter().map(|name| self.decode(&share, name)).collect();
                comm.agree(matrices.into_iter().collect())
            }
            Table::Parquet(share) => {
                let read = |name: &&str| {
                    let mut values = Vec::with_capacity(share.rows());
                    share.numbers(name, |part| values.extend_from_slice(&part))?;
                    Ok(values)
                };
                let mut matrices = Vec::with_capacity(names.len());
                // As many columns at once as threads, but few in proportion to the panel.
                let batch = rayon::current_num_threads().min(names.len().div_ceil(8)).max(1);
                for names in names.chunks(batch) {
                    let columns: Vec<Result<Vec<f64>>> = names.par_iter().map(read).collect();
                    let columns = comm.agree(columns.into_iter().collect::<Result<Vec<_>>>())?;
                    for values in columns {
                        matrices.push(self.deliver(comm, values)?);
                    }
                }
                Ok(matrices)
            }
        }
    }

    /// A column of this rank's rows, all of which are its own.
    fn decode(&self, share: &parquet::Share, name: &str) -> Result<Vec<f64>> {
        let mut matrix = vec![f64::NAN; self.own];
        let mut cells = self.cells.iter();
        share.numbers(name, |values| {
            for (value, &cell) in values.into_iter().zip(cells.by_ref()) {
                matrix[cell as usize] = value;
            }
        })?;
        Ok(matrix)
    }
}

/// The owner of each date.
fn owners(sharding: &Sharding) -> Vec<u32> {
    (0..sharding.ranks())
        .flat_map(|rank| std::iter::repeat_n(rank as u32, sharding.count(rank)))
        .collect()
}

/// What an error calls dates, assets and files.
struct Labels<'l> {
    dates: &'l [i32],
    assets: &'l [String],
    files: &'l [PathBuf],
    sharding: &'l Sharding,
}

/// Refuses two rows for one cell; names both rows, wherever they were read. Collective.
fn refuse_duplicates(
    comm: &Communicator,
    table: &Table,
    rows: &Rows,
    route: &Route,
    labels: &Labels<'_>,
) -> Result<()> {
    let width = labels.assets.len();
    let before = labels.sharding.range(comm.rank()).start * width;
    let mut seen = vec![0u64; route.own.div_ceil(64)];
    let mut first = u64::MAX;
    for &cell in &route.cells {
        let (word, bit) = (cell as usize / 64, 1 << (cell % 64));
        if seen[word] & bit != 0 {
            first = first.min((before + cell as usize) as u64);
        }
        seen[word] |= bit;
    }
    let first = comm.all_reduce_vec(&[first], Op::Min)?[0];
    if first == u64::MAX {
        return Ok(());
    }
    let (date, asset) = (first as usize / width, first as usize % width);
    let own = (0..rows.dates.len())
        .filter(|&row| (rows.dates[row] as usize, rows.assets[row] as usize) == (date, asset));
    let own: Result<Vec<(usize, u64)>> = own.map(|row| table.locate(row)).collect();
    let own = comm.agree(own)?;
    let own: Vec<u64> = own.iter().flat_map(|&(file, row)| [file as u64, row]).collect();
    let all = comm.all_gather_vec(&own)?.0;
    let (all, _) = all.as_chunks::<2>();
    let mut all = all.to_vec();
    all.sort_unstable();
    let unit = if matches!(table, Table::Csv(_)) { "line" } else { "row" };
    let name = |place: &[u64; 2]| match labels.files.get(place[0] as usize) {
        Some(file) => format!("{} {unit} {}", file.display(), place[1]),
        None => String::new(),
    };
    let (day, asset) = (crate::factor::dates::format(labels.dates[date]), &labels.assets[asset]);
    let places = all.iter().take(2).map(name).collect::<Vec<String>>().join(" and ");
    comm.agree(Err(Error::input(format!(
        "{places}: both are asset {asset} on {day}; expected one row for each date and asset"
    ))))
}
