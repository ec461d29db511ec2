//! The result of `rankwise pagerank` as a page: convergence, the highest ranks, times and memory.

use std::fmt::Write as _;

use crate::cli::graph_report::node_name;
use crate::graph::PageRankSummary;
use crate::report::{convergence, escaped, page};

/// The whole page; iteration stopped below `limit`.
pub(super) fn html(graph: &str, summary: &PageRankSummary, ranks: usize, limit: f64) -> String {
    let mut body = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        body,
        "<p class=\"note\">{}: {} nodes, {} edges; {} iterations, last change {:.3e}.</p>",
        escaped(graph),
        summary.vertices,
        summary.edges,
        summary.iterations,
        summary.residual
    );
    body += "<h2>Convergence</h2>\n<div class=\"charts\">";
    body += &convergence::figure("Change of a step", &summary.residuals, Some(limit));
    body += "</div>\n<h2>Highest ranks</h2>\n<div class=\"table\"><table>\
             <tr><th></th><th>node</th><th>rank</th></tr>\n";
    for (i, top) in summary.top.iter().enumerate() {
        let node = node_name(&top.node);
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            i + 1,
            escaped(&node),
            top.rank
        );
    }
    let s = summary.seconds;
    let _ = writeln!(
        body,
        "</table></div>\n<h2>Cost</h2>\n<p class=\"note\">{ranks} ranks; load {:.3} s, partition \
         {:.3} s, iterate {:.4} s ({:.3} ns an edge), write {:.3} s; peak memory {:.1} MiB a \
         process. Contributions: {} bytes read from other ranks, {} bytes sent between nodes.</p>",
        s.load,
        s.partition,
        s.iterate,
        summary.ns_per_edge,
        s.write,
        summary.peak_rss_bytes as f64 / f64::from(1 << 20),
        summary.bytes_moved.between_ranks,
        summary.bytes_moved.between_nodes
    );
    page("rankwise pagerank", &body)
}
