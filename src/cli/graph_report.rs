//! What commands on graphs say to people after a run.

use std::path::PathBuf;

use super::Session;
use crate::graph::job::Seconds;
use crate::graph::output::TopNode;

/// The part that all commands have.
pub(super) struct Report<'r> {
    /// The graph, and what became of the run.
    pub(super) headline: String,
    pub(super) seconds: &'r Seconds,
    /// The cost of the iteration, with its unit.
    pub(super) cost: String,
    pub(super) peak_rss_bytes: u64,
}

impl Report<'_> {
    pub(super) fn print(&self, session: Session<'_>) {
        let Seconds { load, partition, iterate, write } = self.seconds;
        println!("{}", self.headline);
        println!(
            "{} ranks; load {load:.3} s, partition {partition:.3} s, iterate {iterate:.4} s ({}), \
             write {write:.3} s; peak memory {:.1} MiB a process",
            session.communicator.ranks(),
            self.cost,
            self.peak_rss_bytes as f64 / f64::from(1 << 20)
        );
    }
}

/// Prints where files went.
pub(super) fn print_written<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) {
    paths.into_iter().for_each(|path| println!("wrote {}", path.display()));
}

/// An id as people read it.
pub(super) fn node_name(node: &serde_json::Value) -> String {
    match node {
        serde_json::Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}

/// Prints a list of the highest values.
pub(super) fn print_top(value: &str, top: &[TopNode]) {
    let nodes: Vec<String> = top.iter().map(|top| node_name(&top.node)).collect();
    let width = nodes.iter().map(|node| node.chars().count()).max().unwrap_or(0).max(4);
    if !nodes.is_empty() {
        println!("{:>5}  {:<width$}  {value}", "", "node");
    }
    for (i, (node, top)) in nodes.iter().zip(top).enumerate() {
        println!("{:>5}  {node:<width$}  {}", i + 1, top.rank);
    }
}
