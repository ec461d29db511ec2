//! A GPT: GPT-2's pre-norm transformer over bytes or any other small vocabulary, with learned
//! positions, the tanh GELU, and no dropout.
//!
//! ```text
//! x = tokens[t] + positions[i]
//! each block:  x += attention(norm(x)),  x += mlp(norm(x))
//! logits = norm(x) · headᵀ           head = tokens if tied
//! ```
//!
//! This file has the sizes, the parameters and their initial values; `forward` and `backward` the
//! passes, `workspace` what is kept between them, `sample` the generation of text.
//!
//! Cost of a step and token: 6 operations for each parameter of the blocks and the head, and
//! 12 · layers · width · context · (about 0.6, see `layers::attention`).

mod backward;
mod forward;
pub mod sample;
mod workspace;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::optimizer::parameter::{GradientSink, Parameter, ParameterSource};
use crate::train::initial;
use crate::train::model::{Loss, Model};
use std::ops::Range;
use workspace::Workspace;

/// The sizes of a GPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Blocks of attention and perceptron.
    pub layers: usize,
    /// Elements of a token's row.
    pub width: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
    /// The longest sequence.
    pub context: usize,
    /// How many different tokens there are; 256 for bytes.
    pub vocabulary: usize,
    /// Whether the output layer is the token embedding.
    pub tied: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { layers: 6, width: 384, heads: 6, context: 256, vocabulary: 256, tied: false }
    }
}

impl Config {
    /// An error if no such model exists.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("layers", self.layers),
            ("width", self.width),
            ("heads", self.heads),
            ("context", self.context),
            ("vocabulary", self.vocabulary),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::input(format!("model: {name} is 0; give at least 1")));
        }
        if !self.width.is_multiple_of(self.heads) {
            let Config { width, heads, .. } = self;
            let message = format!("model: width {width} is no multiple of heads {heads}");
            return Err(Error::input(message));
        }
        Ok(())
    }
}

/// Places of the parameters in registration order.
pub(crate) mod place {
    use std::ops::Range;

    pub(crate) const TOKENS: usize = 0;
    pub(crate) const POSITIONS: usize = 1;
    /// The first parameter of the first block.
    const BLOCKS: usize = 2;
    /// Parameters of a block.
    const EACH: usize = 12;

    // Within a block.
    pub(crate) const ATTENTION_GAIN: usize = 0;
    pub(crate) const ATTENTION_BIAS: usize = 1;
    pub(crate) const QKV_WEIGHT: usize = 2;
    pub(crate) const QKV_BIAS: usize = 3;
    pub(crate) const ATTENTION_OUTPUT_WEIGHT: usize = 4;
    pub(crate) const ATTENTION_OUTPUT_BIAS: usize = 5;
    pub(crate) const MLP_GAIN: usize = 6;
    pub(crate) const MLP_BIAS: usize = 7;
    pub(crate) const HIDDEN_WEIGHT: usize = 8;
    pub(crate) const HIDDEN_BIAS: usize = 9;
    pub(crate) const OUTPUT_WEIGHT: usize = 10;
    pub(crate) const OUTPUT_BIAS: usize = 11;

    /// The parameters of a block.
    pub(crate) fn block(layer: usize) -> Range<usize> {
        BLOCKS + EACH * layer..BLOCKS + EACH * (layer + 1)
    }

    /// The gain of the last norm, which its bias and an output layer of its own follow.
    pub(crate) fn last_gain(layers: usize) -> usize {
        BLOCKS + EACH * layers
    }
}

/// A micro-batch: sequences of one length, each with the token that follows its last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Sequences.
    pub examples: usize,
    /// Predictions in each.
    pub length: usize,
    /// `examples` × (`length` + 1) tokens.
    pub tokens: Vec<u32>,
}

/// A GPT without its parameters: its list of them and the memory of its passes.
#[derive(Debug)]
pub struct Gpt {
    config: Config,
    threads: usize,
    parameters: Vec<Parameter>,
    workspace: Workspace,
}

impl Gpt {
    /// A model whose passes use `threads` threads of the current rayon pool; they do not change
    /// the bits.
    pub fn new(config: Config, threads: usize) -> Result<Gpt> {
        config.check()?;
        let parameters = parameters(&config);
        Ok(Gpt { config, threads, parameters, workspace: Workspace::default() })
    }

