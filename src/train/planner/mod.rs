//! The driving planner: what it learns from, what it is told, and how well it does.
//!
//! `comma2k19` and `labels` read recorded drives; `traces`, `synthetic` and `windows` give samples
//! from simulated ones; `loss` is the loss over several hypotheses; `metrics` are computed from
//! sums and counts.

pub mod comma2k19;
pub mod head;
pub mod labels;
pub mod loss;
pub mod metrics;
pub mod npy;
pub mod synthetic;
pub mod traces;
pub mod windows;
