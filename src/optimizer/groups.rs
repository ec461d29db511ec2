//! Which parameters learn faster or slower, and which decay: groups matched by name.
//!
//! Rules are tried in order and the first whose pattern matches wins. What a rule does not say, and
//! parameters that no rule matches, follow Megatron-LM: learning rate ×1; no decay on vectors and
//! scalars (norms) and on names that end in `.bias`; decay ×1 elsewhere.
//!
//! Patterns are for whole names: `*` stands for any characters, `?` for one.

use serde::{Deserialize, Serialize};

use super::parameter::Parameter;
use crate::error::{Error, Result};

/// One rule for some parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRule {
    /// The patterns of the names it is for.
    pub names: Vec<String>,
    /// What the learning rate is multiplied with: 0 or more; 0 freezes.
    #[serde(default = "one")]
    pub lr_multiplier: f64,
    /// What the weight decay is multiplied with: 0 or more; not given: 0 on vectors and biases,
    /// else 1.
    #[serde(default)]
    pub weight_decay_multiplier: Option<f64>,
}

fn one() -> f64 {
    1.0
}

/// What one parameter multiplies the learning rate and the weight decay with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Multipliers {
    /// Of the learning rate.
    pub lr: f64,
    /// Of the weight decay.
    pub weight_decay: f64,
}

/// The multipliers of every parameter, in their order.
///
/// ```
/// use rankwise::optimizer::{groups::{GroupRule, multipliers}, parameter::Parameter};
///
/// let text = r#"{ "names": ["embedding.*"], "lr_multiplier": 0.5 }"#;
/// let rules: Vec<GroupRule> = vec![serde_json::from_str(text).unwrap()];
/// let parameters = [
///     Parameter::new("embedding.weight", &[256, 64]),
///     Parameter::new("head.weight", &[64, 256]),
///     Parameter::new("head.bias", &[256]),
/// ];
/// let found = multipliers(&rules, &parameters).unwrap();
/// assert_eq!(found.map_lr(), [0.5, 1.0, 1.0]);
/// # trait MapLr { fn map_lr(&self) -> Vec<f64>; }
/// # impl MapLr for Vec<rankwise::optimizer::groups::Multipliers> {
/// #     fn map_lr(&self) -> Vec<f64> { self.iter().map(|m| m.lr).collect() }
/// # }
/// ```
///
/// # Errors
/// If a multiplier makes no sense, or a pattern matches no parameter, which is a spelling mistake
/// more often than a wish. A pattern all of whose parameters an earlier rule took is no error.
pub fn multipliers(rules: &[GroupRule], parameters: &[Parameter]) -> Result<Vec<Multipliers>> {
    for rule in rules {
        check(rule, parameters)?;
    }
    let of = |parameter: &Parameter| {
        let rule = rules.iter().find(|rule| rule.names.iter().any(|p| matches(p, &parameter.name)));
        let plain = if decays(parameter) { 1.0 } else { 0.0 };
        Multipliers {
            lr: rule.map_or(1.0, |rule| rule.lr_multiplier),
            weight_decay: rule.and_then(|rule| rule.weight_decay_multiplier).unwrap_or(plain),
        }
    };
    Ok(parameters.iter().map(of).collect())
}

/// Whether a parameter decays if no rule says otherwise.
fn decays(parameter: &Parameter) -> bool {
    parameter.shape.len() > 1 && !parameter.name.ends_with(".bias")
}

fn check(rule: &GroupRule, parameters: &[Parameter]) -> Result<()> {
    let names = rule.names.join(", ");
    if rule.names.is_empty() {
        return Err(Error::input("parameter group: names is empty; give at least one pattern"));
    }
    let of_decay = rule.weight_decay_multiplier.unwrap_or(0.0);
    for (what, x) in [("lr_multiplier", rule.lr_multiplier), ("weight_decay_multiplier", of_decay)]
    {
        if !(x >= 0.0 && x.is_finite()) {
            let message = format!("parameter group {names}: {what} is {x}; set it to 0 or more");
            return Err(Error::input(message));
        }
    }
    for pattern in &rule.names {
        if !parameters.iter().any(|parameter| matches(pattern, &parameter.name)) {
            let some: Vec<&str> = parameters.iter().take(5).map(|p| p.name.as_str()).collect();
            return Err(Error::input(format!(
                "parameter group: `{pattern}` matches none of {} parameters; names are like {}",
                parameters.len(),
                some.join(", ")
            )));
        }
    }
    Ok(())
}

