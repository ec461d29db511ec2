//! Line charts with linear axes, for series over steps, iterations or dates.

use std::fmt::Write as _;

use super::escaped;

/// One series.
#[derive(Clone, Debug)]
pub struct Line {
    name: String,
    color: usize,
    points: Vec<(f64, f64)>,
}

impl Line {
    /// A series in one of the five colours of the page; points that are not finite leave gaps.
    pub fn new(name: &str, color: usize, points: Vec<(f64, f64)>) -> Self {
        Line { name: name.to_string(), color: color % 5, points }
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

/// About five round numbers between two numbers.
pub(super) fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = (high - low).max(f64::MIN_POSITIVE);
    let power = 10f64.powf((span / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| span / s <= 6.0);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    (first..).map(|k| k as f64 * step).take_while(|x| *x <= high + step * 1e-9).take(12).collect()
}

/// A number as short as it can be read.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A chart of some series; empty if none of them has a point.
pub fn figure(caption: &str, across: &str, lines: &[Line]) -> String {
    let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
    let all = || lines.iter().flat_map(|line| &line.points).filter(finite);
    if all().next().is_none() {
        return String::new();
    }
    let bounds = |value: &dyn Fn(&(f64, f64)) -> f64| {
        let low = all().map(value).fold(f64::INFINITY, f64::min);
        let high = all().map(value).fold(f64::NEG_INFINITY, f64::max);
        if low < high { (low, high) } else { (low - 0.5, high + 0.5) }
    };
    let ((x0, x1), (y0, y1)) = (bounds(&|p| p.0), bounds(&|p| p.1));
    let x = |value: f64| LEFT + (value - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    let label = escaped(&format!("{caption} over {across}"));
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\n");
    for value in ticks(y0, y1) {
        let (at, text) = (y(value), short(value));
        let (end, left, base) = (WIDTH - RIGHT, LEFT - 6.0, y(value) + 4.0);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{left}\" y=\"{base:.1}\" text-anchor=\"end\">{text}</text>"
        );
    }
    for value in ticks(x0, x1) {
        let (at, base, text) = (x(value), HEIGHT - 10.0, short(value));
        let _ =
            writeln!(svg, "<text x=\"{at:.1}\" y=\"{base}\" text-anchor=\"middle\">{text}</text>");
    }
    let mut legend = String::new();
    for line in lines {
        let mut path = String::new();
        let mut pen = "M";
        for point in &line.points {
            if !finite(&point) {
                pen = "M";
                continue;
            }
            let _ = write!(path, "{pen}{:.1} {:.1}", x(point.0), y(point.1));
            pen = "L";
        }
        let (color, name) = (line.color, escaped(&line.name));
        let _ =
            writeln!(svg, "<path class=\"line\" style=\"stroke: var(--c{color})\" d=\"{path}\"/>");
        let _ =
            write!(legend, "<li><span style=\"border-color: var(--c{color})\"></span>{name}</li>");
    }
    let caption = escaped(caption);
    format!(
        "<figure>\n<figcaption>{caption}</figcaption>\n{svg}</svg>\n\
         <ul class=\"legend\">{legend}</ul>\n</figure>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(-1.0, 1.0), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        for (low, high) in [(0.0, 1e-9), (3.0, 1e12), (-7.3, -7.1), (0.1, 0.1000001)] {
            let found = ticks(low, high);
            assert!((2..=12).contains(&found.len()), "{low} {high}: {found:?}");
            let slack = (high - low) * 1e-6;
            assert!(found.iter().all(|t| *t >= low - slack && *t <= high + slack), "{found:?}");
        }
    }

    #[test]
    fn gaps_split_a_line_and_names_are_escaped() {
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 4.0)];
        let text = figure("a<b", "step", &[Line::new("x&y", 7, points)]);
        let path = text.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1));
        assert!(text.contains("a&lt;b") && text.contains("x&amp;y") && text.contains("--c2"));
        assert_eq!(figure("none", "step", &[Line::new("x", 0, vec![(1.0, f64::NAN)])]), "");
    }
}
