//! Rank-aware collectives over MPI.

pub mod cli;
pub mod communicator;
pub mod control;
pub mod element;
pub mod error;
pub mod executor;
pub mod files;
pub mod graph;
pub mod launch;
pub mod plan;
pub mod reduce;
pub mod select;
pub mod selftest;
pub mod sharding;
pub mod signature;
pub mod topology;
pub mod transport;