/// Whether a whole name fits a pattern. Looks back to the last `*` only, which is enough: what an
/// earlier one could take more, the last one can take too.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p).is_some_and(|&c| c == '?' || c == name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By definition, in exponential time.
    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], _) => name.is_empty(),
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|taken| slow(rest, &name[taken..])),
            ([c, p @ ..], [x, n @ ..]) => (*c == b'?' || c == x) && slow(p, n),
            _ => false,
        }
    }

    fn words(letters: &[u8], max: usize) -> Vec<Vec<u8>> {
        let mut all = vec![vec![]];
        let mut last = all.clone();
        for _ in 0..max {
            let mut longer = Vec::new();
            for word in &last {
                longer.extend(letters.iter().map(|&c| [&word[..], &[c]].concat()));
            }
            last = longer;
            all.extend(last.clone());
        }
        all
    }

    #[test]
    fn patterns_mean_what_their_definition_says() {
        let names = words(b"a.", 5);
        for pattern in words(b"a.?*", 5) {
            for name in &names {
                let [p, n] = [&pattern, name].map(|word| std::str::from_utf8(word).unwrap());
                assert_eq!(matches(p, n), slow(&pattern, name), "{p} on {n}");
            }
        }
    }

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::new("embedding.weight", &[16, 4]),
            Parameter::new("blocks.0.norm.weight", &[4]),
            Parameter::new("blocks.0.linear.weight", &[4, 4]),
            Parameter::new("blocks.0.linear.bias", &[4]),
            Parameter::new("blocks.0.odd.bias", &[2, 2]),
            Parameter::new("temperature", &[]),
        ]
    }

    fn rule(names: &[&str], lr: f64, decay: Option<f64>) -> GroupRule {
        let names = names.iter().map(ToString::to_string).collect();
        GroupRule { names, lr_multiplier: lr, weight_decay_multiplier: decay }
    }

    #[test]
    fn the_first_rule_wins_and_the_rest_is_megatrons() {
        let decays = |rules: &[GroupRule]| -> Vec<(f64, f64)> {
            let found = multipliers(rules, &parameters()).unwrap();
            found.iter().map(|m| (m.lr, m.weight_decay)).collect()
        };
        let plain = [(1.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0)];
        assert_eq!(decays(&[]), plain);
        let rules = [rule(&["*.linear.*"], 2.0, None), rule(&["*.bias", "temp*"], 0.0, Some(3.0))];
        let first = [(1.0, 1.0), (1.0, 0.0), (2.0, 1.0), (2.0, 0.0), (0.0, 3.0), (0.0, 3.0)];
        assert_eq!(decays(&rules), first);
        let second = [(1.0, 1.0), (1.0, 0.0), (2.0, 1.0), (0.0, 3.0), (0.0, 3.0), (0.0, 3.0)];
        assert_eq!(decays(&[rules[1].clone(), rules[0].clone()]), second);
    }

    #[test]
    fn wrong_rules_are_named() {
        for (rule, message) in [
            (rule(&["embeding.*"], 1.0, None), "`embeding.*` matches none of 6 parameters"),
            (rule(&["*", "nothing"], 1.0, None), "`nothing` matches none"),
            (rule(&["*"], -1.0, None), "group *: lr_multiplier is -1; set it to 0 or more"),
            (rule(&["*"], 1.0, Some(f64::NAN)), "weight_decay_multiplier is NaN"),
            (rule(&[], 1.0, None), "names is empty"),
        ] {
            let error = multipliers(&[rule], &parameters()).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
