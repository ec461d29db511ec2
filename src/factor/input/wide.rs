//! Wide matrices: one date × asset file for each field and factor, named after it.
//!
//! | files | dates | assets |
//! | --- | --- | --- |
//! | `close.npy`, `f1.npy` … | `dates.txt` beside them, one a line | `assets.txt`, one a line |
//! | `close.parquet`, `f1.parquet` … | a column of dates in each file | the other columns |
//!
//! `industry` may be an array of one dimension, one number for each asset, or a text file
//! `industry.txt` with one name a line. Every rank reads the rows of its own dates, and nothing
//! else travels: memory is the panel's share and one row, or for Parquet one more matrix. Dates
//! may come in any order; assets are put in the order of the panel.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::columns::{COLUMNS, Column, Kind, Roles, roles};
use super::files::Format;
use super::long::{asset_order, fill, industry_count};
use super::{npy, parquet};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::factor::config::{Config, Infinite};
use crate::factor::dates;
use crate::factor::panel::Panel;
use crate::sharding::Sharding;

/// The axes of all matrices, as the files have them.
struct Axes {
    /// For each date of the panel, ascending: the date and its row.
    dates: Vec<(i32, usize)>,
    /// The assets in the order of the files.
    assets: Vec<String>,
}

/// The files by the names of what they hold.
struct Fields {
    paths: HashMap<String, PathBuf>,
    folder: PathBuf,
    format: Format,
    infinite: Infinite,
    date: Option<String>,
}

/// Reads wide matrices. Collective.
pub(super) fn load(
    comm: &Communicator,
    source: &str,
    files: &[PathBuf],
    format: Format,
    config: &Config,
) -> Result<Panel> {
    let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let columns: Vec<Column> =
        files.iter().map(|path| Column { name: stem(path), kind: Kind::Number }).collect();
    let roles = comm.agree(roles(source, &columns, config, true))?;
    let folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("."));
    let fields = Fields {
        paths: files.iter().map(|path| (stem(path), path.clone())).collect(),
        folder: folder.to_path_buf(),
        format,
        infinite: config.input.infinite,
        date: config.input.date.clone(),
    };
    let axes = comm.agree(fields.axes(&files[0]))?;
    let sharding = Sharding::even(axes.dates.len(), comm.ranks());
    let own = &axes.dates[sharding.range(comm.rank())];
    let width = axes.assets.len();

    // Industries first: they decide the order of the assets.
    let (industry, industries) = industry(comm, &fields, &roles, &axes, own)?;
    let mut by_name: Vec<u32> = (0..width as u32).collect();
    by_name.sort_by_key(|&asset| &axes.assets[asset as usize]);
    let last = last_known(comm, &industry, &sharding, width)?;
    let last: Vec<u16> = by_name.iter().map(|&asset| last[asset as usize]).collect();
    let order: Vec<u32> = asset_order(&last).iter().map(|&place| by_name[place as usize]).collect();

    let panel = Panel {
        dates: axes.dates.iter().map(|date| date.0).collect(),
        assets: order.iter().map(|&asset| axes.assets[asset as usize].clone()).collect(),
        rank: comm.rank(),
        industry: industry
            .chunks(width.max(1))
            .flat_map(|row| order.iter().map(|&asset| row[asset as usize]))
            .collect(),
        industries,
        sharding,
        ..Panel::default()
    };
    let read = |name| fields.matrix(name, &axes, own, &order);
    let names: Vec<&str> = roles.numbers().collect();
    let matrices: Vec<Result<Vec<f64>>> = names.into_par_iter().map(read).collect();
    let matrices = comm.agree(matrices.into_iter().collect::<Result<Vec<_>>>())?;
    fill(comm, panel, &roles, matrices)
}

