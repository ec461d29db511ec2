//! The loss scale that keeps small f16 gradients from vanishing: constant, or dynamic as
//! Megatron-LM's `DynamicGradScaler`.
//!
//! ```text
//! a step with NaN or ∞:  clean ← 0; patience ← patience − 1;
//!                        at 0 or below scale ← max(scale·backoff, min)
//! a clean step:          clean ← clean + 1; at `window`: clean ← 0, patience ← hysteresis,
//!                        scale ← scale·growth
//! ```
//!
//! Patience comes back with a growth only: once it is used up, every further bad step backs off.
//! One thing differs from Megatron-LM: a growth beyond the range of f32 is not done, because a
//! scale of ∞ would never come down again.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The loss scale as configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossScale {
    /// Always the same; 1 for bf16 and f32.
    Constant(f32),
    /// As large as gradients bear.
    Dynamic(Dynamic),
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale::Constant(1.0)
    }
}

/// How a dynamic loss scale moves, with Megatron-LM's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dynamic {
    /// The first scale.
    pub initial: f32,
    /// The lowest scale.
    pub min: f32,
    /// What a growth multiplies with: above 1.
    pub growth: f32,
    /// What a back-off multiplies with: in (0, 1).
    pub backoff: f32,
    /// Clean steps in a row before a growth.
    pub window: u32,
    /// Bad steps before the first back-off.
    pub hysteresis: u32,
}

impl Default for Dynamic {
    fn default() -> Self {
        let two_to_32 = 4_294_967_296.0;
        Dynamic {
            initial: two_to_32,
            min: 1.0,
            growth: 2.0,
            backoff: 0.5,
            window: 1000,
            hysteresis: 2,
        }
    }
}

impl LossScale {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<()> {
        let check = |name: &str, value: f32, allowed: bool, range: &str| match allowed {
            true => Ok(()),
            false => Err(Error::input(format!("loss scale: {name} is {value}; set it {range}"))),
        };
        let positive = |x: f32| x > 0.0 && x.is_finite();
        match self {
            LossScale::Constant(scale) => check("constant", *scale, positive(*scale), "above 0"),
            LossScale::Dynamic(d) => {
                check("min", d.min, positive(d.min), "above 0")?;
                let high_enough = d.initial >= d.min && d.initial.is_finite();
                check("initial", d.initial, high_enough, "to min or more")?;
                check("growth", d.growth, d.growth > 1.0 && d.growth.is_finite(), "above 1")?;
                check("backoff", d.backoff, d.backoff > 0.0 && d.backoff < 1.0, "in (0, 1)")?;
                check("window", d.window as f32, d.window > 0, "to 1 or more")?;
                check("hysteresis", d.hysteresis as f32, d.hysteresis > 0, "to 1 or more")
            }
        }
    }
}

/// The loss scale of a run. All ranks feed it the same verdicts, so all have the same scale.
#[derive(Clone, Debug, PartialEq)]
pub struct LossScaler {
    config: LossScale,
    state: ScalerState,
}

/// What a checkpoint keeps of a [`LossScaler`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalerState {
    /// The scale of the next step.
    pub scale: f32,
    /// Clean steps since the last bad one or growth.
    pub clean_steps: u32,
    /// Bad steps before a back-off; 0 or below: the next one backs off.
    pub patience: i64,
}

impl LossScaler {
    /// The scaler at the beginning of a run.
    ///
    /// # Errors
    /// If the configuration makes no sense.
    pub fn new(config: LossScale) -> Result<Self> {
        config.check()?;
        let (scale, patience) = match &config {
            LossScale::Constant(scale) => (*scale, 0),
            LossScale::Dynamic(d) => (d.initial, i64::from(d.hysteresis)),
        };
        Ok(LossScaler { config, state: ScalerState { scale, clean_steps: 0, patience } })
    }

    /// What the loss is multiplied with.
    pub fn scale(&self) -> f32 {
        self.state.scale
    }

    /// What gradients are multiplied with: 1/scale, taken in f64 and rounded.
    pub fn inverse(&self) -> f32 {
        (1.0 / f64::from(self.state.scale)) as f32
    }

