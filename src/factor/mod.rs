//! Factor cross-sections: a panel of dates and assets, sharded by date; preprocessing, rank
//! information coefficients, composites and portfolios.

pub mod composite;
pub mod config;
pub mod correlation;
pub mod cumulative;
pub mod cut;
pub mod dates;
pub mod decay;
mod earnings;
pub mod edges;
pub mod evaluation;
#[cfg(test)]
pub(crate) mod evaluation_tests;
pub mod fama_macbeth;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod generator;
pub mod ic;
pub mod input;
pub mod job;
#[cfg(test)]
mod look_ahead_tests;
pub mod panel;
pub mod panel_file;
pub mod past;
pub mod portfolio;
pub mod preprocess;
#[cfg(test)]
mod preset_tests;
pub mod quantiles;
pub mod ranks;
pub mod returns;
pub mod screening;
mod sections;
pub mod shards;
pub mod stability;
mod standing;
pub mod statistics;
pub mod study;
pub mod table_file;
pub mod tables;
pub mod technical;
pub mod universe;
pub mod weighted;
