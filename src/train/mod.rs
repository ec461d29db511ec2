//! Training with the sharded optimizer: layers and models, samplers and loaders, and the loop.

pub mod layers;
