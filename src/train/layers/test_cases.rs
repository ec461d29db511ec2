//! Every layer as one function from inputs and the gradient of the output to the output and the
//! gradients of all inputs, so that one table serves all tests of layers.

use super::{
    activation, attention, convolution, cross_entropy, embedding, gelu, gru, layer_norm, linear,
};

/// A tensor with its shape; tokens are held as f32.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Tensor {
    fn tokens(&self) -> Vec<u32> {
        self.values.iter().map(|&x| x as u32).collect()
    }
}

/// What a layer gives back: its output and the gradients of its inputs.
pub(crate) struct Results {
    pub(crate) y: Vec<f32>,
    pub(crate) gradients: Vec<Vec<f32>>,
}

/// The gradient of element i of the output.
type OutputGradient<'a> = &'a dyn Fn(usize) -> f32;

/// A layer: its name in the oracle's file, its differentiable inputs there, and how to run it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) inputs: &'static [&'static str],
    pub(crate) run: fn(&[Tensor], OutputGradient, usize) -> Results,
}

const fn case(
    name: &'static str,
    inputs: &'static [&'static str],
    run: fn(&[Tensor], OutputGradient, usize) -> Results,
) -> Case {
    Case { name, inputs, run }
}

pub(crate) const CASES: [Case; 16] = [
    case("linear", &["x", "w", "b"], run_linear),
    case("embedding", &["table", "tokens"], run_embedding),
    case("layer_norm", &["x", "g", "b"], run_layer_norm),
    case("gelu_tanh", &["x"], |x, dy, threads| run_gelu(x, dy, threads, gelu::Form::Tanh)),
    case("gelu_erf", &["x"], |x, dy, threads| run_gelu(x, dy, threads, gelu::Form::Erf)),
    case("elu", &["x"], |x, dy, threads| {
        run_activation(x, dy, threads, activation::elu, activation::elu_backward)
    }),
    case("relu", &["x"], |x, dy, threads| {
        run_activation(x, dy, threads, activation::relu, activation::relu_backward)
    }),
    case("tanh", &["x"], |x, dy, threads| {
        let back = activation::hyperbolic_tangent_backward;
        run_activation(x, dy, threads, activation::hyperbolic_tangent, back)
    }),
    case("logistic", &["x"], |x, dy, threads| {
        run_activation(x, dy, threads, activation::logistic, activation::logistic_backward)
    }),
    case("attention_short", &["qkv"], |x, dy, threads| run_attention(x, dy, threads, 3)),
    case("attention_long", &["qkv"], |x, dy, threads| run_attention(x, dy, threads, 2)),
    case("gru", &["x", "h", "weight_ih", "weight_hh", "bias_ih", "bias_hh"], run_gru),
    case("conv_same", &["x", "w", "b"], |x, dy, threads| run_convolution(x, dy, threads, 1, 1)),
    case("conv_stride", &["x", "w", "b"], |x, dy, threads| run_convolution(x, dy, threads, 2, 1)),
    case("conv_even", &["x", "w", "b"], |x, dy, threads| run_convolution(x, dy, threads, 2, 0)),
    case("conv_wide", &["x", "w", "b"], |x, dy, threads| run_convolution(x, dy, threads, 2, 3)),
];

fn each(n: usize, dy: OutputGradient) -> Vec<f32> {
    (0..n).map(dy).collect()
}

fn run_linear(inputs: &[Tensor], dy: OutputGradient, threads: usize) -> Results {
    let [x, w, b] = inputs else { unreachable!() };
    let shape = linear::Shape { rows: x.shape[0], inputs: x.shape[1], outputs: w.shape[0] };
    let mut y = vec![f32::NAN; shape.rows * shape.outputs];
    linear::forward(&mut y, &x.values, &w.values, Some(&b.values), shape, threads);
    let (mut added, residual) = (vec![f32::NAN; y.len()], vec![3.0; y.len()]);
    let (weight, bias) = (&w.values, &b.values);
    linear::forward_residual(&mut added, &residual, &x.values, weight, bias, shape, threads);
    assert!(y.iter().zip(added).all(|(y, added)| (y + 3.0 - added).abs() < 1e-5));
    let dy = each(y.len(), dy);
    let mut dx = vec![f32::NAN; x.values.len()];
    let (mut dw, mut db) = (vec![0.0; w.values.len()], vec![0.0; shape.outputs]);
    linear::backward_input(&mut dx, &dy, &w.values, shape, threads);
    linear::backward_weight(&mut dw, &dy, &x.values, shape, threads);
    linear::backward_bias(&mut db, &dy, threads);
    Results { y, gradients: vec![dx, dw, db] }
}

