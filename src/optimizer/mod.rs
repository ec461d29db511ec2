//! The distributed optimizer: gradients are reduce-scattered, each rank steps its shard, and
//! parameters are all-gathered (ZeRO-1, as Megatron-LM's `DistributedOptimizer` does).

pub mod checkpoint;
pub mod distributed;
mod gradient_bucket;
pub mod gradients;
pub mod groups;
pub mod hyper;
pub mod layout;
pub mod parameter;
pub mod ranges;
pub mod scaler;
pub mod schedule;
mod state;
pub mod timeline;
pub mod values;
