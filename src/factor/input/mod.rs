//! A panel from files: long tables, wide matrices, or the synthetic generator.
//!
//! | input | recognised by | a rank reads |
//! | --- | --- | --- |
//! | synthetic panel | `synthetic:assets=2000,…` | makes its dates |
//! | long Parquet | `.parquet` | its row groups |
//! | long CSV | `.csv`, `.csv.gz`, `.csv.zst` | its bytes; whole files if packed |
//! | wide | a folder with `.npy`, or `layout = "wide"` | its dates |
//!
//! A source is a file, a folder or a pattern (`data/2020-*.parquet`). `long` tells how rows become
//! a panel and what memory that takes (1.6 times the panel on 2 ranks, measured at 500 dates ×
//! 500 assets × 20 factors); `reader` which inputs can be read by blocks of dates. Local trouble
//! becomes the same error on all ranks.

mod blocks;
mod columns;
mod csv;
mod files;
mod long;
mod names;
mod npy;
mod parquet;
mod reader;
mod wide;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

pub use columns::COLUMNS;
pub use reader::Reader;

use self::files::Format;
use self::long::Table;
use super::config::{Config, Layout};
use super::generator::Synthetic;
use super::panel::Panel;
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};

/// Reads or makes the panel that `source` names, with the columns that `config` asks for.
/// Technical factors are not computed here. Collective.
pub fn load(comm: &Communicator, source: &str, config: &Config) -> Result<Panel> {
    if let Some(synthetic) = Synthetic::parse(source) {
        let synthetic = comm.agree(synthetic)?;
        return select(comm, synthetic.panel(comm.rank(), comm.ranks()), source, config);
    }
    let (files, format, wide) = open_files(comm, source, config)?;
    match format {
        Format::Npy if !wide => {
            Err(Error::input(format!("{source}: .npy files are wide; set input.layout")))
        }
        Format::Csv if wide => Err(Error::input(format!(
            "{source}: wide matrices are .npy or .parquet; a long table may be .csv"
        ))),
        _ if wide => wide::load(comm, source, &files, format, config),
        _ => load_long(comm, source, files, format, config),
    }
}

/// The files that `source` names, their format, and whether they are wide. Collective.
fn open_files(
    comm: &Communicator,
    source: &str,
    config: &Config,
) -> Result<(Vec<PathBuf>, Format, bool)> {
    let listed = files::list(source).and_then(|files| {
        let format = files::format(&files)?;
        Ok((files, format))
    });
    let (files, format) = comm.agree(listed)?;
    same_everywhere(comm, source, &files)?;
    let wide = match config.input.layout {
        Layout::Wide => true,
        Layout::Long => false,
        Layout::Auto => format == Format::Npy,
    };
    Ok((files, format, wide))
}

fn load_long(
    comm: &Communicator,
    source: &str,
    files: Vec<PathBuf>,
    format: Format,
    config: &Config,
) -> Result<Panel> {
    let (share, infinite) = ((comm.rank(), comm.ranks()), config.input.infinite);
    if format == Format::Parquet {
        let opened = parquet::Share::open(files.clone(), share.0, share.1, infinite);
        let (share, columns) = comm.agree(opened)?;
        let roles = comm.agree(columns::roles(source, &columns, config, false))?;
        return long::panel(comm, Table::Parquet(share), &roles, &files);
    }
    let columns = comm.agree(csv::columns(&files))?;
    let roles = comm.agree(columns::roles(source, &columns, config, false))?;
    let share = comm.agree(csv::Share::read(files.clone(), share, &roles, infinite))?;
    long::panel(comm, Table::Csv(share), &roles, &files)
}

/// Keeps the factors of a synthetic panel that `config` asks for. Collective.
fn select(comm: &Communicator, mut panel: Panel, source: &str, config: &Config) -> Result<Panel> {
    use columns::{Column, Kind, find};
    let columns: Vec<Column> = panel
        .factors
        .iter()
        .map(|factor| Column { name: factor.name.clone(), kind: Kind::Number })
        .collect();
    let wanted = &config.factors;
    let all = wanted.columns.iter().map(|name| (name, "factors.columns"));
    let all = all.chain(wanted.exclude.iter().map(|name| (name, "factors.exclude")));
    for (name, key) in all {
        comm.agree(find(source, &columns, name, key).map(|_| ()))?;
    }
    if wanted.columns.is_empty() {
        panel.factors.retain(|factor| !wanted.exclude.contains(&factor.name));
    } else {
        let place = |name: &String| wanted.columns.iter().position(|wanted| wanted == name);
        panel.factors.retain(|factor| place(&factor.name).is_some());
        panel.factors.sort_by_key(|factor| place(&factor.name));
    }
    Ok(panel)
}

/// Refuses a list of files that is not the same on all ranks. Collective.
fn same_everywhere(comm: &Communicator, source: &str, files: &[PathBuf]) -> Result<()> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        let bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        (file, bytes).hash(&mut hasher);
    }
    let hash = hasher.finish();
    // The maximum of the complement is the complement of the minimum.
    let both = comm.all_reduce_vec(&[hash, !hash], Op::Max)?;
    comm.agree(if both[0] == !both[1] {
        Ok(())
    } else {
        Err(Error::input(format!(
            "{source}: ranks see different files; expected the same files on every node"
        )))
    })
}

#[cfg(test)]
mod tests;
