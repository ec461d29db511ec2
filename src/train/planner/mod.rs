//! The driving planner: what it learns from, what it is told, and how well it does.
//!
//! `comma2k19`, `labels` and `recorded` give samples from recorded drives; `traces`, `synthetic`
//! and `windows` from simulated ones; `batch` lays samples out by time. `loss` is the loss over
//! several hypotheses, `head` makes them from numbers, `objective` joins both; `metrics` are
//! computed from sums and counts. `raster` draws images for drives without a camera. `model` is
//! the network, `image` its optional part for images; `supply` prepares batches, `exhibit` is what
//! a report shows, and `task` is all of it for the loop.

pub mod batch;
pub mod comma2k19;
pub mod exhibit;
pub mod head;
mod image;
pub mod labels;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod npy;
pub mod objective;
pub mod raster;
pub mod recorded;
mod supply;
pub mod synthetic;
pub mod task;
pub mod traces;
pub mod windows;
