//! Samples side by side, laid out by time: `[step][sample][number]`.
//!
//! A stretch of steps is then one contiguous slice, which is what truncated back-propagation takes
//! at a time: embedding and head run once over all rows of the stretch, and only the recurrent cell
//! goes step by step, over the rows of a step. Cost: one copy of the samples.

use std::ops::Range;

use super::labels::TRAJECTORY;
use super::windows::{INPUTS, Sample};
use crate::error::{Error, Result};

/// The samples of one rank in one optimizer round.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch {
    steps: usize,
    samples: usize,
    inputs: Vec<f32>,
    targets: Vec<f32>,
    speeds: Vec<f32>,
    images: Vec<f32>,
}

/// Consecutive steps of a batch; a row is one sample at one step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rows<'a> {
    /// [`INPUTS`] numbers a row.
    pub inputs: &'a [f32],
    /// [`TRAJECTORY`] numbers a row.
    pub targets: &'a [f32],
    /// One number a row.
    pub speeds: &'a [f32],
    /// An image a row, or nothing.
    pub images: &'a [f32],
}

impl Batch {
    /// Lays out samples of equally many steps. A batch of no samples is one of no steps.
    pub fn of(samples: &[Sample]) -> Result<Self> {
        let steps = samples.first().map_or(0, |s| s.speeds.len());
        if let Some(odd) = samples.iter().position(|s| s.speeds.len() != steps) {
            return Err(Error::internal(format!(
                "sample {odd} of a batch has {} steps, the first has {steps}",
                samples[odd].speeds.len()
            )));
        }
        let image = samples.first().map_or(0, |s| s.images.len() / steps.max(1));
        if let Some(odd) = samples.iter().position(|s| s.images.len() != steps * image) {
            return Err(Error::internal(format!(
                "sample {odd} of a batch has other images than the first"
            )));
        }
        let by_time = |numbers: usize, of: fn(&Sample) -> &[f32]| {
            let mut all = Vec::with_capacity(steps * samples.len() * numbers);
            for step in 0..steps {
                for sample in samples {
                    all.extend_from_slice(&of(sample)[step * numbers..(step + 1) * numbers]);
                }
            }
            all
        };
        Ok(Batch {
            steps,
            samples: samples.len(),
            inputs: by_time(INPUTS, |s| &s.inputs),
            targets: by_time(TRAJECTORY, |s| &s.targets),
            speeds: by_time(1, |s| &s.speeds),
            images: by_time(image, |s| &s.images),
        })
    }

    /// Steps of each sample.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Samples side by side.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The rows of some steps.
    ///
    /// # Panics
    /// If the batch has not all of them.
    pub fn rows(&self, steps: Range<usize>) -> Rows<'_> {
        let rows = steps.start * self.samples..steps.end * self.samples;
        let of = |numbers: usize| rows.start * numbers..rows.end * numbers;
        let image = self.images.len() / (self.steps * self.samples).max(1);
        Rows {
            inputs: &self.inputs[of(INPUTS)],
            targets: &self.targets[of(TRAJECTORY)],
            speeds: &self.speeds[rows.clone()],
            images: &self.images[of(image)],
        }
    }

    /// The stretches of `steps` steps, the last one perhaps shorter: one truncated
    /// back-propagation each.
    ///
    /// # Panics
    /// If `steps` is 0.
    pub fn chunks(&self, steps: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let end = self.steps;
        (0..end).step_by(steps).map(move |start| start..(start + steps).min(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that tell sample, step and place.
    fn sample(s: usize, steps: usize) -> Sample {
        let numbers = |n: usize| {
            let place = move |i: usize| (s * 1_000_000 + i / n * 1000 + i % n) as f32;
            (0..steps * n).map(place).collect()
        };
        Sample {
            inputs: numbers(INPUTS),
            targets: numbers(TRAJECTORY),
            speeds: numbers(1),
            images: numbers(6),
        }
    }

    #[test]
    fn rows_are_by_time_then_sample() {
        for (count, steps) in [(1, 1), (3, 4), (2, 5)] {
            let samples: Vec<Sample> = (0..count).map(|s| sample(s, steps)).collect();
            let batch = Batch::of(&samples).unwrap();
            assert_eq!((batch.samples(), batch.steps()), (count, steps));
            for chunk in 1..=steps + 1 {
                let ranges: Vec<_> = batch.chunks(chunk).collect();
                assert_eq!(ranges.concat_steps(), (0..steps).collect::<Vec<_>>());
                for range in ranges {
                    let rows = batch.rows(range.clone());
                    for (i, step) in range.enumerate() {
                        for s in 0..count {
                            let row = i * count + s;
                            let first = (s * 1_000_000 + step * 1000) as f32;
                            assert_eq!(rows.speeds[row], first);
                            assert_eq!(rows.inputs[row * INPUTS], first);
                            assert_eq!(rows.inputs[(row + 1) * INPUTS - 1], first + 4.0);
                            assert_eq!(rows.images[row * 6 + 5], first + 5.0);
                            assert_eq!(rows.targets[(row + 1) * TRAJECTORY - 1], first + 98.0);
                        }
                    }
                }
            }
        }
    }

    trait Steps {
        fn concat_steps(&self) -> Vec<usize>;
    }

    impl Steps for Vec<Range<usize>> {
        fn concat_steps(&self) -> Vec<usize> {
            self.iter().cloned().flatten().collect()
        }
    }

    #[test]
    fn odd_samples_are_refused_and_none_is_empty() {
        assert!(Batch::of(&[sample(0, 3), sample(1, 4)]).unwrap_err().message.contains("sample 1"));
        let blind = Sample { images: Vec::new(), ..sample(1, 3) };
        let rows = |samples: &[Sample]| Batch::of(samples).unwrap().rows(1..3).images.len();
        assert_eq!((rows(&[sample(0, 3)]), rows(std::slice::from_ref(&blind))), (12, 0));
        let error = Batch::of(&[sample(0, 3), blind]).unwrap_err();
        assert!(error.message.contains("sample 1 of a batch has other images"), "{error}");
        let none = Batch::of(&[]).unwrap();
        assert_eq!((none.samples(), none.steps(), none.chunks(4).count()), (0, 0, 0));
        assert!(none.rows(0..0).inputs.is_empty());
    }
}