    /// The sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn check(&self, batch: &Batch) -> Result<()> {
        let Config { context, vocabulary, .. } = self.config;
        let Batch { examples, length, ref tokens } = *batch;
        if length == 0 || length > context || examples == 0 {
            return Err(Error::input(format!(
                "micro-batch of {examples} sequences of {length}: the model takes 1 to {context}"
            )));
        }
        if tokens.len() != examples * (length + 1) {
            let (got, want) = (tokens.len(), examples * (length + 1));
            return Err(Error::internal(format!("micro-batch of {got} tokens, not {want}")));
        }
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(token) => Err(Error::input(format!(
                "token {token} is outside the model's vocabulary of {vocabulary}"
            ))),
            None => Ok(()),
        }
    }
}

fn parameters(config: &Config) -> Vec<Parameter> {
    let Config { layers, width, context, vocabulary, tied, .. } = *config;
    let mut all = vec![
        Parameter {
            shared_embedding: tied,
            ..Parameter::new("embedding.tokens", &[vocabulary, width])
        },
        Parameter::new("embedding.positions", &[context, width]),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[usize]| {
            all.push(Parameter::new(format!("blocks.{layer}.{name}"), shape));
        };
        add("attention_norm.gain", &[width]);
        add("attention_norm.bias", &[width]);
        add("attention.qkv.weight", &[3 * width, width]);
        add("attention.qkv.bias", &[3 * width]);
        add("attention.output.weight", &[width, width]);
        add("attention.output.bias", &[width]);
        add("mlp_norm.gain", &[width]);
        add("mlp_norm.bias", &[width]);
        add("mlp.hidden.weight", &[4 * width, width]);
        add("mlp.hidden.bias", &[4 * width]);
        add("mlp.output.weight", &[width, 4 * width]);
        add("mlp.output.bias", &[width]);
    }
    all.push(Parameter::new("norm.gain", &[width]));
    all.push(Parameter::new("norm.bias", &[width]));
    if !tied {
        all.push(Parameter::new("head.weight", &[vocabulary, width]));
    }
    all
}

impl Model for Gpt {
    type Batch = Batch;

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// As GPT-2: gains 1, biases 0, all else normal with deviation 0.02, divided by √(2 · layers)
    /// where a residual branch ends.
    fn initialise(&self, seed: u64, parameter: usize, values: &mut [f32]) {
        let name = &self.parameters[parameter].name;
        if name.ends_with(".gain") {
            values.fill(1.0);
        } else if name.ends_with(".bias") {
            values.fill(0.0);
        } else {
            let branches = 2.0 * self.config.layers as f32;
            let ends = name.ends_with(".output.weight");
            let deviation = if ends { 0.02 / branches.sqrt() } else { 0.02 };
            initial::normal(values, deviation, seed, parameter);
        }
    }

    fn forward_backward(
        &mut self,
        parameters: &mut dyn ParameterSource,
        batch: &Batch,
        loss_scale: f32,
        gradients: &mut dyn GradientSink,
    ) -> Result<Loss> {
        self.check(batch)?;
        let Gpt { config, threads, workspace, .. } = self;
        workspace.prepare(config, batch, true);
        forward::logits(workspace, parameters, config, *threads)?;
        let loss = workspace.loss_and_gradient(config, loss_scale, *threads);
        backward::gradients(workspace, parameters, gradients, config, *threads)?;
        Ok(loss)
    }

    fn evaluate(&mut self, parameters: &mut dyn ParameterSource, batch: &Batch) -> Result<Loss> {
        self.check(batch)?;
        let Gpt { config, threads, workspace, .. } = self;
        workspace.prepare(config, batch, false);
        forward::logits(workspace, parameters, config, *threads)?;
        Ok(workspace.loss(config, *threads))
    }
}

/// The values of one block's parameters.
struct BlockParameters<'a> {
    source: &'a dyn ParameterSource,
    first: usize,
}

impl<'a> BlockParameters<'a> {
    /// Waits for the block's parameters.
    fn arrive(source: &'a mut dyn ParameterSource, block: Range<usize>) -> Result<Self> {
        source.arrive(block.clone())?;
        Ok(BlockParameters { source, first: block.start })
    }

    fn of(&self, place: usize) -> &'a [f32] {
        self.source.values(self.first + place)
    }
}
