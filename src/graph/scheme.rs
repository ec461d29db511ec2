//! How the edges and values of an iteration lie on the ranks, as asked for and as chosen.
//!
//! * **1d**: a rank has the edges into its own nodes, and every node (host) gets every value.
//! * **1d-needed**: the same edges, but a host gets only the values that its edges read.
//! * **2d:RxC**: ranks in R rows and C columns; a row of ranks shares the edges into its nodes by
//!   source, so a rank reads the values of about n/C sources, and sums travel along the row (see
//!   `grid`). With C = 1 it is 1d-needed.
//!
//! Which one changes no bit of the result. On one host all values lie in one vector that its ranks
//! read in place, so 1d moves nothing there, and the others only if they are asked for by name.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// What a run is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Partitioning {
    /// The cheapest by the cost model (see `cost`).
    #[default]
    Auto,
    /// By target; all values move.
    OneD,
    /// By target; only values that are read move.
    Needed,
    /// The cheapest grid.
    AnyGrid,
    /// A grid of so many rows and columns.
    Grid(GridShape),
}

/// Rows and columns of ranks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GridShape {
    /// Ranks with the same sources.
    pub rows: usize,
    /// Ranks with the same targets.
    pub columns: usize,
}

/// What a run does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// By target; all values move.
    OneD,
    /// By target; only values that are read move.
    Needed,
    /// By target and source.
    Grid(GridShape),
}

impl GridShape {
    /// All shapes for so many ranks, with few columns first.
    pub fn all(ranks: usize) -> impl Iterator<Item = GridShape> {
        let divides = move |columns: &usize| ranks.is_multiple_of(*columns);
        (1..=ranks).filter(divides).map(move |columns| GridShape { rows: ranks / columns, columns })
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scheme::OneD => f.write_str("1d"),
            Scheme::Needed => f.write_str("1d-needed"),
            Scheme::Grid(GridShape { rows, columns }) => write!(f, "2d:{rows}x{columns}"),
        }
    }
}

impl FromStr for Partitioning {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::input(format!(
                "partition '{text}': expected auto, 1d, 1d-needed, 2d or 2d:RxC, such as 2d:2x4"
            ))
        };
        let number = |word: &str| word.parse().ok().filter(|&n: &usize| n > 0).ok_or_else(wrong);
        match text {
            "auto" => Ok(Partitioning::Auto),
            "1d" => Ok(Partitioning::OneD),
            "1d-needed" => Ok(Partitioning::Needed),
            "2d" => Ok(Partitioning::AnyGrid),
            _ => {
                let shape = text.strip_prefix("2d:").and_then(|shape| shape.split_once('x'));
                let (rows, columns) = shape.ok_or_else(wrong)?;
                let shape = GridShape { rows: number(rows)?, columns: number(columns)? };
                Ok(Partitioning::Grid(shape))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let grid = |rows, columns| Partitioning::Grid(GridShape { rows, columns });
        for (text, expected) in [
            ("auto", Partitioning::Auto),
            ("1d", Partitioning::OneD),
            ("1d-needed", Partitioning::Needed),
            ("2d", Partitioning::AnyGrid),
            ("2d:2x4", grid(2, 4)),
            ("2d:7x1", grid(7, 1)),
        ] {
            assert_eq!(text.parse::<Partitioning>(), Ok(expected));
            if let Partitioning::Grid(shape) = expected {
                assert_eq!(Scheme::Grid(shape).to_string(), text);
            }
        }
        for text in ["", "2D", "2d:", "2d:2", "2d:0x4", "2d:2x-1", "2d:2x4x1", "3d"] {
            let error = text.parse::<Partitioning>().unwrap_err();
            assert!(error.message.contains("such as 2d:2x4"), "{error}");
        }
    }

    #[test]
    fn every_number_of_ranks_has_grids() {
        for ranks in 1..=40 {
            let shapes: Vec<GridShape> = GridShape::all(ranks).collect();
            assert!(shapes.iter().all(|shape| shape.rows * shape.columns == ranks));
            assert_eq!(shapes[0].columns, 1);
            assert_eq!(shapes[shapes.len() - 1].columns, ranks);
        }
        assert_eq!(GridShape::all(12).count(), 6);
    }
}
