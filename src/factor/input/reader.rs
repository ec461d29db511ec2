//! A panel read at once or by blocks of dates.
//!
//! | input | a block reads |
//! | --- | --- |
//! | synthetic panel | nothing: it is made |
//! | long Parquet | the row groups that touch its dates (see `blocks`) |
//! | long CSV | the lines near its dates, and packed files that have some of them |
//! | wide matrices | nothing: the whole panel is read first and stays in memory |
//!
//! Blocks of wide matrices still bound what is computed from them: returns and windows.

use std::mem;
use std::ops::Range;

use super::blocks;
use super::columns;
use super::files::Format;
use super::{csv, load, open_files, parquet, select};
use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::Result;
use crate::factor::config::Config;
use crate::factor::generator::{self, Synthetic};
use crate::factor::panel::{Factor, Panel};
use crate::sharding::Sharding;

/// A panel that is read at once or by blocks, whose dates are known.
pub struct Reader<'c> {
    kind: Kind,
    source: &'c str,
    config: &'c Config,
}

#[allow(clippy::large_enum_variant)] // there is one
enum Kind {
    Whole(Panel),
    Long(blocks::Blocks),
    Synthetic(generator::Blocks),
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({})", self.source)
    }
}

impl<'c> Reader<'c> {
    /// Opens the panel that `source` names. What cannot be read by blocks is read now, as is
    /// everything unless blocks are wanted. Collective.
    pub fn open(
        comm: &Communicator,
        source: &'c str,
        config: &'c Config,
        by_blocks: bool,
    ) -> Result<Reader<'c>> {
        let kind = match by_blocks {
            false => Kind::Whole(load(comm, source, config)?),
            true => Reader::blocks(comm, source, config)?,
        };
        Ok(Reader { kind, source, config })
    }

    fn blocks(comm: &Communicator, source: &str, config: &Config) -> Result<Kind> {
        if let Some(synthetic) = Synthetic::parse(source) {
            return Ok(Kind::Synthetic(generator::Blocks::new(comm.agree(synthetic)?)));
        }
        let (files, format, wide) = open_files(comm, source, config)?;
        if format == Format::Npy || wide {
            return Ok(Kind::Whole(load(comm, source, config)?));
        }
        if format == Format::Csv {
            let columns = comm.agree(csv::columns(&files))?;
            let roles = comm.agree(columns::roles(source, &columns, config, false))?;
            let blocks = blocks::Blocks::csv(comm, config.input.infinite, roles, files)?;
            return Ok(Kind::Long(blocks));
        }
        let opened = parquet::Share::open(files.clone(), 0, 1, config.input.infinite);
        let (share, columns) = comm.agree(opened)?;
        let roles = comm.agree(columns::roles(source, &columns, config, false))?;
        Ok(Kind::Long(blocks::Blocks::parquet(comm, share, roles, files)?))
    }

    /// The number of dates, assets and factors.
    pub fn shape(&self) -> [usize; 3] {
        match &self.kind {
            Kind::Whole(panel) => [panel.dates.len(), panel.assets.len(), panel.factors.len()],
            Kind::Long(blocks) => blocks.shape(),
            Kind::Synthetic(blocks) => {
                let size = blocks.size();
                [size.dates, size.assets, size.factors]
            }
        }
    }

    /// A range of dates as a panel, with the prices of the `after` dates that follow it in its
    /// edges. Ranges ascend, and the whole panel is given out once. Collective.
    pub fn block(
        &mut self,
        comm: &Communicator,
        dates: Range<usize>,
        after: usize,
    ) -> Result<Panel> {
        let later = dates.end..dates.end.saturating_add(after).min(self.shape()[0]);
        match &mut self.kind {
            Kind::Whole(panel) if dates == (0..panel.dates.len()) => Ok(mem::take(panel)),
            Kind::Whole(panel) => {
                let mut block = cut(comm, panel, dates)?;
                block.edges.price_after = rows(comm, panel, later)?;
                Ok(block)
            }
            Kind::Long(blocks) => {
                let mut block = blocks.block(comm, dates)?;
                block.edges.price_after = blocks.prices(comm, later)?;
                Ok(block)
            }
            Kind::Synthetic(blocks) => {
                let block = blocks.block(dates, comm.rank(), comm.ranks());
                let mut block = select(comm, block, self.source, self.config)?;
                block.edges.price_after = blocks.prices(later);
                Ok(block)
            }
        }
    }
}

/// The block of some dates of a panel in memory. Collective.
fn cut(comm: &Communicator, panel: &Panel, dates: Range<usize>) -> Result<Panel> {
    let to = Sharding::even(dates.len(), comm.ranks());
    let moved = |matrix: &[f64]| move_rows(comm, panel, &dates, &to, matrix);
    let small = |matrix: Vec<u32>| move_rows(comm, panel, &dates, &to, &matrix);
    let factors = panel.factors.iter();
    Ok(Panel {
        dates: panel.dates[dates.clone()].to_vec(),
        assets: panel.assets.clone(),
        rank: panel.rank,
        price: moved(&panel.price)?,
        capitalisation: moved(&panel.capitalisation)?,
        volume: moved(&panel.volume)?,
        industry: small(panel.industry.iter().map(|&g| u32::from(g)).collect())?
            .iter()
            .map(|&g| g as u16)
            .collect(),
        industries: panel.industries.clone(),
        flagged: small(panel.flagged.iter().map(|&flag| u32::from(flag)).collect())?
            .iter()
            .map(|&flag| flag != 0)
            .collect(),
        benchmark: panel.benchmark.get(dates.clone()).unwrap_or(&[]).to_vec(),
        factors: factors
            .map(|f| Ok(Factor { name: f.name.clone(), values: moved(&f.values)? }))
            .collect::<Result<_>>()?,
        sharding: to.clone(),
        ..Panel::default()
    })
}

/// The rows of a panel's matrix that belong to a block, to their owners in it. Collective.
fn move_rows<T: Element>(
    comm: &Communicator,
    panel: &Panel,
    dates: &Range<usize>,
    to: &Sharding,
    matrix: &[T],
) -> Result<Vec<T>> {
    let (own, n) = (panel.own_dates(), panel.assets.len());
    let mut sent = Vec::new();
    let mut counts = vec![0; comm.ranks()];
    // A rank without dates, or a panel without the column, has an empty matrix.
    if !matrix.is_empty() {
        for (rank, count) in counts.iter_mut().enumerate() {
            let wanted = to.range(rank);
            let start = (dates.start + wanted.start).max(own.start);
            let end = (dates.start + wanted.end).min(own.end);
            if start < end {
                let part = &matrix[(start - own.start) * n..(end - own.start) * n];
                *count = part.len();
                sent.extend_from_slice(part);
            }
        }
    }
    Ok(comm.all_to_all_vec(&sent, &counts)?.0)
}

/// The prices of some dates of a panel, on all ranks. Collective.
fn rows(comm: &Communicator, panel: &Panel, dates: Range<usize>) -> Result<Vec<f64>> {
    let (own, n) = (panel.own_dates(), panel.assets.len());
    let (start, end) = (dates.start.max(own.start), dates.end.min(own.end));
    let part = if start < end && !panel.price.is_empty() {
        &panel.price[(start - own.start) * n..(end - own.start) * n]
    } else {
        &[]
    };
    Ok(comm.all_gather_vec(part)?.0)
}
