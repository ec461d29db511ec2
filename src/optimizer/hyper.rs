//! The rules and their hyper-parameters, as a configuration holds them, and what one step makes of
//! them: the scalars that `reduce::step` multiplies with.
//!
//! Scalars are computed in f64 and rounded to f32 once, as PyTorch's fused CPU kernels do; that is
//! a part of giving the same bits.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::reduce::step::{AdamScalars, LionScalars, Scalars, SgdScalars};

/// A rule with its hyper-parameters.
///
/// ```
/// use rankwise::optimizer::hyper::Rule;
///
/// let text = r#"{ "name": "adamw", "lr": 6e-4, "beta2": 0.95, "weight_decay": 0.1 }"#;
/// let rule: Rule = serde_json::from_str(text).unwrap();
/// rule.check().unwrap();
/// assert_eq!((rule.lr(), rule.weight_decay(), rule.moments()), (6e-4, 0.1, 2));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Rule {
    /// Adam with decay of the parameter itself (Loshchilov and Hutter, 2019).
    AdamW(AdamW),
    /// Adam with decay added to the gradient (Kingma and Ba, 2015).
    Adam(Adam),
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// The sign of an averaged gradient (Chen et al., 2023).
    Lion(Lion),
}

/// Hyper-parameters of AdamW, with PyTorch's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// The learning rate, which a schedule may lower: above 0.
    pub lr: f64,
    /// The memory of the first moment: in [0, 1).
    pub beta1: f64,
    /// The memory of the second moment: in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment: 0 or more.
    pub epsilon: f64,
    /// Each step multiplies a parameter by 1 − lr·weight_decay: 0 or more.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

/// Hyper-parameters of Adam, with PyTorch's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    /// The learning rate, which a schedule may lower: above 0.
    pub lr: f64,
    /// The memory of the first moment: in [0, 1).
    pub beta1: f64,
    /// The memory of the second moment: in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment: 0 or more.
    pub epsilon: f64,
    /// This much of the parameter is added to its gradient: 0 or more.
    pub weight_decay: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { lr: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// Hyper-parameters of SGD, with PyTorch's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// The learning rate, which a schedule may lower: above 0.
    pub lr: f64,
    /// The memory of the momentum buffer: in [0, 1); 0 keeps none.
    pub momentum: f64,
    /// How much less than the whole gradient enters the buffer: in [0, 1].
    pub dampening: f64,
    /// Nesterov's momentum; needs momentum and no dampening.
    pub nesterov: bool,
    /// This much of the parameter is added to its gradient: 0 or more.
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd { lr: 1e-3, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

/// Hyper-parameters of Lion, with the defaults of its authors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lion {
    /// The learning rate, which a schedule may lower: above 0; a third to a tenth of AdamW's.
    pub lr: f64,
    /// The weight of the moment in the update: in [0, 1).
    pub beta1: f64,
    /// The memory of the moment: in [0, 1).
    pub beta2: f64,
    /// Each step multiplies a parameter by 1 − lr·weight_decay: 0 or more.
    pub weight_decay: f64,
}

impl Default for Lion {
    fn default() -> Self {
        Lion { lr: 1e-4, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 }
    }
}

impl Rule {
    /// The name in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Rule::AdamW(_) => "adamw",
            Rule::Adam(_) => "adam",
            Rule::Sgd(_) => "sgd",
            Rule::Lion(_) => "lion",
        }
    }

    /// The learning rate before any schedule or multiplier.
    pub fn lr(&self) -> f64 {
        match self {
            Rule::AdamW(h) => h.lr,
            Rule::Adam(h) => h.lr,
            Rule::Sgd(h) => h.lr,
            Rule::Lion(h) => h.lr,
        }
    }

    /// The weight decay before any multiplier.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Rule::AdamW(h) => h.weight_decay,
            Rule::Adam(h) => h.weight_decay,
            Rule::Sgd(h) => h.weight_decay,
            Rule::Lion(h) => h.weight_decay,
        }
    }

    /// How many moments an element keeps: 0, 1 or 2.
    pub fn moments(&self) -> usize {
        match self {
            Rule::AdamW(_) | Rule::Adam(_) => 2,
            Rule::Sgd(h) => usize::from(h.momentum != 0.0),
            Rule::Lion(_) => 1,
        }
    }

    /// Refuses hyper-parameters that make no sense.
    pub fn check(&self) -> Result<()> {
        let check = |name: &str, value: f64, allowed: bool, range: &str| match allowed {
            true => Ok(()),
            false => Err(Error::input(format!(
                "optimizer {}: {name} is {value}; set it {range}",
                self.name()
            ))),
        };
        let below_one = |name, x: f64| check(name, x, (0.0..1.0).contains(&x), "in [0, 1)");
        let size = |name, x: f64| check(name, x, x >= 0.0 && x.is_finite(), "to 0 or more");
        let lr = self.lr();
        check("lr", lr, lr > 0.0 && lr.is_finite(), "above 0")?;
        size("weight_decay", self.weight_decay())?;
        match self {
            Rule::AdamW(AdamW { beta1, beta2, epsilon, .. })
            | Rule::Adam(Adam { beta1, beta2, epsilon, .. }) => {
                below_one("beta1", *beta1)?;
                below_one("beta2", *beta2)?;
                size("epsilon", *epsilon)
            }
            Rule::Lion(h) => {
                below_one("beta1", h.beta1)?;
                below_one("beta2", h.beta2)
            }
            Rule::Sgd(h) => {
                below_one("momentum", h.momentum)?;
                check("dampening", h.dampening, (0.0..=1.0).contains(&h.dampening), "in [0, 1]")?;
                if h.nesterov && (h.momentum == 0.0 || h.dampening != 0.0) {
                    return Err(Error::input(
                        "optimizer sgd: nesterov needs momentum above 0 and dampening 0; set them \
                         or nesterov = false",
                    ));
                }
                Ok(())
            }
        }
    }

    /// The scalars of one step.
    ///
    /// `step` counts from 1; `lr` comes from the schedule and the group's multiplier, and so does
    /// `weight_decay`. A step that was skipped does not count.
    pub fn scalars(&self, lr: f64, weight_decay: f64, step: u64) -> Scalars {
        let keep = (1.0 - lr * weight_decay) as f32;
        match self {
            Rule::AdamW(h) => {
                let betas = (h.beta1, h.beta2);
                Scalars::Adam(AdamScalars { keep, ..adam(betas, h.epsilon, lr, step) })
            }
            Rule::Adam(h) => {
                let l2 = weight_decay as f32;
                Scalars::Adam(AdamScalars { l2, ..adam((h.beta1, h.beta2), h.epsilon, lr, step) })
            }
            Rule::Sgd(h) => Scalars::Sgd(SgdScalars {
                lr: lr as f32,
                decay: weight_decay as f32,
                momentum: h.momentum as f32,
                one_minus_dampening: (1.0 - h.dampening) as f32,
                nesterov: h.nesterov,
                first: step <= 1,
            }),
            Rule::Lion(h) => Scalars::Lion(LionScalars {
                keep,
                lr: lr as f32,
                beta1: h.beta1 as f32,
                one_minus_beta1: (1.0 - h.beta1) as f32,
                beta2: h.beta2 as f32,
                one_minus_beta2: (1.0 - h.beta2) as f32,
            }),
        }
    }
}

