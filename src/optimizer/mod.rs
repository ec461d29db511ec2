//! The distributed optimizer: gradients are reduce-scattered, each rank steps its shard, and
//! parameters are all-gathered (ZeRO-1, as Megatron-LM's `DistributedOptimizer` does).
//!
//! `hyper`, `schedule`, `scaler` and `groups` are what a user configures: scalars only, in f64, the
//! same on every rank. The loops over elements are `reduce::step` and `reduce::squares`. `layout`
//! and `ranges` say what lies where, `gradients` and `values` are the buffers, `distributed`
//! drives.

pub mod checkpoint;
pub mod distributed;
mod gradient_bucket;
pub mod gradients;
pub mod groups;
pub mod hyper;
pub mod layout;
#[cfg(test)]
mod oracle_tests;
pub mod parameter;
pub mod ranges;
pub mod scaler;
pub mod schedule;
mod state;
pub mod timeline;
pub mod values;
