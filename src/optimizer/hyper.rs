//! The hyper-parameters of the rules, and the scalars of one step.
//!
//! Scalars are computed in f64 and rounded to f32 once, as PyTorch's fused kernels do.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::reduce::step::{AdamScalars, LionScalars, Scalars, SgdScalars};

/// A rule and its hyper-parameters. Names and defaults are PyTorch's; Lion's are its paper's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "lowercase", deny_unknown_fields)]
pub enum Rule {
    /// AdamW (Loshchilov and Hutter 2019): decay apart from the gradient.
    AdamW {
        /// β₁ and β₂.
        #[serde(default = "adam_betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment.
        #[serde(default = "epsilon")]
        eps: f64,
        /// Decay of the parameters a step, times the learning rate.
        #[serde(default = "adamw_decay")]
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba 2015): decay is added to the gradient.
    Adam {
        /// β₁ and β₂.
        #[serde(default = "adam_betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment.
        #[serde(default = "epsilon")]
        eps: f64,
        /// What times the parameter is added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Stochastic gradient descent.
    Sgd {
        /// The memory of the buffer.
        #[serde(default)]
        momentum: f64,
        /// How much of the gradient stays out of the buffer.
        #[serde(default)]
        dampening: f64,
        /// Whether to look ahead by one step of the buffer.
        #[serde(default)]
        nesterov: bool,
        /// What times the parameter is added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Lion (Chen et al. 2023): the sign of an interpolated moment.
    Lion {
        /// β₁ and β₂.
        #[serde(default = "lion_betas")]
        betas: [f64; 2],
        /// Decay of the parameters a step, times the learning rate.
        #[serde(default)]
        weight_decay: f64,
    },
}

fn adam_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn lion_betas() -> [f64; 2] {
    [0.9, 0.99]
}

fn epsilon() -> f64 {
    1e-8
}

fn adamw_decay() -> f64 {
    0.01
}

impl Default for Rule {
    fn default() -> Self {
        Rule::AdamW { betas: adam_betas(), eps: epsilon(), weight_decay: adamw_decay() }
    }
}

impl Rule {
    /// How many moments the rule keeps for each parameter.
    pub fn moments(&self) -> usize {
        match *self {
            Rule::AdamW { .. } | Rule::Adam { .. } => 2,
            Rule::Sgd { momentum, .. } => usize::from(momentum != 0.0),
            Rule::Lion { .. } => 1,
        }
    }

    /// An error that names the first value that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let inside = |name: &str, x: f64, range: std::ops::Range<f64>| {
            if range.contains(&x) {
                return Ok(());
            }
            let (from, to) = (range.start, range.end);
            Err(Error::input(format!(
                "optimizer: {name} is {x}; from {from} to below {to} is needed"
            )))
        };
        let positive = 0.0..f64::INFINITY;
        let beta = |betas: [f64; 2]| {
            inside("betas[0]", betas[0], 0.0..1.0)?;
            inside("betas[1]", betas[1], 0.0..1.0)
        };
        match *self {
            Rule::AdamW { betas, eps, weight_decay } | Rule::Adam { betas, eps, weight_decay } => {
                beta(betas)?;
                inside("eps", eps, positive.clone())?;
                inside("weight_decay", weight_decay, positive)
            }
            Rule::Sgd { momentum, dampening, nesterov, weight_decay } => {
                inside("momentum", momentum, positive.clone())?;
                inside("weight_decay", weight_decay, positive)?;
                if nesterov && (momentum == 0.0 || dampening != 0.0) {
                    return Err(Error::input(
                        "optimizer: nesterov needs a momentum above 0 and no dampening",
                    ));
                }
                inside("dampening", dampening, f64::NEG_INFINITY..f64::INFINITY)
            }
            Rule::Lion { betas, weight_decay } => {
                beta(betas)?;
                inside("weight_decay", weight_decay, positive)
            }
        }
    }

    /// The scalars of step `t`, from 1, at a learning rate; `decay` multiplies the weight decay.
    pub fn scalars(&self, t: u64, lr: f64, decay: f64) -> Scalars {
        let power = |beta: f64| beta.powi(t.min(i32::MAX as u64) as i32);
        let adam = |betas: [f64; 2], eps: f64, keep: f64, l2: f64| {
            let [b1, b2] = betas;
            Scalars::Adam(AdamScalars {
                keep: keep as f32,
                l2: l2 as f32,
                beta1: b1 as f32,
                one_minus_beta1: (1.0 - b1) as f32,
                beta2: b2 as f32,
                one_minus_beta2: (1.0 - b2) as f32,
                rate: (lr / (1.0 - power(b1))) as f32,
                correction2_sqrt: (1.0 - power(b2)).sqrt() as f32,
                epsilon: eps as f32,
            })
        };
        match *self {
            Rule::AdamW { betas, eps, weight_decay } => {
                adam(betas, eps, 1.0 - lr * (weight_decay * decay), 0.0)
            }
            Rule::Adam { betas, eps, weight_decay } => adam(betas, eps, 1.0, weight_decay * decay),
            Rule::Sgd { momentum, dampening, nesterov, weight_decay } => Scalars::Sgd(SgdScalars {
                lr: lr as f32,
                decay: (weight_decay * decay) as f32,
                momentum: momentum as f32,
                one_minus_dampening: (1.0 - dampening) as f32,
                nesterov,
                first: t == 1,
            }),
            Rule::Lion { betas: [b1, b2], weight_decay } => Scalars::Lion(LionScalars {
                keep: (1.0 - lr * (weight_decay * decay)) as f32,
                lr: lr as f32,
                beta1: b1 as f32,
                one_minus_beta1: (1.0 - b1) as f32,
                beta2: b2 as f32,
                one_minus_beta2: (1.0 - b2) as f32,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        let adamw = |betas, eps, weight_decay| Rule::AdamW { betas, eps, weight_decay };
        let sgd = |momentum, dampening, nesterov| Rule::Sgd {
            momentum,
            dampening,
            nesterov,
            weight_decay: 0.0,
        };
        assert_eq!(Rule::default().validate(), Ok(()));
        assert_eq!(sgd(0.9, 0.0, true).validate(), Ok(()));
        for (rule, name) in [
            (adamw([1.0, 0.9], 1e-8, 0.0), "betas[0] is 1;"),
            (adamw([0.9, -0.1], 1e-8, 0.0), "betas[1] is -0.1;"),
            (adamw([0.9, 0.9], -1.0, 0.0), "eps is -1;"),
            (adamw([0.9, 0.9], 1e-8, f64::NAN), "weight_decay is NaN;"),
            (sgd(0.0, 0.0, true), "nesterov needs"),
            (sgd(0.9, 0.1, true), "nesterov needs"),
            (sgd(-1.0, 0.0, false), "momentum is -1;"),
        ] {
            let error = rule.validate().unwrap_err();
            assert!(error.message.contains(name), "{error}");
        }
    }

    #[test]
    fn the_first_step_of_adam_has_no_memory() {
        let Scalars::Adam(s) = Rule::default().scalars(1, 1e-3, 2.0) else { panic!("Adam") };
        assert_eq!(s.rate, (1e-3f64 / (1.0 - 0.9)) as f32);
        assert_eq!(s.correction2_sqrt, (1.0f64 - 0.999).sqrt() as f32);
        assert_eq!(s.keep, (1.0f64 - 1e-3 * 0.02) as f32);
    }
}
