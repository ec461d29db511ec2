//! Text from a trained GPT, a token at a time.
//!
//! Keys and values of earlier tokens are cached, so a token costs one row through the layers.
//! Positions are learned, so when the context is full the later half of it is read again from
//! position 0, which makes room for as many tokens as were dropped.

use super::{BlockParameters, Config, place};
use crate::error::{Error, Result};
use crate::optimizer::parameter::ParameterSource;
use crate::train::initial;
use crate::train::layers::functions::{exp, maximum, sum_of, sum_of_two};
use crate::train::layers::layer_norm::RowStatistics;
use crate::train::layers::{embedding, gelu, layer_norm, linear};
use rand_distr::{Distribution, StandardUniform};
use rand_pcg::Pcg64;

/// How the next token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits: below 1 likely tokens become likelier; 0 always takes the likeliest.
    pub temperature: f32,
    /// Draws from the likeliest tokens alone.
    pub top_k: Option<usize>,
    /// The same seed draws the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.8, top_k: Some(40), seed: 0 }
    }
}

/// `count` tokens that follow `prompt`, on this rank alone: all parameters must be at hand.
pub fn generate(
    config: &Config,
    parameters: &mut dyn ParameterSource,
    prompt: &[u32],
    count: usize,
    sampling: Sampling,
) -> Result<Vec<u32>> {
    check(config, prompt, sampling)?;
    let mut random = initial::stream(sampling.seed, usize::MAX);
    let mut reader = Reader::new(config);
    let mut text = prompt.to_vec();
    for &token in &prompt[prompt.len().saturating_sub(config.context)..] {
        reader.read(token, parameters)?;
    }
    for drawn in 0..count {
        let next = draw(&reader.logits, sampling, &mut random);
        text.push(next);
        if drawn + 1 == count {
            break;
        }
        if reader.length == config.context {
            reader.length = 0;
            // With the token that was just drawn, half a context; at least that token.
            let kept = (config.context / 2).max(1);
            for &token in &text[text.len() - kept..text.len() - 1] {
                reader.read(token, parameters)?;
            }
        }
        reader.read(next, parameters)?;
    }
    Ok(text.split_off(prompt.len()))
}

fn check(config: &Config, prompt: &[u32], sampling: Sampling) -> Result<()> {
    let vocabulary = config.vocabulary;
    if prompt.is_empty() {
        return Err(Error::input("the prompt is empty; give at least one token"));
    }
    if let Some(token) = prompt.iter().find(|&&token| token as usize >= vocabulary) {
        let message = format!("token {token} of the prompt is outside the vocabulary {vocabulary}");
        return Err(Error::input(message));
    }
    if !sampling.temperature.is_finite() || sampling.temperature < 0.0 {
        let message = format!("temperature {}; give 0 or a positive number", sampling.temperature);
        return Err(Error::input(message));
    }
    if sampling.top_k == Some(0) {
        return Err(Error::input("top-k of 0 leaves no token; give at least 1, or leave it out"));
    }
    Ok(())
}

/// The next token, by the probabilities of the logits.
fn draw(logits: &[f32], sampling: Sampling, random: &mut Pcg64) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let keep = sampling.top_k.unwrap_or(logits.len()).min(logits.len());
    if sampling.temperature == 0.0 || keep == 1 {
        return order[0] as u32;
    }
    order.truncate(keep);
    let largest = f64::from(logits[order[0]]);
    let temperature = f64::from(sampling.temperature);
    let weight = |&token: &usize| ((f64::from(logits[token]) - largest) / temperature).exp();
    let total: f64 = order.iter().map(weight).sum();
    let uniform: f64 = StandardUniform.sample(random);
    let mut left = uniform * total;
    for token in &order {
        left -= weight(token);
        if left < 0.0 {
            return *token as u32;
        }
    }
    order[0] as u32
}

/// Reads tokens one after the other; its logits are of what follows the last.
pub(crate) struct Reader {
    config: Config,
    /// Tokens read.
    pub(crate) length: usize,
    /// Q, K and V of every token read, by layer.
    qkv: Vec<Vec<f32>>,
    pub(crate) logits: Vec<f32>,
}

impl Reader {
    pub(crate) fn new(config: &Config) -> Reader {
        let cache = vec![0.0; config.context * 3 * config.width];
        Reader {
            config: *config,
            length: 0,
            qkv: vec![cache; config.layers],
            logits: vec![0.0; config.vocabulary],
        }
    }

