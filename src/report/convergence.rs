//! How the change of a step falls: a curve over iterations, on a logarithmic axis, as inline SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 82.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 44.0;

/// A figure of the change of each step, from the first; `limit` is drawn dashed. Empty when there
/// is nothing to draw.
pub fn figure(caption: &str, changes: &[f64], limit: Option<f64>) -> String {
    let drawable = |value: &f64| value.is_finite() && *value > 0.0;
    let limit = limit.filter(drawable);
    let points: Vec<(usize, f64)> =
        changes.iter().enumerate().filter(|(_, c)| drawable(c)).map(|(i, &c)| (i + 1, c)).collect();
    if points.is_empty() {
        return String::new();
    }
    let values = || points.iter().map(|p| p.1).chain(limit);
    let low = values().fold(f64::INFINITY, f64::min).log10().floor();
    let high = values().fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let last = changes.len().max(2) as f64;
    let x = |step: usize| LEFT + (step as f64 - 1.0) / (last - 1.0) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| {
        HEIGHT - BOTTOM - (value.log10() - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
    };
    let label = super::escaped(caption);
    // Writing to a string cannot fail.
    let mut svg = format!(
        "<figure><figcaption>{label}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"{label}\">\n"
    );
    let decades = (high - low) as i32;
    for decade in (low as i32..=high as i32).step_by((decades / 8 + 1) as usize) {
        let at = y(10f64.powi(decade));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text \
             x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">1e{decade}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    for step in (1..=changes.len()).step_by(changes.len().div_ceil(8)) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{step}</text>",
            x(step).clamp(LEFT, WIDTH - RIGHT),
            HEIGHT - BOTTOM + 20.0
        );
    }
    if let Some(limit) = limit {
        let at = y(limit);
        let _ = writeln!(
            svg,
            "<line class=\"line dashed\" style=\"stroke: var(--c4)\" x1=\"{LEFT}\" x2=\"{}\" \
             y1=\"{at:.1}\" y2=\"{at:.1}\"><title>limit {limit:e}</title></line>",
            WIDTH - RIGHT
        );
    }
    let path: Vec<String> =
        points.iter().map(|&(step, v)| format!("{:.1},{:.1}", x(step), y(v))).collect();
    let _ = writeln!(
        svg,
        "<polyline class=\"line\" style=\"stroke: var(--c0)\" points=\"{}\"/>",
        path.join(" ")
    );
    for &(step, value) in &points {
        let _ = writeln!(
            svg,
            "<circle r=\"3\" cx=\"{:.1}\" cy=\"{:.1}\" style=\"fill: var(--c0)\"><title>iteration \
             {step}: {value:.3e}</title></circle>",
            x(step),
            y(value)
        );
    }
    svg + "</svg></figure>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_inside_the_picture() {
        for count in [1, 2, 9, 100] {
            let changes: Vec<f64> = (0..count).map(|i| 0.85f64.powi(i) * 1.7).collect();
            let text = figure("change of a step", &changes, Some(1e-6));
            assert_eq!(text.matches("<circle").count(), count as usize);
            assert_eq!(text.matches("dashed").count(), 1);
            for part in text.split("<circle").skip(1) {
                let number = |key: &str| {
                    let rest = part.split_once(&format!("{key}=\"")).unwrap().1;
                    rest.split_once('"').unwrap().0.parse::<f64>().unwrap()
                };
                assert!((LEFT..=WIDTH - RIGHT).contains(&number("cx")), "{part}");
                assert!((TOP..=HEIGHT - BOTTOM).contains(&number("cy")), "{part}");
            }
            assert!(!text.contains("NaN") && !text.contains("inf"));
        }
        assert_eq!(figure("x", &[], None), "");
        assert_eq!(figure("x", &[0.0, f64::INFINITY], Some(1.0)), "");
        assert_eq!(figure("x", &[1.0, 0.0], Some(f64::INFINITY)).matches("<circle").count(), 1);
    }
}
