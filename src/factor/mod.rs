//! Factor cross-sections: a panel of dates and assets, sharded by date; preprocessing, rank
//! information coefficients, composites and portfolios.

pub mod config;
pub mod panel;
pub mod technical;