fn run_embedding(inputs: &[Tensor], dy: OutputGradient, _: usize) -> Results {
    let [table, tokens] = inputs else { unreachable!() };
    let (width, tokens) = (table.shape[1], tokens.tokens());
    let mut y = vec![f32::NAN; tokens.len() * width];
    embedding::forward(&mut y, &tokens, &table.values, width);
    let mut dtable = vec![0.0; table.values.len()];
    embedding::backward_table(&mut dtable, &each(y.len(), dy), &tokens, width);
    Results { y, gradients: vec![dtable] }
}

fn run_layer_norm(inputs: &[Tensor], dy: OutputGradient, threads: usize) -> Results {
    let [x, g, b] = inputs else { unreachable!() };
    let (n, width) = (x.values.len(), g.values.len());
    let (mut y, mut kept) = (vec![f32::NAN; n], vec![Default::default(); n / width]);
    layer_norm::forward(&mut y, &mut kept, &x.values, &g.values, &b.values, threads);
    let dy = each(n, dy);
    let (mut dx, mut dg, mut db) = (vec![0.0; n], vec![0.0; width], vec![0.0; width]);
    layer_norm::backward_input_add(&mut dx, &dy, &x.values, &kept, &g.values, threads);
    layer_norm::backward_gain(&mut dg, &dy, &x.values, &kept, threads);
    linear::backward_bias(&mut db, &dy, threads);
    Results { y, gradients: vec![dx, dg, db] }
}

fn run_gelu(inputs: &[Tensor], dy: OutputGradient, threads: usize, form: gelu::Form) -> Results {
    let x = &inputs[0].values;
    let mut y = vec![f32::NAN; x.len()];
    gelu::forward(&mut y, x, form, threads);
    let mut gradient = each(y.len(), dy);
    gelu::backward(&mut gradient, x, form, threads);
    Results { y, gradients: vec![gradient] }
}

fn run_activation(
    inputs: &[Tensor],
    dy: OutputGradient,
    threads: usize,
    forward: fn(&mut [f32], &[f32], usize),
    backward: fn(&mut [f32], &[f32], usize),
) -> Results {
    let x = &inputs[0].values;
    let mut y = vec![f32::NAN; x.len()];
    forward(&mut y, x, threads);
    let mut gradient = each(y.len(), dy);
    backward(&mut gradient, &y, threads);
    Results { y, gradients: vec![gradient] }
}

fn run_attention(inputs: &[Tensor], dy: OutputGradient, threads: usize, heads: usize) -> Results {
    let qkv = &inputs[0];
    let &[examples, length, triple] = qkv.shape.as_slice() else { unreachable!() };
    let shape = attention::Shape { examples, length, width: triple / 3, heads };
    let mut y = vec![f32::NAN; qkv.values.len() / 3];
    let mut probabilities = vec![f32::NAN; shape.probabilities()];
    attention::forward(&mut y, &mut probabilities, &qkv.values, shape, threads);
    let dy = each(y.len(), dy);
    let mut dqkv = vec![f32::NAN; qkv.values.len()];
    let mut scratch = vec![f32::NAN; shape.scratch()];
    let kept = attention::Kept { y: &y, probabilities: &probabilities, qkv: &qkv.values };
    attention::backward(&mut dqkv, &mut scratch, &dy, kept, shape, threads);
    Results { y, gradients: vec![dqkv] }
}

