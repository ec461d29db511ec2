//! Files of node values: a node id and a number ≥ 0 a line, separated by tabs, spaces or a comma.
//!
//! Lines that start with `#` or `%` and blank lines are skipped. Nodes that are not named have 0.
//! A node that the graph lacks is an error with its line (networkx ignores it, and so hides typing
//! errors), as is one that is named twice. Every rank reads the whole file and gets all values:
//! 8 bytes a node.

use std::collections::HashSet;
use std::path::Path;

use super::ids::Numbering;
use crate::error::{Error, Result};

/// The values of all nodes, by index.
pub fn read(path: &Path, numbering: &Numbering) -> Result<Vec<f64>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, "read", &e))?;
    parse(path, &text, numbering)
}

fn parse(path: &Path, text: &str, numbering: &Numbering) -> Result<Vec<f64>> {
    let mut values = vec![0.0; numbering.len()];
    let mut seen = HashSet::new();
    for (line, number) in text.lines().zip(1..) {
        let wrong = |what: String| Error::line(path, number, what);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '%']) {
            continue;
        }
        let mut columns = line.split([' ', '\t', ',']).filter(|column| !column.is_empty());
        let (Some(id), Some(value), None) = (columns.next(), columns.next(), columns.next()) else {
            let what = format!("'{line}' is not a node id and a value");
            return Err(wrong(what));
        };
        let Some(index) = numbering.find(id) else {
            return Err(wrong(format!("node '{id}' is not in the graph")));
        };
        if !seen.insert(index) {
            return Err(wrong(format!("node '{id}' is named a second time")));
        }
        values[index] = match value.parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => value,
            _ => return Err(wrong(format!("'{value}' is not a finite number >= 0"))),
        };
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_to_their_nodes_and_errors_name_the_line() {
        let numbering = Numbering::Integers(vec![3, 7, 9]);
        let parse = |text: &str| parse(Path::new("values"), text, &numbering);
        assert_eq!(parse("# x\n\n9, 0.5\r\n3\t2\n"), Ok(vec![2.0, 0.0, 0.5]));
        assert_eq!(parse(""), Ok(vec![0.0; 3]));
        for (text, what) in [
            ("3 1\n4 1", "values line 2: node '4' is not in the graph"),
            ("3 1\n3 1", "line 2: node '3' is named a second time"),
            ("3", "line 1: '3' is not a node id and a value"),
            ("3 1 2", "is not a node id and a value"),
            ("3 -1", "line 1: '-1' is not a finite number >= 0"),
            ("3 nan", "'nan' is not a finite"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(what), "{error}");
        }
    }
}