    /// Learns whether any rank found NaN or ∞ in the gradients of a step.
    pub fn update(&mut self, found_non_finite: bool) {
        let LossScale::Dynamic(d) = &self.config else { return };
        let state = &mut self.state;
        if found_non_finite {
            state.clean_steps = 0;
            state.patience -= 1;
            if state.patience <= 0 {
                state.scale = (state.scale * d.backoff).max(d.min);
            }
            return;
        }
        state.clean_steps += 1;
        if state.clean_steps >= d.window {
            state.clean_steps = 0;
            state.patience = i64::from(d.hysteresis);
            let grown = state.scale * d.growth;
            state.scale = if grown.is_finite() { grown } else { state.scale };
        }
    }

    /// What a checkpoint keeps.
    pub fn state(&self) -> ScalerState {
        self.state
    }

    /// Goes on from a checkpoint; a constant scale stays as configured.
    pub fn restore(&mut self, state: ScalerState) {
        if matches!(self.config, LossScale::Dynamic(_)) {
            self.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs steps ('.' clean, 'x' bad) and returns the scale after each.
    fn scales(d: Dynamic, steps: &str) -> Vec<f32> {
        let mut scaler = LossScaler::new(LossScale::Dynamic(d)).unwrap();
        let update = |step| {
            scaler.update(step == 'x');
            scaler.scale()
        };
        steps.chars().map(update).collect()
    }

    fn small() -> Dynamic {
        Dynamic { initial: 16.0, window: 3, ..Dynamic::default() }
    }

    #[test]
    fn the_hysteresis_table() {
        let cases: [(&str, &[f32]); 6] = [
            ("...", &[16.0, 16.0, 32.0]),
            // The first bad step only uses up patience, also when clean ones lie between.
            ("xx", &[16.0, 8.0]),
            ("x..x", &[16.0, 16.0, 16.0, 8.0]),
            // Without a growth every further bad step backs off.
            ("xxxx..x", &[16.0, 8.0, 4.0, 2.0, 2.0, 2.0, 1.0]),
            // A growth brings patience back.
            ("xx...xx", &[16.0, 8.0, 8.0, 8.0, 16.0, 16.0, 8.0]),
            // The lowest scale is kept.
            ("xxxxxxx", &[16.0, 8.0, 4.0, 2.0, 1.0, 1.0, 1.0]),
        ];
        for (steps, expected) in cases {
            assert_eq!(scales(small(), steps), expected, "{steps}");
        }
        let strict = Dynamic { hysteresis: 1, ..small() };
        assert_eq!(scales(strict, "x.x"), [8.0, 8.0, 4.0]);
    }

    #[test]
    fn a_scale_beyond_f32_is_not_reached() {
        let d = Dynamic { initial: 2f32.powi(126), window: 1, ..Dynamic::default() };
        assert_eq!(scales(d, "..xx"), [127, 127, 127, 126].map(|power| 2f32.powi(power)));
    }

    #[test]
    fn a_run_goes_on_from_its_state() {
        let steps = "xx..x...xx.x...";
        let whole = scales(small(), steps);
        for cut in 0..steps.len() {
            let mut before = LossScaler::new(LossScale::Dynamic(small())).unwrap();
            steps[..cut].chars().for_each(|step| before.update(step == 'x'));
            let text = serde_json::to_string(&before.state()).unwrap();
            let mut after = LossScaler::new(LossScale::Dynamic(small())).unwrap();
            after.restore(serde_json::from_str(&text).unwrap());
            for (step, &expected) in steps[cut..].chars().zip(&whole[cut..]) {
                after.update(step == 'x');
                assert_eq!(after.scale(), expected, "cut at {cut}");
            }
        }
    }

    #[test]
    fn constant_scales_and_wrong_ones() {
        let mut scaler = LossScaler::new(LossScale::Constant(3.0)).unwrap();
        scaler.update(true);
        assert_eq!((scaler.scale(), scaler.inverse()), (3.0, (1.0f64 / 3.0) as f32));
        for (text, message) in [
            (r#"{"constant":0}"#, "constant is 0; set it above 0"),
            (r#"{"dynamic":{"initial":0.5}}"#, "initial is 0.5; set it to min or more"),
            (r#"{"dynamic":{"growth":1}}"#, "growth is 1; set it above 1"),
            (r#"{"dynamic":{"backoff":1}}"#, "backoff is 1; set it in (0, 1)"),
            (r#"{"dynamic":{"window":0}}"#, "window is 0"),
            (r#"{"dynamic":{"hysteresis":0}}"#, "hysteresis is 0"),
        ] {
            let config: LossScale = serde_json::from_str(text).unwrap();
            let error = LossScaler::new(config).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
