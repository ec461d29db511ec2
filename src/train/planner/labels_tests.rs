//! Tests of `labels`: circles and lines by formula; tests/planner_data.rs has a real segment.

use super::super::comma2k19::{arc, generate};
use super::*;

#[test]
fn times_are_those_of_the_original_to_its_eight_decimals() {
    for (exact, written) in times(10.0).iter().zip(ORIGINAL_TIMES) {
        assert!((exact - written).abs() <= 5.000001e-9, "{exact} {written}");
    }
    assert_eq!(times(5.0)[32], 5.0);
    assert_eq!(times(5.0)[16], 1.25);
}

#[test]
fn labels_of_circles_and_lines_are_known() {
    for (speed, curvature) in [(0.0, 0.0), (20.0, 0.0), (15.0, 0.01), (8.0, -0.03)] {
        let segment = generate(260, speed, curvature);
        for timing in [Timing::Original, Timing::Recorded] {
            let frames = labelled_frames(&segment, timing);
            assert_eq!(frames, if timing == Timing::Original { 61 } else { 60 });
            let labels = labels(&segment, 0..frames, timing).unwrap();
            assert_eq!(labels.frames(), frames);
            for frame in [0, 1, frames - 1] {
                for (i, point) in labels.frame(frame).chunks(AXES).enumerate() {
                    // The original's clock runs 199/200 as fast.
                    let stretch = if timing == Timing::Original { 0.995 } else { 1.0 };
                    let (x, y) = arc(speed * times(10.0)[i] * stretch, curvature);
                    // A chord of 1/20 s lies up to (speed/20)²·curvature/8 inside the arc; f64
                    // holds positions on the earth to 1e-9 m, f32 a label of 200 m to 1e-5 m.
                    let chord = (speed / 20.0).powi(2) * curvature.abs() / 8.0;
                    let near = |a: f32, b: f64| (f64::from(a) - b).abs() < 2e-5 + 1.1 * chord;
                    let what = format!("{timing:?} {speed} {curvature} {frame} {i} {point:?}");
                    assert!(near(point[0], x) && near(point[1], y), "{what} not {x} {y}");
                    assert!(point[2].abs() < 1e-6, "{what}");
                }
            }
        }
    }
}

#[test]
fn frames_without_ten_seconds_after_them_are_refused() {
    let segment = generate(230, 10.0, 0.0);
    assert_eq!(labelled_frames(&segment, Timing::Original), 31);
    assert!(labels(&segment, 30..31, Timing::Original).is_ok());
    let error = labels(&segment, 30..32, Timing::Original).unwrap_err();
    assert!(error.message.contains("the first 31"), "{error}");
    for frames in [0, 1, 199] {
        let short = generate(frames, 10.0, 0.0);
        assert_eq!(labelled_frames(&short, Timing::Original), 0);
        assert_eq!(labelled_frames(&short, Timing::Recorded), 0);
        assert_eq!(labels(&short, 0..0, Timing::Recorded).unwrap().frames(), 0);
    }
    assert_eq!(labelled_frames(&generate(200, 1.0, 0.0), Timing::Original), 1);
}
