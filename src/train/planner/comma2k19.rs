//! Recorded drives in the layout of Comma2k19, and generated ones whose labels are known.
//!
//! A segment is one minute at 20 Hz. Its poses are four numpy arrays: positions (ECEF, metres),
//! orientations (quaternion w x y z, from the car's frame to ECEF), velocities (ECEF, m/s), times
//! (s). The archive has them as `global_pose/frame_positions` without an ending; files with `.npy`
//! and without the folder are found too.

use std::f64::consts::FRAC_PI_4;
use std::path::{Path, PathBuf};

use super::npy;
use crate::error::{Error, Result};

/// The poses of one segment, a frame at each index.
#[derive(Clone, PartialEq, Debug)]
pub struct Segment {
    /// Seconds; they rise.
    pub times: Vec<f64>,
    /// Earth-centred positions, in metres.
    pub positions: Vec<[f64; 3]>,
    /// Unit quaternions (w, x, y, z) that take the car's frame to the earth's.
    pub orientations: Vec<[f64; 4]>,
    /// Earth-centred velocities, in m/s.
    pub velocities: Vec<[f64; 3]>,
}

impl Segment {
    /// Reads the poses of a segment's folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let times = npy::read_rows(&find(folder, "frame_times")?, 1)?.values;
        let segment = Segment {
            positions: rows(&find(folder, "frame_positions")?)?,
            orientations: rows(&find(folder, "frame_orientations")?)?,
            velocities: rows(&find(folder, "frame_velocities")?)?,
            times,
        };
        segment.check().map_err(|what| Error::input(format!("{}: {what}", folder.display())))?;
        Ok(segment)
    }

    /// How many frames it has.
    pub fn frames(&self) -> usize {
        self.times.len()
    }

    fn check(&self) -> std::result::Result<(), String> {
        let counts = [self.positions.len(), self.orientations.len(), self.velocities.len()];
        if counts.iter().any(|&n| n != self.frames()) {
            let [positions, orientations, velocities] = counts;
            return Err(format!(
                "{} times, {positions} positions, {orientations} orientations, {velocities} \
                 velocities; expected one of each for a frame",
                self.frames()
            ));
        }
        if let Some(frame) = self.times.windows(2).position(|w| w[1] <= w[0] || w[1].is_nan()) {
            return Err(format!("frame_times do not rise at frame {}", frame + 1));
        }
        for frame in 0..self.frames() {
            let finite = |values: &[f64]| values.iter().all(|v| v.is_finite());
            let norm: f64 = self.orientations[frame].iter().map(|q| q * q).sum();
            if !finite(&self.positions[frame]) || !finite(&self.velocities[frame]) {
                return Err(format!("frame {frame} has a position or velocity that is no number"));
            }
            if (norm - 1.0).abs() > 1e-3 || norm.is_nan() {
                return Err(format!("the orientation of frame {frame} is no unit quaternion"));
            }
        }
        Ok(())
    }
}

/// The file of an array, where a segment may have it.
fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let pose = folder.join("global_pose");
    let names = [name.to_string(), format!("{name}.npy")];
    let places = [pose.as_path(), folder];
    let mut paths = places.iter().flat_map(|place| names.iter().map(|n| place.join(n)));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        Error::input(format!(
            "{}: no global_pose/{name} (or {name}.npy); expected the folder of one segment",
            folder.display()
        ))
    })
}

fn rows<const N: usize>(path: &Path) -> Result<Vec<[f64; N]>> {
    let array = npy::read_rows(path, N)?;
    Ok(array.values.chunks_exact(N).map(|row| std::array::from_fn(|i| row[i])).collect())
}

/// A segment of `frames` frames at 20 Hz on a circle at constant speed; a curvature of 0 (in 1/m,
/// positive to +y of the car) is a straight line. The car starts somewhere on the earth, turned
/// against its axes.
pub fn generate(frames: usize, speed: f64, curvature: f64) -> Segment {
    // Any fixed rotation serves: it must drop out of the labels.
    let base = product(turn(0, FRAC_PI_4), product(turn(1, -0.7), turn(2, 2.1)));
    let start = [-2_712_346.0, -4_265_178.0, 3_872_091.0];
    let axes = super::labels::rotation(base);
    let place =
        |x: f64, y: f64| -> [f64; 3] { std::array::from_fn(|i| axes[i][0] * x + axes[i][1] * y) };
    let mut segment = Segment {
        times: (0..frames).map(|f| 1000.0 + f as f64 * 0.05).collect(),
        positions: Vec::with_capacity(frames),
        orientations: Vec::with_capacity(frames),
        velocities: Vec::with_capacity(frames),
    };
    for frame in 0..frames {
        let length = speed * 0.05 * frame as f64;
        let (x, y) = arc(length, curvature);
        let offset = place(x, y);
        segment.positions.push(std::array::from_fn(|i| start[i] + offset[i]));
        segment.orientations.push(product(base, turn(2, length * curvature)));
        let (sin, cos) = (length * curvature).sin_cos();
        segment.velocities.push(place(speed * cos, speed * sin));
    }
    segment
}

