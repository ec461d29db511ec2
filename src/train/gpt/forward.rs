//! The forward pass of a GPT: from tokens to logits, keeping what the backward pass needs.

use super::workspace::{BlockKept, Workspace};
use super::{BlockParameters, Config, place};
use crate::error::Result;
use crate::optimizer::parameter::ParameterSource;
use crate::train::layers::{attention, embedding, gelu, layer_norm, linear};

/// Fills the workspace down to its logits. Parameters are waited for a block at a time, so that
/// those of later blocks may still be on their way.
pub(crate) fn logits(
    workspace: &mut Workspace,
    parameters: &mut dyn ParameterSource,
    config: &Config,
    threads: usize,
) -> Result<()> {
    let Config { layers, width, vocabulary, tied, .. } = *config;
    let (rows, length) = (workspace.rows(), workspace.length);
    let shape = workspace.attention(config);
    parameters.arrive(place::TOKENS..place::POSITIONS + 1)?;
    let x = &mut workspace.blocks[0].input;
    embedding::forward(x, &workspace.inputs, parameters.values(place::TOKENS), width);
    embedding::add_positions(x, parameters.values(place::POSITIONS), 0, length, width);
    for layer in 0..layers {
        let own = BlockParameters::arrive(parameters, place::block(layer))?;
        let (done, next) = workspace.blocks.split_at_mut(layer + 1);
        let output = next.first_mut().map_or(&mut workspace.output, |block| &mut block.input);
        block(output, &mut done[layer], &own, shape, threads);
    }
    let gain = place::last_gain(layers);
    parameters.arrive(gain..gain + if tied { 2 } else { 3 })?;
    layer_norm::forward(
        &mut workspace.output_normed,
        &mut workspace.output_rows,
        &workspace.output,
        parameters.values(gain),
        parameters.values(gain + 1),
        threads,
    );
    let head = parameters.values(if tied { place::TOKENS } else { gain + 2 });
    let shape = linear::Shape { rows, inputs: width, outputs: vocabulary };
    let normed = &workspace.output_normed;
    linear::forward(&mut workspace.logits, normed, head, None, shape, threads);
    Ok(())
}

fn block(
    output: &mut [f32],
    kept: &mut BlockKept,
    own: &BlockParameters,
    shape: attention::Shape,
    threads: usize,
) {
    let width = shape.width;
    let rows = shape.examples * shape.length;
    let layer = |inputs, outputs| linear::Shape { rows, inputs, outputs };

    let (gain, bias) = (own.of(place::ATTENTION_GAIN), own.of(place::ATTENTION_BIAS));
    let normed = &mut kept.attention_normed;
    layer_norm::forward(normed, &mut kept.attention_rows, &kept.input, gain, bias, threads);
    let (weight, bias) = (own.of(place::QKV_WEIGHT), own.of(place::QKV_BIAS));
    linear::forward(&mut kept.qkv, normed, weight, Some(bias), layer(width, 3 * width), threads);
    let attended = &mut kept.attended;
    attention::forward(attended, &mut kept.probabilities, &kept.qkv, shape, threads);
    let weight = own.of(place::ATTENTION_OUTPUT_WEIGHT);
    let bias = own.of(place::ATTENTION_OUTPUT_BIAS);
    let (middle, sizes) = (&mut kept.middle, layer(width, width));
    linear::forward_residual(middle, &kept.input, attended, weight, bias, sizes, threads);

    let (gain, bias) = (own.of(place::MLP_GAIN), own.of(place::MLP_BIAS));
    let normed = &mut kept.mlp_normed;
    layer_norm::forward(normed, &mut kept.mlp_rows, middle, gain, bias, threads);
    let (weight, bias) = (own.of(place::HIDDEN_WEIGHT), own.of(place::HIDDEN_BIAS));
    linear::forward(&mut kept.hidden, normed, weight, Some(bias), layer(width, 4 * width), threads);
    gelu::forward(&mut kept.activated, &kept.hidden, gelu::Form::Tanh, threads);
    let (weight, bias) = (own.of(place::OUTPUT_WEIGHT), own.of(place::OUTPUT_BIAS));
    let sizes = layer(4 * width, width);
    linear::forward_residual(output, middle, &kept.activated, weight, bias, sizes, threads);
}
