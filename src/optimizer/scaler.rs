//! Loss scaling: gradients of 16-bit parameters are computed of a scaled loss, so that small ones
//! do not vanish.
//!
//! The dynamic scale is Megatron-LM's (`grad_scaler.py`): after `hysteresis` steps with a gradient
//! that is not finite the scale shrinks, after `window` good ones in a row it grows. As there,
//! hysteresis is filled up again only when the scale grows: after it is used up, every bad step
//! shrinks the scale.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the loss is scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum LossScale {
    /// Not at all.
    #[default]
    None,
    /// By one factor.
    Constant {
        /// The factor.
        scale: f64,
    },
    /// By a factor that follows the gradients.
    Dynamic(Dynamic),
}

/// The rule of a dynamic scale; the defaults are Megatron-LM's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dynamic {
    /// The scale of the first step.
    pub initial: f64,
    /// The lowest scale.
    pub min: f64,
    /// Good steps in a row after which the scale grows.
    pub window: u32,
    /// Bad steps before it shrinks.
    pub hysteresis: i64,
    /// What it grows by.
    pub growth: f64,
    /// What it shrinks by.
    pub backoff: f64,
}

impl Default for Dynamic {
    fn default() -> Self {
        Dynamic {
            initial: 4_294_967_296.0,
            min: 1.0,
            window: 1000,
            hysteresis: 2,
            growth: 2.0,
            backoff: 0.5,
        }
    }
}

/// The scale as it is now. All of it is saved with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    rule: LossScale,
    scale: f64,
    good: u32,
    hysteresis: i64,
}

impl Scaler {
    /// The scale of the first step.
    pub fn new(rule: LossScale) -> Result<Self> {
        let wrong = |what: &str| Err(Error::input(format!("loss scale: {what}")));
        let (scale, hysteresis) = match rule {
            LossScale::None => (1.0, 0),
            LossScale::Constant { scale } => (scale, 0),
            LossScale::Dynamic(d) => {
                if !(d.growth >= 1.0 && d.backoff > 0.0 && d.backoff < 1.0) {
                    return wrong("growth from 1 and backoff between 0 and 1 are needed");
                }
                if !(d.min > 0.0 && d.min <= d.initial) || d.window == 0 || d.hysteresis < 1 {
                    return wrong("0 < min <= initial, window and hysteresis from 1 are needed");
                }
                (d.initial, d.hysteresis)
            }
        };
        if !(scale.is_finite() && scale > 0.0) {
            return wrong("a finite number above 0 is needed");
        }
        Ok(Scaler { rule, scale, good: 0, hysteresis })
    }

    /// What the loss is multiplied with.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Learns whether the gradient of the step was finite.
    pub fn update(&mut self, finite: bool) {
        let LossScale::Dynamic(rule) = self.rule else { return };
        if !finite {
            self.good = 0;
            self.hysteresis -= 1;
            if self.hysteresis <= 0 {
                self.scale = (self.scale * rule.backoff).max(rule.min);
            }
            return;
        }
        self.good += 1;
        if self.good == rule.window {
            self.good = 0;
            self.hysteresis = rule.hysteresis;
            self.scale *= rule.growth;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scale after each step; `x` is a bad one.
    fn scales(rule: Dynamic, steps: &str) -> Vec<f64> {
        let mut scaler = Scaler::new(LossScale::Dynamic(rule)).unwrap();
        let after = |step: char| {
            scaler.update(step == '.');
            scaler.scale()
        };
        steps.chars().map(after).collect()
    }

    #[test]
    fn the_hysteresis_table_of_megatron() {
        let rule = Dynamic { initial: 16.0, window: 3, ..Dynamic::default() };
        // The first bad step is forgiven, the second and all later ones are not.
        assert_eq!(scales(rule, "xx.x..x"), [16.0, 8.0, 8.0, 4.0, 4.0, 4.0, 2.0]);
        // Growth fills the hysteresis up again; a bad step starts the count of good ones anew.
        assert_eq!(
            scales(rule, "x...x..x...x"),
            [16.0, 16.0, 16.0, 32.0, 32.0, 32.0, 32.0, 16.0, 16.0, 16.0, 32.0, 32.0]
        );
        assert_eq!(scales(Dynamic { min: 4.0, ..rule }, "xxxx"), [16.0, 8.0, 4.0, 4.0]);
    }

    #[test]
    fn a_constant_scale_stays_and_nonsense_is_refused() {
        let mut constant = Scaler::new(LossScale::Constant { scale: 128.0 }).unwrap();
        constant.update(false);
        assert_eq!(constant.scale(), 128.0);
        assert_eq!(Scaler::new(LossScale::None).unwrap().scale(), 1.0);
        let d = Dynamic::default();
        for wrong in [
            LossScale::Constant { scale: 0.0 },
            LossScale::Constant { scale: f64::INFINITY },
            LossScale::Dynamic(Dynamic { backoff: 1.5, ..d }),
            LossScale::Dynamic(Dynamic { growth: 0.5, ..d }),
            LossScale::Dynamic(Dynamic { min: 0.0, ..d }),
            LossScale::Dynamic(Dynamic { hysteresis: 0, ..d }),
        ] {
            assert!(Scaler::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