impl Fields {
    fn axes(&self, first: &Path) -> Result<Axes> {
        let (rows, assets) = match self.format {
            Format::Npy => {
                let path = self.folder.join("dates.txt");
                let mut rows = Vec::new();
                for (line, text) in lines(&path)?.iter().enumerate() {
                    rows.push(dates::parse(text.as_bytes()).ok_or_else(|| {
                        let what = format!("'{text}' is no date; expected YYYY-MM-DD");
                        Error::line(&path, line as u64 + 1, what)
                    })?);
                }
                (rows, lines(&self.folder.join("assets.txt"))?)
            }
            _ => {
                let (share, columns) = self.open(first)?;
                let date = self.date_column(first, &columns)?;
                let others = columns.into_iter().filter(|column| column.name != date);
                (share.dates(&date)?, others.map(|column| column.name).collect())
            }
        };
        let mut dates: Vec<(i32, usize)> =
            rows.into_iter().enumerate().map(|(row, date)| (date, row)).collect();
        dates.sort_unstable();
        if let Some(pair) = dates.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let places = [pair[0].1 + 1, pair[1].1 + 1];
            return Err(self.twice(first, "dates.txt", "rows", places, &dates::format(pair[0].0)));
        }
        let mut sorted: Vec<(&String, usize)> = assets.iter().zip(1..).collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let places = [pair[0].1, pair[1].1];
            return Err(self.twice(first, "assets.txt", "columns", places, pair[0].0));
        }
        if dates.is_empty() || assets.is_empty() {
            let folder = self.folder.display();
            return Err(Error::input(format!("{folder}: no dates or no assets")));
        }
        Ok(Axes { dates, assets })
    }

    /// Two places of an axis that have one name: lines of a text file, or parts of a matrix.
    fn twice(
        &self,
        matrix: &Path,
        text: &str,
        parts: &str,
        [first, second]: [usize; 2],
        name: &str,
    ) -> Error {
        let (file, parts) = match self.format {
            Format::Npy => (self.folder.join(text), "lines"),
            _ => (matrix.to_path_buf(), parts),
        };
        let file = file.display();
        Error::input(format!("{file}: {parts} {first} and {second} are both {name}"))
    }

    fn open(&self, path: &Path) -> Result<(parquet::Share, Vec<Column>)> {
        parquet::Share::open(vec![path.to_path_buf()], 0, 1, Infinite::Missing)
    }

    fn date_column(&self, path: &Path, columns: &[Column]) -> Result<String> {
        let usual = COLUMNS[0].1.iter().copied().chain(["__index_level_0__", "index"]);
        let mut names = self.date.as_deref().into_iter().chain(usual);
        let found = names.find_map(|name| columns.iter().find(|column| column.name == name));
        found.map(|column| column.name.clone()).ok_or_else(|| {
            Error::input(format!(
                "{}: no column of dates; name it in [input] as 'date'",
                path.display()
            ))
        })
    }

    /// The own rows of a matrix, with the assets in `order`.
    fn matrix(
        &self,
        name: &str,
        axes: &Axes,
        own: &[(i32, usize)],
        order: &[u32],
    ) -> Result<Vec<f64>> {
        let path = &self.paths[name];
        let mut matrix = Vec::with_capacity(own.len() * order.len());
        match self.format {
            Format::Npy => {
                let array = npy::Array::open(path)?;
                self.check_shape(path, &array, axes)?;
                for &(_, row) in own {
                    let values = array.row(if array.dimensions == 1 { 0 } else { row })?;
                    matrix.extend(order.iter().map(|&asset| values[asset as usize]));
                }
            }
            _ => {
                let (share, columns) = self.open(path)?;
                let date = self.date_column(path, &columns)?;
                let rows = share.dates(&date)?;
                let same = rows.len() == axes.dates.len()
                    && axes.dates.iter().all(|&(date, row)| rows[row] == date);
                if !same {
                    let what = "its dates are not those of the first file, in the same order";
                    return Err(Error::input(format!("{}: {what}", path.display())));
                }
                let column = |&asset: &u32| own_rows(&share, &axes.assets[asset as usize], own);
                let columns: Vec<Result<Vec<f64>>> = order.par_iter().map(column).collect();
                let columns = columns.into_iter().collect::<Result<Vec<_>>>()?;
                for row in 0..own.len() {
                    matrix.extend(columns.iter().map(|column| column[row]));
                }
            }
        }
        if let Some(cell) = matrix.iter().position(|x| x.is_infinite()) {
            if self.infinite == Infinite::Error {
                let (row, asset) = (cell / order.len(), order[cell % order.len()] as usize);
                return Err(Error::input(format!(
                    "{} row {}, asset {}: {} (write it as missing, or set input.infinite)",
                    path.display(),
                    own[row].1 + 1,
                    axes.assets[asset],
                    matrix[cell]
                )));
            }
            matrix.iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = f64::NAN);
        }
        Ok(matrix)
    }

    fn check_shape(&self, path: &Path, array: &npy::Array, axes: &Axes) -> Result<()> {
        let (dates, assets) = (axes.dates.len(), axes.assets.len());
        let [rows, columns] = array.shape;
        if columns == assets && (rows == dates || array.dimensions == 1) {
            return Ok(());
        }
        Err(Error::input(format!(
            "{}: {rows} × {columns}; expected {dates} dates × {assets} assets, as in dates.txt \
             and assets.txt",
            path.display()
        )))
    }
}

