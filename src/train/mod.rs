//! Training with the sharded optimizer: layers and models, samplers and loaders, and the loop.

pub mod config;
pub mod evaluation;
pub mod gpt;
pub mod initial;
pub mod layers;
pub mod loader;
pub mod log;
pub mod model;
pub mod planner;
pub mod random;
pub mod run;
pub mod sampler;
pub mod sums;
pub mod task;
pub mod text;
