//! Options of every command that reads a graph.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::graph::columns::Columns;
use crate::graph::convert::GraphInput;
use crate::graph::order::Relabel;
use crate::graph::partition::PartitionOptions;
use crate::graph::rows::Duplicates;

/// The graph, and what it means.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Input {
    /// Graph file, or the name of a random graph
    pub(super) graph: PathBuf,
    /// Edges have the weights of the file; in an edge list, the third column (otherwise ignored)
    #[arg(long)]
    pub(super) weights: bool,
    /// Each line is an edge both ways; no effect on formats that say so themselves
    #[arg(long)]
    pub(super) undirected: bool,
    /// What repeated edges mean
    #[arg(long, value_enum, default_value = "sum")]
    duplicates: DuplicatesName,
    /// The sources in a Parquet table
    #[arg(long, value_name = "NAME", default_value = "source")]
    source_column: String,
    /// The targets in a Parquet table
    #[arg(long, value_name = "NAME", default_value = "target")]
    target_column: String,
    /// The weights in a Parquet table
    #[arg(long, value_name = "NAME", default_value = "weight")]
    weight_column: String,
}

/// Whether nodes are ordered by degree.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum RelabelName {
    /// Unless most edges join nodes with near ids
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DuplicatesName {
    /// Their weights add up, as in a networkx multigraph
    Sum,
    /// They are one edge, as in a networkx graph
    Merge,
}

impl RelabelName {
    pub(super) fn relabel(self) -> Relabel {
        match self {
            RelabelName::Auto => Relabel::Auto,
            RelabelName::Always => Relabel::Always,
            RelabelName::Never => Relabel::Never,
        }
    }
}

impl Input {
    /// As the library has it.
    pub(super) fn input(&self, relabel: Relabel) -> GraphInput {
        GraphInput {
            graph: self.graph.clone(),
            options: PartitionOptions {
                weighted: self.weights,
                undirected: self.undirected,
                duplicates: match self.duplicates {
                    DuplicatesName::Sum => Duplicates::Sum,
                    DuplicatesName::Merge => Duplicates::Merge,
                },
                relabel,
            },
            columns: Columns {
                source: self.source_column.clone(),
                target: self.target_column.clone(),
                weight: self.weight_column.clone(),
            },
        }
    }
}