/// The own rows of one column of a wide Parquet file.
fn own_rows(share: &parquet::Share, name: &str, own: &[(i32, usize)]) -> Result<Vec<f64>> {
    let mut values = vec![f64::NAN; own.len()];
    let mut first = 0;
    for group in share.groups() {
        let range = first..first + group.rows;
        first = range.end;
        if own.iter().any(|date| range.contains(&date.1)) {
            let read = share.group_numbers(*group, name)?;
            for (value, date) in values.iter_mut().zip(own) {
                if range.contains(&date.1) {
                    *value = read[date.1 - range.start];
                }
            }
        }
    }
    Ok(values)
}

/// Numbers of industries on the own dates, in the order of the files, and their names. Collective.
fn industry(
    comm: &Communicator,
    fields: &Fields,
    roles: &Roles,
    axes: &Axes,
    own: &[(i32, usize)],
) -> Result<(Vec<u16>, Vec<String>)> {
    let width = axes.assets.len();
    let text = fields.folder.join("industry.txt");
    if let Some(name) = &roles.industry {
        let in_order: Vec<u32> = (0..width as u32).collect();
        let broken = |x: &f64| !x.is_nan() && x.fract() != 0.0;
        let whole = |matrix: Vec<f64>| match matrix.iter().position(broken) {
            Some(cell) => Err(Error::input(format!(
                "{} row {}, asset {}: {} is no number of an industry; expected whole numbers",
                fields.paths[name].display(),
                own[cell / width].1 + 1,
                axes.assets[cell % width],
                matrix[cell]
            ))),
            None => Ok(matrix),
        };
        let read = fields.matrix(name, axes, own, &in_order).and_then(whole);
        let matrix = comm.agree(read)?;
        let mut numbers = super::names::Names::default();
        let rows: Vec<Option<u32>> = matrix
            .iter()
            .map(|&x| (!x.is_nan()).then(|| numbers.number((x as i64).to_string().as_bytes())))
            .collect();
        let (names, places) = super::names::gather(comm, &numbers)?;
        comm.agree(industry_count(names.len()))?;
        let place = |row: Option<u32>| row.map_or(u16::MAX, |row| places[row as usize] as u16);
        Ok((rows.into_iter().map(place).collect(), names))
    } else if comm.agree(Ok(text.exists()))? {
        let read = lines(&text).and_then(|names| match names.len() == width {
            true => Ok(names),
            false => Err(Error::input(format!(
                "{}: {} lines; expected one for each of {width} assets",
                text.display(),
                names.len()
            ))),
        });
        let of_assets = comm.agree(read)?;
        let mut names = of_assets.clone();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !name.is_empty());
        comm.agree(industry_count(names.len()))?;
        let row: Vec<u16> = of_assets
            .iter()
            .map(|name| names.binary_search(name).map_or(u16::MAX, |place| place as u16))
            .collect();
        Ok((row.repeat(own.len()), names))
    } else {
        Ok((Vec::new(), Vec::new()))
    }
}

/// The industry of each asset on the last date on which it has one. Collective.
fn last_known(
    comm: &Communicator,
    industry: &[u16],
    sharding: &Sharding,
    width: usize,
) -> Result<Vec<u16>> {
    let mut last = vec![0u64; width];
    let start = sharding.range(comm.rank()).start as u64;
    for (date, row) in industry.chunks(width.max(1)).enumerate() {
        for (last, &industry) in last.iter_mut().zip(row).filter(|pair| *pair.1 != u16::MAX) {
            *last = (start + date as u64 + 1) << 16 | u64::from(industry);
        }
    }
    let last = comm.all_reduce_vec(&last, Op::Max)?;
    Ok(last.iter().map(|&x| if x == 0 { u16::MAX } else { x as u16 }).collect())
}

/// The lines of a text file, without blanks at their ends and without empty ones at its end.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let doing = "read (a wide panel of .npy files has its dates and assets in dates.txt and \
                     assets.txt)";
        Error::file(path, doing, &e)
    })?;
    let text = text.trim_start_matches('\u{feff}').trim_end();
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}
