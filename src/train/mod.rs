//! Training with the sharded optimizer: layers and models, samplers and loaders, and the loop.

pub mod gpt;
pub mod initial;
pub mod layers;
pub mod model;