fn run_gru(inputs: &[Tensor], dy: OutputGradient, threads: usize) -> Results {
    let [x, h, weight_ih, weight_hh, bias_ih, bias_hh] = inputs else { unreachable!() };
    let &[steps, rows, features] = x.shape.as_slice() else { unreachable!() };
    let shape = gru::Shape { rows, hidden: h.shape[1] };
    let (state, gates) = (rows * shape.hidden, 3 * rows * shape.hidden);
    let projection = linear::Shape { rows: steps * rows, inputs: features, outputs: gates / rows };
    let mut input_gates = vec![f32::NAN; steps * gates];
    let bias = Some(&bias_ih.values[..]);
    linear::forward(&mut input_gates, &x.values, &weight_ih.values, bias, projection, threads);
    // States 0 (the given one) to `steps`.
    let mut states = h.values.clone();
    states.resize((steps + 1) * state, f32::NAN);
    let (mut kept, mut scratch) = (vec![f32::NAN; steps * shape.kept()], vec![f32::NAN; gates]);
    for (step, kept) in kept.chunks_mut(shape.kept()).enumerate() {
        let (before, after) = states.split_at_mut((step + 1) * state);
        let input = &input_gates[step * gates..(step + 1) * gates];
        let layer = gru::Hidden { weight: &weight_hh.values, bias: &bias_hh.values };
        let previous = &before[step * state..];
        let step = gru::Step { next: &mut after[..state], kept, hidden_gates: &mut scratch };
        gru::forward_step(step, input, previous, layer, shape, threads);
    }
    let y = states[state..].to_vec();
    let dy = each(y.len(), dy);
    let (mut d_input, mut d_hidden) =
        (vec![f32::NAN; steps * gates], vec![f32::NAN; steps * gates]);
    let mut dh = vec![0.0; state];
    for step in (0..steps).rev() {
        let place = step * gates..(step + 1) * gates;
        dh.iter_mut().zip(&dy[step * state..]).for_each(|(dh, dy)| *dh += dy);
        let dnext = dh.clone();
        let gradients = gru::StepGradients {
            previous: &mut dh,
            input_gates: &mut d_input[place.clone()],
            hidden_gates: &mut d_hidden[place],
        };
        let kept = &kept[step * shape.kept()..(step + 1) * shape.kept()];
        let previous = &states[step * state..(step + 1) * state];
        gru::backward_step(gradients, &dnext, kept, previous, &weight_hh.values, shape, threads);
    }
    let mut dx = vec![f32::NAN; x.values.len()];
    let zeros = |t: &Tensor| vec![0.0; t.values.len()];
    let (mut dwi, mut dwh) = (zeros(weight_ih), zeros(weight_hh));
    let (mut dbi, mut dbh) = (zeros(bias_ih), zeros(bias_hh));
    linear::backward_input(&mut dx, &d_input, &weight_ih.values, projection, threads);
    linear::backward_weight(&mut dwi, &d_input, &x.values, projection, threads);
    let hidden = linear::Shape { rows: steps * rows, ..shape.hidden_linear() };
    linear::backward_weight(&mut dwh, &d_hidden, &states[..steps * state], hidden, threads);
    linear::backward_bias(&mut dbi, &d_input, threads);
    linear::backward_bias(&mut dbh, &d_hidden, threads);
    Results { y, gradients: vec![dx, dh, dwi, dwh, dbi, dbh] }
}

fn run_convolution(
    inputs: &[Tensor],
    dy: OutputGradient,
    threads: usize,
    stride: usize,
    padding: usize,
) -> Results {
    let [x, w, b] = inputs else { unreachable!() };
    let &[examples, channels, height, width] = x.shape.as_slice() else { unreachable!() };
    let (outputs, kernel) = (w.shape[0], w.shape[2]);
    let shape = convolution::Shape {
        examples,
        inputs: channels,
        outputs,
        height,
        width,
        kernel,
        stride,
        padding,
    };
    let mut y = vec![f32::NAN; examples * shape.output_elements()];
    let mut patches = vec![f32::NAN; shape.patches()];
    convolution::forward(&mut y, &mut patches, &x.values, &w.values, &b.values, shape, threads);
    let dy = each(y.len(), dy);
    let mut dx = vec![f32::NAN; x.values.len()];
    let (mut dw, mut db) = (vec![0.0; w.values.len()], vec![0.0; outputs]);
    convolution::backward_input(&mut dx, &mut patches, &dy, &w.values, shape, threads);
    convolution::backward_weight(&mut dw, &mut patches, &dy, &x.values, shape, threads);
    convolution::backward_bias(&mut db, &dy, shape);
    Results { y, gradients: vec![dx, dw, db] }
}

/// Losses of rows and the gradient of their mean, of logits and targets.
pub(crate) fn run_cross_entropy(inputs: &[Tensor], threads: usize) -> Results {
    let [logits, targets] = inputs else { unreachable!() };
    let (rows, width, targets) = (logits.shape[0], logits.shape[1], targets.tokens());
    let (mut losses, mut again) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
    cross_entropy::forward(&mut losses, &logits.values, &targets, width, threads);
    let (mut gradient, scale) = (logits.values.clone(), 1.0 / rows as f32);
    cross_entropy::forward_backward(&mut again, &mut gradient, &targets, width, scale, threads);
    assert_eq!(losses, again);
    Results { y: losses, gradients: vec![gradient] }
}
