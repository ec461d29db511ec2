//! Names of the columns of an edge table.

/// Which columns of a table are the edges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Columns {
    /// The ids of the sources.
    pub source: String,
    /// The ids of the targets.
    pub target: String,
    /// The weights, where they are read.
    pub weight: String,
}

impl Default for Columns {
    fn default() -> Self {
        let name = |text: &str| text.to_string();
        Columns { source: name("source"), target: name("target"), weight: name("weight") }
    }
}
