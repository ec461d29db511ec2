//! Rank-aware collectives over MPI.

pub mod error;
pub mod plan;
pub mod sharding;
pub mod topology;
