//! The learning rate of each step: linear warm-up, then one of six decays.
//!
//! The formulas are Megatron-LM's (`OptimizerParamScheduler.get_lr`). With s steps done, W of
//! warm-up, D to the end of the decay, x = (s − W)/(D − W) and y = (s − (D − A))/A for a last part
//! of A steps:
//!
//! | decay | s ≤ W | then, up to D | after D |
//! | --- | --- | --- | --- |
//! | all | start + (max − start)·s/W | | |
//! | `constant` | | max | max |
//! | `linear` | | min + (max − min)·(1 − x) | min |
//! | `cosine` | | min + (max − min)·½(1 + cos πx) | min |
//! | `inverse-square-root` | | max(min, max·√(W or 1)/√s) | min, where D is given |
//! | `wsd` (warm-up, stable, decay) | | max, then min + (max − min)·shape(y) | min |
//! | `step` | | max(min, max·gamma^⌊(s − W)/every⌋) | min, where D is given |
//!
//! The shapes of `wsd`: linear 1 − y, cosine ½(1 + cos πy), exponential 2·½^y − 1, minus-sqrt
//! 1 − √y. Hugging Face transformers' linear and cosine schedules are these with min = start = 0.
//! `step` after warm-up is PyTorch's `StepLR`.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the learning rate moves; the highest comes from the rule.
///
/// ```
/// use rankwise::optimizer::schedule::Schedule;
///
/// let text = "warmup_steps = 10\ndecay_steps = 110\nmin = 0.1\ndecay = 'cosine'";
/// let schedule: Schedule = toml::from_str(text).unwrap();
/// schedule.check(1.0).unwrap();
/// let lr = |done| schedule.lr(1.0, done);
/// assert_eq!([lr(0), lr(5), lr(10), lr(60), lr(110), lr(999)], [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Steps in which the rate grows from `start` to its highest.
    pub warmup_steps: u64,
    /// The rate of the first step of the warm-up.
    pub start: f64,
    /// The lowest rate after the warm-up.
    pub min: f64,
    /// The step, counted from the beginning, from which on the rate is `min`.
    pub decay_steps: Option<u64>,
    /// The way down.
    pub decay: Decay,
}

/// The way down from the highest learning rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Decay {
    /// None.
    #[default]
    Constant,
    /// A straight line.
    Linear,
    /// Half a period of a cosine.
    Cosine,
    /// As the inverse root of the step.
    InverseSquareRoot,
    /// Constant but for the last part.
    Wsd {
        /// Steps of the last part.
        anneal_steps: u64,
        /// The way down in the last part.
        #[serde(default)]
        shape: Shape,
    },
    /// By a factor every so many steps.
    Step {
        /// Steps between two changes.
        every: u64,
        /// What each change multiplies the rate with: in (0, 1].
        gamma: f64,
    },
}

/// The way down in the last part of [`Decay::Wsd`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// 1 − y.
    Linear,
    /// ½(1 + cos πy).
    Cosine,
    /// 2·½^y − 1.
    #[default]
    Exponential,
    /// 1 − √y.
    MinusSqrt,
}

impl Shape {
    fn at(self, y: f64) -> f64 {
        match self {
            Shape::Linear => 1.0 - y,
            Shape::Cosine => cosine(y),
            Shape::Exponential => 2.0 * 0.5f64.powf(y) - 1.0,
            Shape::MinusSqrt => 1.0 - y.sqrt(),
        }
    }
}

fn cosine(x: f64) -> f64 {
    0.5 * ((PI * x).cos() + 1.0)
}

