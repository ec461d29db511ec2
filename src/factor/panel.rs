//! A panel in memory: dates × assets, sharded by dates.
//!
//! Every column is one matrix of f64, date after date, with NaN where nothing is known. All ranks
//! know all dates and all assets; a rank holds the rows of its own dates. Assets may be kept in the
//! order of their industries, so that sums over an industry read contiguous memory.
//!
//! `rows_around` brings rows of earlier or later dates, which forward returns and rolling windows
//! need, from the ranks that own them: (before + after) × assets × 8 bytes a rank.
//!
//! A panel may be a block of dates of a longer one; `edges` then holds what lies beyond its ends.

use super::edges::Edges;
use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::sharding::Sharding;

/// The rows of one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// All dates of the panel, ascending, in days since 1970-01-01.
    pub dates: Vec<i32>,
    /// All assets of the panel, in the order of the columns of every matrix.
    pub assets: Vec<String>,
    /// Which rank owns which dates.
    pub sharding: Sharding,
    /// This rank.
    pub rank: usize,
    /// Price of each own date and asset: `own dates × assets`, NaN where missing. Empty if the
    /// panel has none.
    pub price: Vec<f64>,
    /// Market capitalisation, as `price`; empty if the panel has none.
    pub capitalisation: Vec<f64>,
    /// Traded volume (or turnover), as `price`; empty if the panel has none.
    pub volume: Vec<f64>,
    /// Number of the industry of each own date and asset in `industries`, or `u16::MAX` where
    /// unknown; empty if the panel has none.
    pub industry: Vec<u16>,
    /// Names of the industries, ascending.
    pub industries: Vec<String>,
    /// Whether the asset is flagged (special treatment) on the date; empty if the panel has none.
    pub flagged: Vec<bool>,
    /// Price of the benchmark on all dates, NaN where missing, the same on every rank; empty if
    /// the panel has none.
    pub benchmark: Vec<f64>,
    /// The factors: a name and a matrix as `price`.
    pub factors: Vec<Factor>,
    /// What lies before and after, if this is a block of a longer panel.
    pub edges: Edges,
}

/// One factor of a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// Its column name.
    pub name: String,
    /// `own dates × assets`, NaN where missing.
    pub values: Vec<f64>,
}

impl Default for Panel {
    /// Nothing, on one rank.
    fn default() -> Panel {
        Panel {
            dates: Vec::new(),
            assets: Vec::new(),
            sharding: Sharding::even(0, 1),
            rank: 0,
            price: Vec::new(),
            capitalisation: Vec::new(),
            volume: Vec::new(),
            industry: Vec::new(),
            industries: Vec::new(),
            flagged: Vec::new(),
            benchmark: Vec::new(),
            factors: Vec::new(),
            edges: Edges::default(),
        }
    }
}

impl Panel {
    /// The own dates, as a range of `dates`.
    pub fn own_dates(&self) -> std::ops::Range<usize> {
        self.sharding.range(self.rank)
    }
}

/// Rows directly before and after those that ranks own, the same on every rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beyond<'e> {
    /// The last rows before the first date.
    pub before: &'e [f64],
    /// The first rows after the last date.
    pub after: &'e [f64],
}

/// The rows of `matrix` (own dates × assets) with the `before` rows that precede the own dates and
/// the `after` rows that follow them, from the ranks that own them, which may be several: row `i`
/// of the result is date `own_dates().start + i - before`. Rows beyond the ends of the panel are
/// those of `beyond`, and NaN where it has none. A rank without dates gets nothing. `before` and
/// `after` are the same on all ranks. Collective.
pub fn rows_around(
    comm: &Communicator,
    panel: &Panel,
    matrix: &[f64],
    (before, after): (usize, usize),
    beyond: Beyond<'_>,
) -> Result<Vec<f64>> {
    rows_around_of(comm, &panel.sharding, panel.assets.len(), matrix, (before, after), beyond)
}

/// [`rows_around`] for rows of `width` that are owned by `sharding`. Collective.
pub fn rows_around_of(
    comm: &Communicator,
    sharding: &Sharding,
    width: usize,
    matrix: &[f64],
    (before, after): (usize, usize),
    beyond: Beyond<'_>,
) -> Result<Vec<f64>> {
    let own = sharding.range(comm.rank());
    let rows = own.len();
    let (early, late) = neighbours(comm, sharding, width, matrix, (before, after))?;
    if rows == 0 {
        return Ok(Vec::new());
    }
    let mut around = Vec::with_capacity((before + rows + after) * width);
    let cells = before * width - early.len();
    let known = &beyond.before[beyond.before.len().saturating_sub(cells)..];
    around.resize(cells - known.len(), f64::NAN);
    around.extend_from_slice(known);
    around.extend_from_slice(&early);
    around.extend_from_slice(matrix);
    around.extend_from_slice(&late);
    let cells = after * width - late.len();
    around.extend_from_slice(&beyond.after[..cells.min(beyond.after.len())]);
    around.resize((before + rows + after) * width, f64::NAN);
    Ok(around)
}

