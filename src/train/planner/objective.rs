//! From the outputs of a network to loss, gradient and metrics.
//!
//! A row of outputs is one sample at one step: M logits, then M times [`TRAJECTORY`] numbers that
//! the head turns into trajectories, as in the original. Only the best hypothesis gets a gradient,
//! so where end points decide which it is, the head is applied to M end points and one trajectory
//! instead of M trajectories: with 5 hypotheses a quarter of the exponentials.
//! Rows are independent. Cost: about 1 µs a row, and one pass over the gradients, mostly zeros.

use super::batch::Rows;
use super::head::{Head, constant_velocity};
use super::labels::{AXES, POINTS, TRAJECTORY};
use super::loss::{LossOptions, LossSums, Rule, StepLoss, loss_of_best, step_loss};
use super::metrics::Metrics;

/// What a planner is trained for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Objective {
    /// Hypotheses.
    pub modes: usize,
    /// How numbers become trajectories.
    pub head: Head,
    /// How hypotheses are judged.
    pub loss: LossOptions,
    /// When the points of a trajectory are, in seconds.
    pub times: [f64; POINTS],
}

impl Objective {
    /// Outputs of the network for one row.
    pub fn outputs(&self) -> usize {
        self.modes * (1 + TRAJECTORY)
    }

    /// Adds the loss of all rows to `sums`, and replaces `gradients` by its gradient with respect
    /// to the outputs, times `weight`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn learn(
        &self,
        outputs: &[f32],
        rows: Rows<'_>,
        weight: f32,
        gradients: &mut [f32],
        sums: &mut LossSums,
    ) {
        let size = self.outputs();
        assert!(outputs.len() == rows.speeds.len() * size && gradients.len() == outputs.len());
        let mut scratch = vec![0.0; self.modes * TRAJECTORY];
        let gradients = gradients.chunks_exact_mut(size);
        let targets = rows.targets.chunks_exact(TRAJECTORY);
        let given = outputs.chunks_exact(size).zip(targets).zip(rows.speeds);
        for (((row, truth), &speed), gradient) in given.zip(gradients) {
            let (logits, numbers) = row.split_at(self.modes);
            let (of_logits, of_numbers) = gradient.split_at_mut(self.modes);
            let straight = constant_velocity(speed, &self.times);
            let of = (of_logits, of_numbers);
            let step = if self.loss.rule == Rule::Trajectory {
                self.row_by_all((logits, numbers), truth, &straight, weight, of, &mut scratch)
            } else {
                self.row_by_ends((logits, numbers), truth, &straight, weight, of)
            };
            sums.add(step);
        }
    }

    /// The loss of a row where all trajectories are needed for the choice.
    fn row_by_all(
        &self,
        (logits, numbers): (&[f32], &[f32]),
        truth: &[f32],
        straight: &[f32],
        weight: f32,
        (of_logits, of_numbers): (&mut [f32], &mut [f32]),
        scratch: &mut [f32],
    ) -> StepLoss {
        scratch.copy_from_slice(numbers);
        self.head.forward(scratch, straight);
        let of = (of_logits, &mut *of_numbers);
        let step = step_loss(self.loss, (logits, scratch), truth, weight, of);
        let best = step.best * TRAJECTORY..(step.best + 1) * TRAJECTORY;
        self.head.backward(&scratch[best.clone()], &mut of_numbers[best]);
        step
    }

    /// The loss of a row where end points decide.
    fn row_by_ends(
        &self,
        (logits, numbers): (&[f32], &[f32]),
        truth: &[f32],
        straight: &[f32],
        weight: f32,
        (of_logits, of_numbers): (&mut [f32], &mut [f32]),
    ) -> StepLoss {
        let end = TRAJECTORY - AXES;
        let hypotheses = numbers.chunks_exact(TRAJECTORY);
        let mut ends: Vec<f32> = hypotheses.flat_map(|h| &h[end..]).copied().collect();
        self.head.forward(&mut ends, &straight[end..]);
        let best = self.loss.rule.best(&ends, &truth[end..]);
        let range = best * TRAJECTORY..(best + 1) * TRAJECTORY;
        let mut hypothesis = [0.0; TRAJECTORY];
        hypothesis.copy_from_slice(&numbers[range.clone()]);
        self.head.forward(&mut hypothesis, straight);
        of_numbers.fill(0.0);
        let of_hypothesis = &mut of_numbers[range];
        let of = (of_logits, &mut *of_hypothesis);
        let step = loss_of_best(self.loss, best, (logits, &hypothesis), truth, weight, of);
        self.head.backward(&hypothesis, of_hypothesis);
        step
    }

    /// Turns the numbers of all rows into trajectories and adds them to `metrics`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn judge(&self, outputs: &mut [f32], rows: Rows<'_>, metrics: &mut Metrics) {
        let size = self.outputs();
        assert_eq!(outputs.len(), rows.speeds.len() * size);
        let targets = rows.targets.chunks_exact(TRAJECTORY);
        for ((row, truth), &speed) in outputs.chunks_exact_mut(size).zip(targets).zip(rows.speeds) {
            let straight = constant_velocity(speed, &self.times);
            let (logits, numbers) = row.split_at_mut(self.modes);
            self.head.forward(numbers, &straight);
            metrics.add(logits, numbers, truth, &straight);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::batch::Batch;
    use super::super::labels::times;
    use super::super::synthetic;
    use super::super::windows::{Part, WindowOptions, Windows};
    use super::*;

    fn batch() -> Batch {
        let traces = Arc::new(synthetic::traces(3, 20.0, 1));
        let windows = Windows::new(traces, Part::All, WindowOptions::default()).unwrap();
        Batch::of(&[windows.window(0), windows.window(1), windows.window(2)]).unwrap()
    }

    fn objective(modes: usize, head: Head, rule: Rule) -> Objective {
        Objective { modes, head, loss: LossOptions { rule, alpha: 0.7 }, times: times(5.0) }
    }

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.731).sin() * 2.0).collect()
    }

    #[test]
    fn the_short_cut_gives_the_bits_of_the_long_way() {
        let batch = batch();
        let rows = batch.rows(3..6);
        for modes in [1, 2, 5] {
            for head in [Head::Original, Head::Linear, Head::Residual] {
                for rule in [Rule::Angle, Rule::EndPoint, Rule::Trajectory] {
                    let objective = objective(modes, head, rule);
                    let outputs = numbers(9 * objective.outputs());
                    let mut found = vec![7.0; outputs.len()];
                    let mut sums = LossSums::new(modes, objective.loss);
                    objective.learn(&outputs, rows, 0.5, &mut found, &mut sums);
                    let mut wanted = vec![0.0; outputs.len()];
                    let mut long = LossSums::new(modes, objective.loss);
                    for row in 0..9 {
                        let of = row * objective.outputs()..(row + 1) * objective.outputs();
                        let (logits, numbers) = outputs[of.clone()].split_at(modes);
                        let (of_logits, of_numbers) = wanted[of].split_at_mut(modes);
                        let mut trajectories = numbers.to_vec();
                        let speed = rows.speeds[row];
                        head.forward(&mut trajectories, &constant_velocity(speed, &times(5.0)));
                        long.add(step_loss(
                            objective.loss,
                            (logits, &trajectories),
                            &rows.targets[row * TRAJECTORY..(row + 1) * TRAJECTORY],
                            0.5,
                            (of_logits, of_numbers),
                        ));
                        head.backward(&trajectories, of_numbers);
                    }
                    assert_eq!(found, wanted, "{modes} {head:?} {rule:?}");
                    assert_eq!(sums, long);
                }
            }
        }
    }

    #[test]
    fn gradients_are_slopes_of_the_mean_loss() {
        let batch = batch();
        let rows = batch.rows(10..11);
        let objective = objective(3, Head::Residual, Rule::EndPoint);
        let mut outputs = numbers(3 * objective.outputs());
        let loss = |outputs: &[f32], gradients: &mut [f32]| {
            let mut sums = LossSums::new(3, objective.loss);
            objective.learn(outputs, rows, 1.0 / 3.0, gradients, &mut sums);
            sums.mean().unwrap()
        };
        let mut gradients = vec![0.0; outputs.len()];
        loss(&outputs, &mut gradients);
        let mut other = vec![0.0; outputs.len()];
        let mut moved = 0;
        for i in 0..outputs.len() {
            let at = outputs[i];
            let step = 1.0 / 128.0;
            outputs[i] = at + step;
            let up = loss(&outputs, &mut other);
            outputs[i] = at - step;
            let down = loss(&outputs, &mut other);
            outputs[i] = at;
            let slope = (up - down) / f64::from(2.0 * step);
            assert!((slope - f64::from(gradients[i])).abs() < 2e-4, "{i}: {slope}");
            moved += usize::from(gradients[i] != 0.0);
        }
        assert!(moved > 3 * 60 && moved < 3 * 110, "{moved}");
    }

    #[test]
    fn zeros_of_the_residual_are_judged_as_constant_velocity() {
        let batch = batch();
        let objective = objective(2, Head::Residual, Rule::Angle);
        let mut metrics = Metrics::new(2);
        for chunk in batch.chunks(16) {
            let rows = batch.rows(chunk);
            let mut outputs = vec![0.0; rows.speeds.len() * objective.outputs()];
            objective.judge(&mut outputs, rows, &mut metrics);
        }
        let report = metrics.report();
        assert_eq!(report.steps, 120);
        assert_eq!(report.model, report.constant_velocity);
        assert!(report.model.fde.unwrap() > 0.1);
        assert_eq!(report.mode_use, [120, 0]);
    }
}
