//! The results of `rankwise bench` as a page: time and bus bandwidth against size, ours beside the
//! library's and the memory limit, and all figures in a table.

use std::fmt::Write as _;

use super::{Report, Row, SIBLINGS};
use crate::report::chart::{Curve, figure, size};
use crate::report::{escaped, page};

/// The whole page.
pub(super) fn html(report: &Report) -> String {
    let mut body = String::new();
    // Writing to a string cannot fail.
    if let Some(first) = report.results.first() {
        let native = report.native.as_deref().unwrap_or("none, ranks are threads");
        let _ = writeln!(
            body,
            "<p class=\"note\">Ranks: {}, nodes: {}, elements: {}. MPI library: {}. \
             Median over iterations \
             of the maximum over ranks; sizes are bytes of the whole vector.</p>",
            first.ranks,
            first.nodes,
            first.dtype,
            escaped(native)
        );
    }
    if let Some(reason) = &report.reason {
        let reason = escaped(reason);
        let _ =
            writeln!(body, "<p class=\"warning\">No measurement of this machine: {reason}.</p>");
    }
    if let Some(slowdown) = report.slowdown_in_company.filter(|&slowdown| slowdown > SIBLINGS) {
        let _ = writeln!(
            body,
            "<p class=\"warning\">Two cores behave as siblings: together, each takes {slowdown:.2} \
             times as long as alone.</p>"
        );
    }
    let mut operations: Vec<&str> = report.results.iter().map(|row| row.op).collect();
    operations.dedup();
    for operation in operations {
        let rows: Vec<&Row> = report.results.iter().filter(|row| row.op == operation).collect();
        let _ = writeln!(body, "<h2>{operation}</h2>");
        let time = figure("Time", "µs", &curves(&rows, |_, time| time));
        let bandwidth = |row: &Row, time: f64| row.busbw_gbps * row.time_us / time;
        let bus = figure("Bus bandwidth", "GB/s", &curves(&rows, bandwidth));
        let _ = writeln!(body, "<div class=\"charts\">{time}{bus}</div>");
        body += &table(&rows);
    }
    page("rankwise bench", &body)
}

/// Ours by kind of buffers, the library's and the limit; `value` of a row and one of its times.
fn curves(rows: &[&Row], value: impl Fn(&Row, f64) -> f64) -> Vec<Curve> {
    let curve = |name, color, dashed, time: &dyn Fn(&Row) -> Option<f64>| {
        let point = |row: &&Row| time(row).map(|time| (row.bytes, value(row, time)));
        Curve { name, color, dashed, points: rows.iter().filter_map(point).collect() }
    };
    let of = |kind: &'static str| move |row: &Row| (row.buffers == kind).then_some(row.time_us);
    // Native calls and the limit know no kinds of buffers: one of them is enough.
    let first = rows.first().map_or("", |row| row.buffers);
    let once = |row: &Row| row.buffers == first;
    vec![
        curve("ours, shared buffers", 0, false, &of("shared")),
        curve("ours, plain buffers", 2, false, &of("plain")),
        curve("MPI", 1, false, &|row| row.native_us.filter(|_| once(row))),
        curve("MPI with counts", 3, false, &|row| row.native_counts_us.filter(|_| once(row))),
        curve("memory limit", 4, true, &|row| once(row).then_some(row.limit_us)),
    ]
}

fn table(rows: &[&Row]) -> String {
    let heads = [
        "bytes",
        "buffers",
        "algorithm",
        "time µs",
        "p10 µs",
        "p99 µs",
        "MPI µs",
        "with counts µs",
        "limit µs",
        "MPI ÷ ours",
        "bus GB/s",
        "right",
    ];
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    let mut text = format!("<div class=\"table\"><table><tr>{heads}</tr>\n");
    for row in rows {
        let or_none = |x: Option<f64>| x.map_or("–".to_string(), |x| format!("{x:.2}"));
        let cells = [
            size(row.bytes),
            row.buffers.to_string(),
            escaped(&row.algorithm),
            format!("{:.2}", row.time_us),
            format!("{:.2}", row.p10_us),
            format!("{:.2}", row.p99_us),
            or_none(row.native_us),
            or_none(row.native_counts_us),
            format!("{:.2}", row.limit_us),
            or_none(row.ratio),
            format!("{:.2}", row.busbw_gbps),
            if row.verified { "yes" } else { "WRONG" }.to_string(),
        ];
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(text, "<tr>{cells}</tr>");
    }
    text + "</table></div>\n"
}