    /// Reads a token; the caller sees to it that the context is not full.
    pub(crate) fn read(&mut self, token: u32, parameters: &mut dyn ParameterSource) -> Result<()> {
        let Config { layers, width, vocabulary, tied, .. } = self.config;
        parameters.arrive(place::TOKENS..place::POSITIONS + 1)?;
        let mut x = vec![0.0; width];
        embedding::forward(&mut x, &[token], parameters.values(place::TOKENS), width);
        let positions = parameters.values(place::POSITIONS);
        embedding::add_positions(&mut x, positions, self.length, 1, width);
        for layer in 0..layers {
            let own = BlockParameters::arrive(parameters, place::block(layer))?;
            x = self.block(x, layer, &own);
        }
        let gain = place::last_gain(layers);
        parameters.arrive(gain..gain + if tied { 2 } else { 3 })?;
        let normed = norm(&x, parameters.values(gain), parameters.values(gain + 1));
        let head = parameters.values(if tied { place::TOKENS } else { gain + 2 });
        let shape = linear::Shape { rows: 1, inputs: width, outputs: vocabulary };
        linear::forward(&mut self.logits, &normed, head, None, shape, 1);
        self.length += 1;
        Ok(())
    }

    fn block(&mut self, x: Vec<f32>, layer: usize, own: &BlockParameters) -> Vec<f32> {
        let width = self.config.width;
        let sizes = |inputs, outputs| linear::Shape { rows: 1, inputs, outputs };
        let normed = norm(&x, own.of(place::ATTENTION_GAIN), own.of(place::ATTENTION_BIAS));
        let row = self.length * 3 * width..(self.length + 1) * 3 * width;
        let (weight, bias) = (own.of(place::QKV_WEIGHT), Some(own.of(place::QKV_BIAS)));
        let qkv = &mut self.qkv[layer][row];
        linear::forward(qkv, &normed, weight, bias, sizes(width, 3 * width), 1);
        let attended = self.attend(layer);
        let weight = own.of(place::ATTENTION_OUTPUT_WEIGHT);
        let bias = own.of(place::ATTENTION_OUTPUT_BIAS);
        let mut middle = vec![0.0; width];
        let shape = sizes(width, width);
        linear::forward_residual(&mut middle, &x, &attended, weight, bias, shape, 1);

        let normed = norm(&middle, own.of(place::MLP_GAIN), own.of(place::MLP_BIAS));
        let (mut hidden, mut activated) = (vec![0.0; 4 * width], vec![0.0; 4 * width]);
        let (weight, bias) = (own.of(place::HIDDEN_WEIGHT), Some(own.of(place::HIDDEN_BIAS)));
        linear::forward(&mut hidden, &normed, weight, bias, sizes(width, 4 * width), 1);
        gelu::forward(&mut activated, &hidden, gelu::Form::Tanh, 1);
        let (weight, bias) = (own.of(place::OUTPUT_WEIGHT), own.of(place::OUTPUT_BIAS));
        let mut output = x;
        let shape = sizes(4 * width, width);
        linear::forward_residual(&mut output, &middle, &activated, weight, bias, shape, 1);
        output
    }

    /// Attention of the last token to all tokens read, itself included.
    fn attend(&self, layer: usize) -> Vec<f32> {
        let Config { width, heads, .. } = self.config;
        let size = width / heads;
        let rows: Vec<&[f32]> =
            self.qkv[layer].chunks_exact(3 * width).take(self.length + 1).collect();
        let scale = 1.0 / (size as f32).sqrt();
        let mut output = vec![0.0; width];
        for (head, output) in output.chunks_exact_mut(size).enumerate() {
            let part = |at: usize| at * width + head * size..at * width + (head + 1) * size;
            let query = &rows[self.length][part(0)];
            let score = |row: &&[f32]| scale * sum_of_two(query, &row[part(1)], |q, k| q * k);
            let mut scores: Vec<f32> = rows.iter().map(score).collect();
            let largest = maximum(&scores);
            scores.iter_mut().for_each(|s| *s = exp(*s - largest));
            let total = sum_of(&scores, |e| e);
            for (score, row) in scores.iter().zip(&rows) {
                let probability = score / total;
                output.iter_mut().zip(&row[part(2)]).for_each(|(y, v)| *y += probability * v);
            }
        }
        output
    }
}

fn norm(x: &[f32], gain: &[f32], bias: &[f32]) -> Vec<f32> {
    let (mut y, mut rows) = (vec![0.0; x.len()], [RowStatistics::default()]);
    layer_norm::forward(&mut y, &mut rows, x, gain, bias, 1);
    y
}
