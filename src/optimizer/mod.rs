//! The distributed optimizer: gradients are reduce-scattered, each rank steps its shard, and
//! parameters are all-gathered (ZeRO-1, as Megatron-LM's `DistributedOptimizer` does).

pub mod checkpoint;
pub mod parameter;
