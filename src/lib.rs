//! Rank-aware collectives over MPI, and applications that are nothing but those collectives
//! around a kernel.
//!
//! Three ranks, each a thread of this process; under `mpirun` the same closure runs in processes
//! (see [`launch::run`]):
//!
//! ```
//! use rankwise::element::Op;
//! use rankwise::launch;
//!
//! let lines = launch::threads(3, |comm| {
//!     // Every rank contributes a whole vector; the owner of each shard gets its sum.
//!     let gradient: Vec<f32> = (0..6).map(|i| (comm.rank() * 10 + i) as f32).collect();
//!     let mut shard = comm.reduce_scatter_vec(&gradient, Op::Sum)?;
//!     // The owner does its work once…
//!     shard.iter_mut().for_each(|x| *x /= comm.ranks() as f32);
//!     // …and all ranks get the result.
//!     let mut result = vec![0.0f32; 6];
//!     comm.all_gather(&shard, &mut result)?;
//!     Ok(format!("rank {}: {shard:?} of {result:?}", comm.rank()))
//! })?;
//! assert_eq!(lines, [
//!     "rank 0: [10.0, 11.0] of [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]",
//!     "rank 1: [12.0, 13.0] of [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]",
//!     "rank 2: [14.0, 15.0] of [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]",
//! ]);
//! # Ok::<(), rankwise::error::Error>(())
//! ```
//!
//! # Map
//! | module | what |
//! | --- | --- |
//! | [`communicator`] | a rank's handle: collectives, prepared calls, splits, `agree` |
//! | [`launch`] | how a job starts and ends, on threads or under MPI |
//! | [`sharding`] | who owns which range: the one partition arithmetic |
//! | [`element`] | element types and reduction operators |
//! | [`error`] | what can go wrong, and its exit code |
//! | [`plan`] | collective algorithms as plain data, their checker, cost and pictures |
//! | [`select`] | which algorithm for which call |
//! | [`executor`], [`reduce`] | running a plan; the kernels |
//! | [`signature`], [`control`] | what ranks compare; errors between ranks |
//! | [`transport`], [`topology`] | moving bytes, shared memory, waiting; where ranks live |
//! | [`graph`] | reading, distributing and ranking graphs |
//! | [`optimizer`], [`train`] | the sharded optimizer; models, data and the training loop |
//! | [`factor`] | factor cross-sections: panels, rank IC, portfolios |
//! | [`files`] | files that are whole or not there |
//! | [`selftest`], [`cli`] | the conformance suite; the command line |
//!
//! `ARCHITECTURE.md` in the repository tells how they fit together and why.

pub mod cli;
pub mod communicator;
pub mod control;
pub mod element;
pub mod error;
pub mod executor;
pub mod factor;
pub mod files;
pub mod graph;
pub mod launch;
pub mod measure;
pub mod optimizer;
pub mod plan;
pub mod reduce;
pub mod report;
pub mod select;
pub mod selftest;
pub mod sharding;
pub mod signature;
pub mod topology;
pub mod train;
pub mod transport;

/// The examples of the README, which are tested with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
