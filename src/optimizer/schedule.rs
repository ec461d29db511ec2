//! Learning rates over the steps.
//!
//! With `w` steps of warm-up, `n` in all, the highest rate `a` and the lowest `b`, at step s ≥ 0:
//!
//! ```text
//! s < w              a · (s + 1) / w
//! then, with t = (s − w) / (n − w), at most 1:
//! constant           a
//! linear             a (1 − t) + b t
//! cosine             b + (a − b) (1 + cos πt) / 2
//! inverse_sqrt       max(b, a √(max(w, 1) / (s + 1)))
//! wsd                a, and over the last `decay_steps` a linear or cosine way to b
//! step               a · factor^⌊(s − w) / every⌋, at least b
//! ```
//!
//! Cosine, linear, inverse square root and WSD follow Megatron-LM's `OptimizerParamScheduler`, the
//! first step of which is not zero either; `step` is PyTorch's `StepLR`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the rate goes from the highest to the lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Not at all.
    #[default]
    Constant,
    /// In a line.
    Linear,
    /// In half a wave.
    Cosine,
    /// With the root of the step.
    InverseSqrt,
    /// Warm-up, stable, decay.
    Wsd {
        /// Steps of the decay at the end.
        decay_steps: u64,
    },
    /// By a factor every so many steps.
    Step {
        /// Steps between two changes.
        every: u64,
        /// What the rate is multiplied with.
        factor: f64,
    },
}

/// The learning rate of every step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Keys")]
pub struct Schedule {
    /// The highest rate.
    pub lr: f64,
    /// The lowest rate.
    pub min_lr: f64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// How it decays.
    pub decay: Decay,
}

/// A schedule as it stands in a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    lr: f64,
    #[serde(default)]
    min_lr: f64,
    #[serde(default)]
    warmup_steps: u64,
    decay: Option<String>,
    decay_steps: Option<u64>,
    every: Option<u64>,
    factor: Option<f64>,
}

impl TryFrom<Keys> for Schedule {
    type Error = String;

    fn try_from(keys: Keys) -> std::result::Result<Self, String> {
        let Keys { lr, min_lr, warmup_steps, decay, decay_steps, every, factor } = keys;
        let name = decay.as_deref().unwrap_or("constant");
        let decay = match (name, decay_steps, every, factor) {
            ("constant", None, None, None) => Decay::Constant,
            ("linear", None, None, None) => Decay::Linear,
            ("cosine", None, None, None) => Decay::Cosine,
            ("inverse_sqrt", None, None, None) => Decay::InverseSqrt,
            ("wsd", Some(decay_steps), None, None) => Decay::Wsd { decay_steps },
            ("step", None, Some(every), Some(factor)) => Decay::Step { every, factor },
            _ => {
                return Err(format!(
                    "decay '{name}': constant, linear, cosine, inverse_sqrt, wsd with decay_steps, \
                     or step with every and factor is needed"
                ));
            }
        };
        Ok(Schedule { lr, min_lr, warmup_steps, decay })
    }
}

impl Schedule {
    /// One rate for all steps.
    pub fn constant(lr: f64) -> Self {
        Schedule { lr, min_lr: 0.0, warmup_steps: 0, decay: Decay::Constant }
    }

