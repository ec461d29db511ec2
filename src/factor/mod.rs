//! Factor cross-sections: a panel of dates and assets, sharded by date; preprocessing, rank
//! information coefficients, composites and portfolios.

pub mod config;
pub mod dates;
pub mod generator;
pub mod input;
pub mod panel;
pub mod panel_file;
pub mod technical;
pub mod universe;