impl Schedule {
    /// The learning rate of the step that follows `done` steps.
    pub fn lr(&self, max: f64, done: u64) -> f64 {
        let warmup = self.warmup_steps;
        if warmup > 0 && done <= warmup {
            return self.start + (max - self.start) * done as f64 / warmup as f64;
        }
        if self.decay == Decay::Constant {
            return max;
        }
        if self.decay_steps.is_some_and(|end| done > end) {
            return self.min;
        }
        let end = self.decay_steps.unwrap_or(u64::MAX);
        let after = done - warmup;
        let fraction = after as f64 / end.saturating_sub(warmup).max(1) as f64;
        let factor = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - fraction,
            Decay::Cosine => cosine(fraction),
            Decay::InverseSquareRoot => {
                let rate = max * (warmup.max(1) as f64).sqrt() / (done.max(1) as f64).sqrt();
                return rate.max(self.min);
            }
            Decay::Wsd { anneal_steps, shape } => match done.checked_sub(end - anneal_steps) {
                None | Some(0) => 1.0,
                Some(steps) => shape.at(steps as f64 / anneal_steps as f64),
            },
            Decay::Step { every, gamma } => {
                return (max * gamma.powf((after / every) as f64)).max(self.min);
            }
        };
        self.min + factor * (max - self.min)
    }

    /// Refuses what makes no sense with this highest rate. [`Schedule::lr`] relies on it.
    pub fn check(&self, max: f64) -> Result<()> {
        let refuse = |what: String| Err(Error::input(format!("schedule: {what}")));
        for (name, rate) in [("start", self.start), ("min", self.min)] {
            if !(0.0..=max).contains(&rate) {
                return refuse(format!("{name} is {rate}; set it from 0 to the lr, {max}"));
            }
        }
        let needs_end = matches!(self.decay, Decay::Linear | Decay::Cosine | Decay::Wsd { .. });
        match self.decay_steps {
            None if needs_end => {
                return refuse("this decay needs its end; set decay_steps".into());
            }
            Some(end) if end <= self.warmup_steps => {
                return refuse(format!(
                    "decay_steps is {end}; set it above warmup_steps, {}",
                    self.warmup_steps
                ));
            }
            _ => {}
        }
        let decaying = self.decay_steps.unwrap_or(0).saturating_sub(self.warmup_steps);
        match self.decay {
            Decay::Wsd { anneal_steps, .. } if !(1..=decaying).contains(&anneal_steps) => {
                refuse(format!("anneal_steps is {anneal_steps}; set it from 1 to {decaying}"))
            }
            Decay::Step { every: 0, .. } => refuse("every is 0; set it to 1 or more".into()),
            Decay::Step { gamma, .. } if !(gamma > 0.0 && gamma <= 1.0) => {
                refuse(format!("gamma is {gamma}; set it in (0, 1]"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay) -> Schedule {
        let base = Schedule { warmup_steps: 4, start: 0.2, min: 0.1, ..Schedule::default() };
        let schedule = Schedule { decay_steps: Some(20), decay, ..base };
        schedule.check(1.0).unwrap();
        schedule
    }

    /// (decay, [lr after 4, 5, 12, 20 and 21 steps] with max 1); all warm up alike.
    fn table() -> Vec<(Decay, [f64; 5])> {
        let wsd = |shape| Decay::Wsd { anneal_steps: 8, shape };
        let quarter = |shape: Shape| 0.1 + 0.9 * shape.at(0.25);
        let root = |s: f64| 2.0 / s.sqrt();
        let mut table = vec![
            (Decay::Constant, [1.0, 1.0, 1.0, 1.0, 1.0]),
            (Decay::Linear, [1.0, 0.1 + 0.9 * 15.0 / 16.0, 0.55, 0.1, 0.1]),
            (Decay::Cosine, [1.0, 0.1 + 0.45 * (1.0 + (PI / 16.0).cos()), 0.55, 0.1, 0.1]),
            (Decay::InverseSquareRoot, [1.0, root(5.0), root(12.0), root(20.0), 0.1]),
            (Decay::Step { every: 8, gamma: 0.5 }, [1.0, 1.0, 0.5, 0.25, 0.1]),
            (Decay::Step { every: 8, gamma: 0.2 }, [1.0, 1.0, 0.2, 0.1, 0.1]),
        ];
        for shape in [Shape::Linear, Shape::Cosine, Shape::Exponential, Shape::MinusSqrt] {
            table.push((wsd(shape), [1.0, 1.0, 1.0, 0.1, 0.1]));
            let at_14 = schedule(wsd(shape)).lr(1.0, 14);
            assert!((at_14 - quarter(shape)).abs() < 1e-15, "{shape:?}");
        }
        table
    }

    #[test]
    fn borders_of_every_decay() {
        for (decay, expected) in table() {
            let schedule = schedule(decay);
            for (done, expected) in [0, 2, 3].into_iter().zip([0.2, 0.6, 0.8]) {
                assert!((schedule.lr(1.0, done) - expected).abs() < 1e-15, "warm-up at {done}");
            }
            for (done, expected) in [4, 5, 12, 20, 21].into_iter().zip(expected) {
                let lr = schedule.lr(1.0, done);
                assert!((lr - expected).abs() < 1e-15, "{:?} at {done}: {lr}", schedule.decay);
            }
            assert_eq!(schedule.lr(1.0, u64::MAX), schedule.lr(1.0, 21));
        }
    }

    #[test]
    fn without_warm_up_or_end() {
        let none = Schedule::default();
        assert_eq!([none.lr(3.0, 0), none.lr(3.0, u64::MAX)], [3.0, 3.0]);
        let root = Schedule { decay: Decay::InverseSquareRoot, ..none.clone() };
        assert_eq!([root.lr(3.0, 0), root.lr(3.0, 1), root.lr(3.0, 9)], [3.0, 3.0, 1.0]);
        let step = Schedule { decay: Decay::Step { every: 3, gamma: 0.5 }, ..none.clone() };
        assert_eq!([step.lr(1.0, 2), step.lr(1.0, 3), step.lr(1.0, 6)], [1.0, 0.5, 0.25]);
        let line = Schedule { decay: Decay::Linear, decay_steps: Some(4), ..none };
        assert_eq!([line.lr(1.0, 0), line.lr(1.0, 1), line.lr(1.0, 4)], [1.0, 0.75, 0.0]);
    }

    #[test]
    fn wrong_schedules_are_named() {
        let good = "warmup_steps = 4\ndecay_steps = 20\n";
        for (text, message) in [
            ("decay = 'cosine'", "set decay_steps"),
            ("warmup_steps = 4\ndecay_steps = 4\ndecay = 'linear'", "above warmup_steps, 4"),
            ("min = 2.0", "min is 2; set it from 0 to the lr, 1"),
            ("start = -1.0", "start is -1"),
            (&format!("{good}decay = {{ wsd = {{ anneal_steps = 17 }} }}"), "from 1 to 16"),
            (&format!("{good}decay = {{ wsd = {{ anneal_steps = 0 }} }}"), "from 1 to 16"),
            ("decay = { step = { every = 0, gamma = 0.5 } }", "every is 0"),
            ("decay = { step = { every = 1, gamma = 1.5 } }", "gamma is 1.5"),
        ] {
            let schedule: Schedule = toml::from_str(text).unwrap();
            let error = schedule.check(1.0).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(toml::from_str::<Schedule>("decay = 'cosin'").is_err());
        assert!(toml::from_str::<Schedule>("warmup = 1").is_err());
    }
}