/// Where a car is after `length` metres of a circle that starts at 0 along +x.
pub fn arc(length: f64, curvature: f64) -> (f64, f64) {
    let angle = length * curvature;
    if angle.abs() < 1e-9 {
        return (length, length * angle / 2.0);
    }
    (angle.sin() / curvature, (1.0 - angle.cos()) / curvature)
}

/// The quaternion of a turn about an axis.
fn turn(axis: usize, angle: f64) -> [f64; 4] {
    let (sin, cos) = (angle / 2.0).sin_cos();
    let mut quaternion = [cos, 0.0, 0.0, 0.0];
    quaternion[axis + 1] = sin;
    quaternion
}

/// The quaternion of one turn after another, each about axes that the left one has turned.
fn product([a, b, c, d]: [f64; 4], [w, x, y, z]: [f64; 4]) -> [f64; 4] {
    [
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::npy::bytes_of;
    use super::*;

    fn write(folder: &Path, segment: &Segment, ending: &str) {
        let n = segment.frames();
        let arrays = [
            ("frame_times", vec![n], segment.times.clone()),
            ("frame_positions", vec![n, 3], segment.positions.concat()),
            ("frame_orientations", vec![n, 4], segment.orientations.concat()),
            ("frame_velocities", vec![n, 3], segment.velocities.concat()),
        ];
        for (name, shape, values) in arrays {
            let path = folder.join(format!("{name}{ending}"));
            std::fs::write(path, bytes_of(&shape, &values)).unwrap();
        }
    }

    #[test]
    fn a_segment_is_read_from_either_layout() {
        let segment = generate(7, 12.0, 0.01);
        for (inner, ending) in [("global_pose", ""), ("", ".npy"), ("global_pose", ".npy")] {
            let folder = tempfile::tempdir().unwrap();
            let pose = folder.path().join(inner);
            std::fs::create_dir_all(&pose).unwrap();
            write(&pose, &segment, ending);
            assert_eq!(Segment::read(folder.path()).unwrap(), segment);
        }
    }

    #[test]
    fn wrong_segments_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Segment::read(folder.path()).unwrap_err();
        assert!(error.message.contains("global_pose/frame_times"), "{error}");
        type Spoil = fn(&mut Segment);
        let cases: [(Spoil, &str); 4] = [
            (|s| s.velocities.truncate(6), "6 velocities"),
            (|s| s.times[4] = s.times[3], "rise at frame 4"),
            (|s| s.positions[2][1] = f64::NAN, "frame 2"),
            (|s| s.orientations[5] = [0.5; 4].map(|q| q * 1.1), "frame 5 is no unit"),
        ];
        for (spoil, wanted) in cases {
            let mut segment = generate(7, 12.0, 0.0);
            spoil(&mut segment);
            write(folder.path(), &segment, ".npy");
            // The number of rows differs where one was removed.
            let n = segment.velocities.len();
            let path = folder.path().join("frame_velocities.npy");
            std::fs::write(path, bytes_of(&[n, 3], &segment.velocities.concat())).unwrap();
            let error = Segment::read(folder.path()).unwrap_err();
            assert!(error.message.contains(wanted), "{error}");
        }
    }

    #[test]
    fn velocities_are_the_slope_of_positions() {
        for curvature in [0.0, 0.02, -0.05] {
            let segment = generate(9, 15.0, curvature);
            for f in 1..8 {
                for axis in 0..3 {
                    let slope =
                        (segment.positions[f + 1][axis] - segment.positions[f - 1][axis]) / 0.1;
                    let difference = slope - segment.velocities[f][axis];
                    assert!(difference.abs() < 0.01, "{curvature} {f} {axis}: {difference}");
                }
            }
        }
    }
}