    /// An error that names the first value that makes no sense.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::input(format!("schedule: {what}")));
        if !(self.lr.is_finite() && self.lr >= 0.0) {
            return wrong(format!("lr is {}; a finite number from 0 is needed", self.lr));
        }
        if !(0.0..=self.lr).contains(&self.min_lr) {
            return wrong(format!("min_lr is {}; from 0 to lr is needed", self.min_lr));
        }
        match self.decay {
            Decay::Step { every: 0, .. } => wrong("every is 0; at least 1 is needed".into()),
            Decay::Step { factor, .. } if !(factor.is_finite() && factor > 0.0) => {
                wrong(format!("factor is {factor}; a finite number above 0 is needed"))
            }
            _ => Ok(()),
        }
    }

    /// The rate of step `s`, from 0, of `n`.
    pub fn at(&self, s: u64, n: u64) -> f64 {
        let Schedule { lr: a, min_lr: b, warmup_steps: w, decay } = *self;
        if s < w {
            return a * (s + 1) as f64 / w as f64;
        }
        let passed = |from: u64, to: u64| {
            let length = to.saturating_sub(from).max(1) as f64;
            (s.saturating_sub(from) as f64 / length).min(1.0)
        };
        let t = passed(w, n);
        match decay {
            Decay::Constant => a,
            Decay::Linear => a * (1.0 - t) + b * t,
            Decay::Cosine => b + (a - b) * (1.0 + (std::f64::consts::PI * t).cos()) / 2.0,
            Decay::InverseSqrt => (a * (w.max(1) as f64 / (s + 1) as f64).sqrt()).max(b),
            Decay::Wsd { decay_steps } => {
                let from = n.saturating_sub(decay_steps).max(w);
                let t = passed(from, n);
                a * (1.0 - t) + b * t
            }
            Decay::Step { every, factor } => {
                let times = (s - w) / every.max(1);
                (a * factor.powi(times.min(i32::MAX as u64) as i32)).max(b)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay) -> Schedule {
        Schedule { lr: 1.0, min_lr: 0.1, warmup_steps: 4, decay }
    }

    #[test]
    fn borders_are_where_they_should_be() {
        let every = 8;
        for decay in [
            Decay::Constant,
            Decay::Linear,
            Decay::Cosine,
            Decay::InverseSqrt,
            Decay::Wsd { decay_steps: 5 },
            Decay::Step { every, factor: 0.5 },
        ] {
            let s = schedule(decay);
            assert_eq!(s.validate(), Ok(()));
            let warm: Vec<f64> = (0..4).map(|i| s.at(i, 24)).collect();
            assert_eq!(warm, [0.25, 0.5, 0.75, 1.0], "{decay:?}");
            assert!((4..40).all(|i| s.at(i, 24) <= s.at(i - 1, 24)), "{decay:?} never rises");
            assert!((4..1000).all(|i| (0.1..=1.0).contains(&s.at(i, 24))), "{decay:?}");
        }
        let close = |a: f64, b: f64| (a - b).abs() < 1e-15;
        let (linear, cosine) = (schedule(Decay::Linear), schedule(Decay::Cosine));
        assert!(close(linear.at(14, 24), 0.55) && close(linear.at(24, 24), 0.1));
        assert!(close(cosine.at(14, 24), 0.55) && close(cosine.at(24, 24), 0.1));
        assert!(close(cosine.at(4, 24), 1.0) && close(cosine.at(99, 24), 0.1));
        let root = schedule(Decay::InverseSqrt);
        assert!(close(root.at(15, 24), 0.5) && close(root.at(3, 24), 1.0));
        let wsd = schedule(Decay::Wsd { decay_steps: 5 });
        assert!(close(wsd.at(19, 24), 1.0) && close(wsd.at(24, 24), 0.1));
        let step = schedule(Decay::Step { every, factor: 0.5 });
        let rates = [step.at(11, 99), step.at(12, 99), step.at(20, 99), step.at(28, 99)];
        assert_eq!(rates, [1.0, 0.5, 0.25, 0.125]);
    }

    #[test]
    fn a_schedule_without_steps_is_defined_and_nonsense_is_named() {
        let none = Schedule { warmup_steps: 0, ..schedule(Decay::Cosine) };
        assert_eq!((none.at(0, 0), none.at(0, 1)), (1.0, 1.0));
        let wrong = [
            Schedule { lr: f64::NAN, ..none },
            Schedule { lr: -1.0, ..none },
            Schedule { min_lr: 2.0, ..none },
            Schedule { decay: Decay::Step { every: 0, factor: 0.5 }, ..none },
            Schedule { decay: Decay::Step { every: 1, factor: 0.0 }, ..none },
        ];
        assert!(wrong.iter().all(|schedule| schedule.validate().is_err()));
    }
}
