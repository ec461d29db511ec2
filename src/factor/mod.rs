//! Factor cross-sections: a panel of dates and assets, sharded by date; preprocessing, rank
//! information coefficients, composites and portfolios.

pub mod config;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod ic;
pub mod panel;
pub mod preprocess;
pub mod ranks;
pub mod returns;
pub mod statistics;
pub mod study;
pub mod technical;
pub mod universe;