/// The `before` rows that precede the own ones, without those: rows before the first one are the
/// last ones of `beyond`, and zeros where it has none. A rank without rows gets nothing.
/// Collective.
pub fn rows_before_of<T: Element>(
    comm: &Communicator,
    sharding: &Sharding,
    width: usize,
    matrix: &[T],
    before: usize,
    beyond: &[T],
) -> Result<Vec<T>> {
    let (early, _) = neighbours(comm, sharding, width, matrix, (before, 0))?;
    if sharding.range(comm.rank()).is_empty() {
        return Ok(Vec::new());
    }
    let cells = before * width - early.len();
    let known = &beyond[beyond.len().saturating_sub(cells)..];
    let mut rows = vec![T::default(); cells - known.len()];
    rows.extend_from_slice(known);
    rows.extend_from_slice(&early);
    Ok(rows)
}

/// The rows before and after the own ones that other ranks own. Collective.
fn neighbours<T: Element>(
    comm: &Communicator,
    sharding: &Sharding,
    width: usize,
    matrix: &[T],
    (before, after): (usize, usize),
) -> Result<(Vec<T>, Vec<T>)> {
    let rank = comm.rank();
    let own = sharding.range(rank);
    comm.agree(if matrix.len() == own.len() * width {
        Ok(())
    } else {
        let (held, of) = (matrix.len(), own.len() * width);
        Err(Error::internal(format!("rows around a matrix of {held} values; expected {of}")))
    })?;
    // What a rank wants: a range of dates; its own part it has already.
    let wanted = |rank: usize| {
        let range = sharding.range(rank);
        let reach = if range.is_empty() { 0 } else { after };
        range.start.saturating_sub(before)..range.end.saturating_add(reach).min(sharding.n())
    };
    let mut sent = Vec::new();
    let mut counts = vec![0; comm.ranks()];
    for (other, count) in counts.iter_mut().enumerate() {
        let range = wanted(other);
        let part = range.start.max(own.start)..range.end.min(own.end);
        if other != rank && !sharding.range(other).is_empty() && !part.is_empty() {
            let part = (part.start - own.start) * width..(part.end - own.start) * width;
            *count = part.len();
            sent.extend_from_slice(&matrix[part]);
        }
    }
    let (mut early, _) = comm.all_to_all_vec(&sent, &counts)?;
    // Ranks own ascending dates, so what came in rank order is in date order.
    let range = wanted(rank);
    let first = if own.is_empty() { 0 } else { (own.start - range.start) * width };
    let late = early.split_off(first);
    Ok((early, late))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;

    #[test]
    fn rows_come_from_as_many_ranks_as_it_takes() {
        let width = 3;
        for ranks in [1, 2, 3, 4, 7] {
            for dates in [0, 1, ranks - 1, ranks, ranks + 1, 3 * ranks + 2] {
                for (before, after) in [(0, 0), (1, 0), (0, 1), (2, 3), (dates + 1, 1), (0, 40)] {
                    // Two rows are known before the first date, and one after the last.
                    let value = |row: usize, column: usize| (row * width + column) as f64;
                    let known = |rows: std::ops::Range<usize>| -> Vec<f64> {
                        rows.flat_map(|r| (0..width).map(move |c| value(r, c))).collect()
                    };
                    let (early, late) = (known(0..2), known(dates + 2..dates + 3));
                    let results = launch::threads(ranks, |comm| {
                        let sharding = Sharding::even(dates, ranks);
                        let own = sharding.range(comm.rank());
                        let matrix = known(own.start + 2..own.end + 2);
                        let beyond = Beyond { before: &early, after: &late };
                        rows_around_of(comm, &sharding, width, &matrix, (before, after), beyond)
                    })
                    .unwrap();
                    for (rank, around) in results.iter().enumerate() {
                        let own = Sharding::even(dates, ranks).range(rank);
                        let rows = if own.is_empty() { 0 } else { before + own.len() + after };
                        assert_eq!(around.len(), rows * width);
                        for (i, &x) in around.iter().enumerate() {
                            let place = (own.start + 2) * width + i;
                            let place = place as i64 - (before * width) as i64;
                            if (0..((dates + 3) * width) as i64).contains(&place) {
                                assert_eq!(x, place as f64, "{ranks} {dates} {before} {after}");
                            } else {
                                assert!(x.is_nan());
                            }
                        }
                    }
                }
            }
        }
    }
}
