//! Byte-level language modelling: the bytes of some files, in which every micro-batch picks its
//! sequences at random places that its step and number name.
//!
//! The end of the text is held out. An evaluation takes sequences at equal distances there, shares
//! them among the ranks, and adds up their losses in the order of the text, so its bits do not
//! depend on the ranks.

use std::path::PathBuf;

use super::config::{GptConfig, TrainConfig};
use super::evaluation::Places;
use super::gpt::sample::{Sampling, generate};
use super::gpt::{Batch, Config, Gpt};
use super::model::{Loss, Model};
use super::random::Random;
use super::task::{Measure, Task};
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::optimizer::parameter::{GradientSink, Parameter, ParameterSource};

/// A GPT and its text.
#[derive(Debug)]
pub struct TextTask {
    model: Gpt,
    /// What is trained on, then what is held out.
    text: Vec<u8>,
    /// Where the held-out part starts.
    held_out: usize,
    examples: usize,
    evaluate_examples: usize,
    seed: u64,
    prompt: Option<String>,
    sample_bytes: usize,
}

impl TextTask {
    /// Reads the text of a configuration. Each rank reads all of it.
    pub fn new(config: &TrainConfig, gpt: &GptConfig, threads: usize) -> Result<Self> {
        let GptConfig { layers, width, heads, context, tied } = *gpt;
        let sizes = Config { layers, width, heads, context, vocabulary: 256, tied };
        let model = Gpt::new(sizes, threads)?;
        let text = read(&config.data.text)?;
        let held_out = text.len() - (text.len() as f64 * config.data.held_out) as usize;
        let needed = context + 1;
        let rest = text.len() - held_out;
        if held_out < needed || (rest > 0 && rest < needed) {
            return Err(Error::input(format!(
                "data: {held_out} bytes to train on and {rest} to evaluate, but a sequence of the \
                 model has {needed}; give more text or a shorter context"
            )));
        }
        Ok(TextTask {
            model,
            text,
            held_out,
            examples: config.training.examples,
            evaluate_examples: config.training.evaluate_examples,
            seed: config.training.seed,
            prompt: config.output.as_ref().and_then(|output| output.prompt.clone()),
            sample_bytes: config.output.as_ref().map_or(0, |output| output.sample_bytes),
        })
    }

    /// Sequences that start at the given places, as a micro-batch.
    fn batch(&self, starts: &[usize]) -> Batch {
        let length = self.model.config().context;
        let sequence = |&start: &usize| &self.text[start..start + length + 1];
        let tokens = starts.iter().flat_map(sequence).map(|&byte| u32::from(byte)).collect();
        Batch { examples: starts.len(), length, tokens }
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for path in files {
        text.extend(std::fs::read(path).map_err(|e| Error::file(path, "read", &e))?);
    }
    Ok(text)
}

impl Task for TextTask {
    fn parameters(&self) -> Vec<Parameter> {
        self.model.parameters().to_vec()
    }

    fn initialise(&self, seed: u64, parameter: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.model.parameters()[parameter].elements()];
        self.model.initialise(seed, parameter, &mut values);
        values
    }

    fn learn(
        &mut self,
        step: u64,
        micro_batch: usize,
        scale: f32,
        parameters: &mut dyn ParameterSource,
        gradients: &mut dyn GradientSink,
    ) -> Result<Loss> {
        let mut random = Random::of(&[self.seed, step, micro_batch as u64]);
        let places = self.held_out - self.model.config().context;
        let starts: Vec<usize> = (0..self.examples).map(|_| random.below(places)).collect();
        let batch = self.batch(&starts);
        self.model.forward_backward(parameters, &batch, scale, gradients)
    }

    fn evaluate(
        &mut self,
        communicator: &Communicator,
        parameters: &mut dyn ParameterSource,
    ) -> Result<Vec<Measure>> {
        let length = self.model.config().context;
        let all = (self.text.len() - self.held_out) / (length + 1);
        let places = Places { all, most: self.evaluate_examples, block: 1 };
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let losses = places.each_block(communicator, |block| {
            let starts = block.iter().map(|place| self.held_out + place * (length + 1));
            let batch = self.batch(&starts.collect::<Vec<usize>>());
            Ok(vec![self.model.evaluate(parameters, &batch)?.sum])
        })?;
        let value = losses.iter().sum::<f64>() / (losses.len() * length) as f64;
        Ok(vec![Measure { name: "held_out_loss".into(), value }])
    }

    fn units(&self) -> usize {
        self.examples * self.model.config().context
    }

    fn sample(&mut self, parameters: &mut dyn ParameterSource) -> Result<Option<String>> {
        let Some(prompt) = self.prompt.as_ref().filter(|prompt| !prompt.is_empty()) else {
            return Ok(None);
        };
        let tokens: Vec<u32> = prompt.bytes().map(u32::from).collect();
        let sampling = Sampling { seed: self.seed, ..Sampling::default() };
        let config = *self.model.config();
        let text = generate(&config, parameters, &tokens, self.sample_bytes, sampling)?;
        let bytes: Vec<u8> = text.into_iter().map(|token| token as u8).collect();
        Ok(Some(format!("{prompt}{}", String::from_utf8_lossy(&bytes))))
    }
}
