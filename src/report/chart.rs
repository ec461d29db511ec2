//! Curves over sizes on logarithmic axes, as inline SVG that takes its colours from the page.

use std::fmt::Write as _;

use super::escaped;

/// One curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// For the legend.
    pub name: &'static str,
    /// The number of its colour in the page, 0 to 4.
    pub color: usize,
    /// A reference rather than a result.
    pub dashed: bool,
    /// (bytes, value); those that are not above 0 are left out.
    pub points: Vec<(usize, f64)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 82.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 44.0;

/// Bytes with a binary suffix.
pub fn size(bytes: usize) -> String {
    let suffixes = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let found = suffixes.into_iter().find(|(shift, _)| bytes >= 1 << shift);
    match found {
        Some((shift, suffix)) if bytes.is_multiple_of(1 << shift) => {
            format!("{} {suffix}", bytes >> shift)
        }
        Some((shift, suffix)) => format!("{:.1} {suffix}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

/// A figure with axes, curves and a legend; empty when there is nothing to draw.
pub fn figure(caption: &str, unit: &str, curves: &[Curve]) -> String {
    let drawn: Vec<Curve> = curves
        .iter()
        .map(|curve| {
            let points = curve.points.iter().copied();
            let points = points.filter(|&(bytes, value)| bytes > 0 && value > 0.0).collect();
            Curve { points, ..curve.clone() }
        })
        .filter(|curve| !curve.points.is_empty())
        .collect();
    let all = || drawn.iter().flat_map(|curve| &curve.points);
    let Some(least) = all().map(|p| p.0).min() else { return String::new() };
    let most = all().map(|p| p.0).max().unwrap_or(least);
    let low = all().map(|p| p.1).fold(f64::INFINITY, f64::min).log10().floor();
    let high = all().map(|p| p.1).fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let across = ((most as f64).log2() - (least as f64).log2()).max(1.0);
    let x = |bytes: usize| {
        LEFT + ((bytes as f64).log2() - (least as f64).log2()) / across * (WIDTH - LEFT - RIGHT)
    };
    let y = |value: f64| {
        HEIGHT - BOTTOM - (value.log10() - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
    };
    let label = escaped(&format!("{caption}, {unit}"));
    // Writing to a string cannot fail.
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\n");
    for decade in low as i32..=high as i32 {
        let (at, value) = (y(10f64.powi(decade)), 10f64.powi(decade));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    let mut sizes: Vec<usize> = all().map(|p| p.0).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let every = sizes.len().div_ceil(6);
    for &bytes in sizes.iter().step_by(every) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(bytes).clamp(LEFT, WIDTH - RIGHT - 22.0),
            HEIGHT - BOTTOM + 20.0,
            size(bytes)
        );
    }
    let mut legend = String::new();
    for Curve { name, color, dashed, points } in &drawn {
        let class = if *dashed { " dashed" } else { "" };
        let path: Vec<String> =
            points.iter().map(|&(b, v)| format!("{:.1},{:.1}", x(b), y(v))).collect();
        let path = path.join(" ");
        let _ = writeln!(
            svg,
            "<polyline class=\"line{class}\" style=\"stroke: var(--c{color})\" \
             points=\"{path}\"/>"
        );
        for &(bytes, value) in points {
            let _ = writeln!(
                svg,
                "<circle r=\"3\" cx=\"{:.1}\" cy=\"{:.1}\" style=\"fill: var(--c{color})\"><title>\
                 {}, {}: {value:.3} {unit}</title></circle>",
                x(bytes),
                y(value),
                escaped(name),
                size(bytes)
            );
        }
        let _ = write!(
            legend,
            "<li><span class=\"{}\" style=\"color: var(--c{color})\"></span>{}</li>",
            class.trim(),
            escaped(name)
        );
    }
    svg += "</svg>\n";
    format!(
        "<figure><figcaption>{}, {unit}</figcaption>\n<ul class=\"legend\">{legend}</ul>\n\
         {svg}</figure>\n",
        escaped(caption)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_inside_the_picture_and_only_points_that_exist() {
        let points = vec![(0, 1.0), (8, 0.03), (1 << 20, 0.0), (1 << 26, 93_519.0)];
        let curve = Curve { name: "ours", color: 0, dashed: false, points };
        let text = figure("time", "us", &[curve]);
        assert_eq!(text.matches("<circle").count(), 2);
        for part in text.split("<circle").skip(1) {
            let number = |key: &str| {
                let rest = part.split_once(&format!("{key}=\"")).unwrap().1;
                rest.split_once('"').unwrap().0.parse::<f64>().unwrap()
            };
            assert!((LEFT..=WIDTH - RIGHT).contains(&number("cx")), "{part}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&number("cy")), "{part}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"));
        assert_eq!(figure("time", "us", &[]), "");
    }

    #[test]
    fn sizes_read_like_sizes() {
        let wanted = [(8, "8 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (64 << 20, "64 MiB")];
        for (bytes, text) in wanted {
            assert_eq!(size(bytes), text);
        }
    }
}
