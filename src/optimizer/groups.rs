//! Parameter groups: which parameters learn faster, slower, or without decay, by their names.
//!
//! A group has a pattern in which `*` stands for any text. The first group that matches a parameter
//! is its own; a pattern that matches nothing is an error, since it is a typing mistake. Without
//! groups the usual rule holds: parameters of one dimension and those named `…bias` have no decay
//! (Megatron-LM's `get_standard_config_overrides`).

use serde::{Deserialize, Serialize};

use super::hyper::Rule;
use super::parameter::Parameter;
use crate::error::{Error, Result};
use crate::reduce::step::Scalars;

/// What is different for some parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Names that belong to it; `*` stands for any text.
    pub pattern: String,
    /// What the learning rate is multiplied with.
    #[serde(default = "one")]
    pub lr: f64,
    /// What the weight decay is multiplied with.
    #[serde(default = "one")]
    pub weight_decay: f64,
}

fn one() -> f64 {
    1.0
}

/// The multipliers of each parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Multipliers {
    of: Vec<(f64, f64)>,
}

/// Whether a name matches a pattern, in time linear in both for each `*`.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

impl Multipliers {
    /// Of each parameter, by its number.
    pub fn new(parameters: &[Parameter], groups: &[Group]) -> Result<Self> {
        for group in groups {
            let Group { pattern, lr, weight_decay } = group;
            let good = |x: &f64| x.is_finite() && *x >= 0.0;
            if !good(lr) || !good(weight_decay) {
                return Err(Error::input(format!(
                    "group '{pattern}': lr and weight_decay are finite numbers from 0"
                )));
            }
            if !parameters.iter().any(|p| matches(pattern, &p.name)) {
                return Err(Error::input(format!(
                    "group '{pattern}' matches no parameter; the first are named {}",
                    parameters.iter().take(4).map(|p| &*p.name).collect::<Vec<_>>().join(", ")
                )));
            }
        }
        let of = |parameter: &Parameter| {
            let decays = parameter.shape.len() > 1 && !parameter.name.ends_with("bias");
            let usual = (1.0, if decays { 1.0 } else { 0.0 });
            let own = groups.iter().find(|group| matches(&group.pattern, &parameter.name));
            own.map_or(usual, |group| (group.lr, group.weight_decay))
        };
        Ok(Multipliers { of: parameters.iter().map(of).collect() })
    }

    /// The scalars of step `t`, from 1, for each parameter.
    pub fn scalars(&self, rule: &Rule, t: u64, lr: f64) -> Vec<Scalars> {
        self.of.iter().map(|&(rate, decay)| rule.scalars(t, lr * rate, decay)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b.c", true),
            ("*.bias", "x.y.bias", true),
            ("*.bias", "bias", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "acb", false),
            ("ab*b", "ab", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_match_counts_and_a_pattern_without_match_is_named() {
        let parameters =
            [("emb.weight", 2), ("1.weight", 2), ("1.bias", 1), ("norm.weight", 1), ("2.bias", 2)]
                .map(|(name, dimensions)| Parameter::new(name, &vec![2; dimensions]));
        let group =
            |pattern: &str, lr, weight_decay| Group { pattern: pattern.into(), lr, weight_decay };
        let usual = Multipliers::new(&parameters, &[]).unwrap();
        assert_eq!(usual.of, [(1.0, 1.0), (1.0, 1.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0)]);
        let groups = [group("emb.*", 0.1, 0.0), group("*.weight", 2.0, 1.0)];
        let own = Multipliers::new(&parameters, &groups).unwrap();
        assert_eq!(own.of, [(0.1, 0.0), (2.0, 1.0), (1.0, 0.0), (2.0, 1.0), (1.0, 0.0)]);
        let missing = Multipliers::new(&parameters, &[group("mlp*", 1.0, 1.0)]).unwrap_err();
        assert!(missing.message.contains("'mlp*' matches no parameter"), "{missing}");
        assert!(missing.message.contains("emb.weight, 1.weight"), "{missing}");
        assert!(Multipliers::new(&parameters, &[group("*", f64::NAN, 1.0)]).is_err());
    }
}