/// What Adam and AdamW share; without any decay.
fn adam((beta1, beta2): (f64, f64), epsilon: f64, lr: f64, step: u64) -> AdamScalars {
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    AdamScalars {
        keep: 1.0,
        l2: 0.0,
        beta1: beta1 as f32,
        one_minus_beta1: (1.0 - beta1) as f32,
        beta2: beta2 as f32,
        one_minus_beta2: (1.0 - beta2) as f32,
        rate: (lr / correction(beta1)) as f32,
        correction2_sqrt: correction(beta2).sqrt() as f32,
        epsilon: epsilon as f32,
    }
}

/// What gradients are multiplied with in the step: the inverse of the loss scale, and what brings
/// their norm down to `clip`, as Megatron-LM: clip / (norm + 10⁻⁶) where that is below 1.
///
/// `norm` is that of the unscaled gradients. Both are one factor, rounded once.
pub fn gradient_factor(inverse_scale: f32, norm: f64, clip: Option<f64>) -> f32 {
    let coefficient = clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0));
    (f64::from(inverse_scale) * coefficient) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_hyper_parameters_are_named() {
        let cases = [
            (r#"{"name":"adamw","lr":0}"#, "adamw: lr is 0; set it above 0"),
            (r#"{"name":"adam","beta1":1}"#, "adam: beta1 is 1; set it in [0, 1)"),
            (r#"{"name":"adamw","beta2":-0.1}"#, "adamw: beta2 is -0.1"),
            (r#"{"name":"adamw","epsilon":-1}"#, "epsilon is -1; set it to 0 or more"),
            (r#"{"name":"lion","beta2":1.5}"#, "lion: beta2 is 1.5"),
            (r#"{"name":"sgd","weight_decay":-1}"#, "sgd: weight_decay is -1"),
            (r#"{"name":"sgd","dampening":2}"#, "sgd: dampening is 2; set it in [0, 1]"),
            (r#"{"name":"sgd","nesterov":true}"#, "nesterov needs momentum"),
            (r#"{"name":"sgd","nesterov":true,"momentum":0.9,"dampening":0.1}"#, "dampening 0"),
        ];
        for (text, message) in cases {
            let rule: Rule = serde_json::from_str(text).unwrap();
            let error = rule.check().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        for name in ["adamw", "adam", "sgd", "lion"] {
            let text = format!(r#"{{"name":"{name}"}}"#);
            let rule: Rule = serde_json::from_str(&text).unwrap();
            rule.check().unwrap();
            assert_eq!(rule.name(), name);
            assert_eq!(rule.scalars(0.1, 0.0, 1).moments(), rule.moments());
            let unknown = format!(r#"{{"name":"{name}","learning":1}}"#);
            assert!(serde_json::from_str::<Rule>(&unknown).is_err(), "{name}");
        }
        let nan = Rule::AdamW(AdamW { lr: f64::NAN, ..AdamW::default() });
        assert!(nan.check().is_err());
    }

    #[test]
    fn clipping_only_ever_shrinks() {
        assert_eq!(gradient_factor(0.25, 100.0, None), 0.25);
        assert_eq!(gradient_factor(0.25, 0.5, Some(1.0)), 0.25);
        assert_eq!(gradient_factor(1.0, 2.0, Some(1.0)), (1.0 / (2.0 + 1e-6)) as f32);
        assert_eq!(gradient_factor(0.5, 0.0, Some(1.0)), 0.5);
    }
}
