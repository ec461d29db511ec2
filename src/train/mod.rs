//! Training with the sharded optimizer: layers and models, samplers and loaders, and the loop.

pub mod loader;
pub mod planner;
pub mod random;
pub mod sampler;
pub mod sums;
