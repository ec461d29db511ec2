//! The whole model against PyTorch in f64, its order of gradients, training and sampling.

use super::sample::{Reader, Sampling, generate};
use super::*;
use crate::train::layers::tests::{assert_close, read_tensors};
use crate::train::model::Tensors;

const TINY: Config =
    Config { layers: 2, width: 16, heads: 2, context: 10, vocabulary: 40, tied: false };

fn gpt(config: Config) -> Gpt {
    Gpt::new(config, 1).unwrap()
}

/// Sequences that can be learned: each token is followed by its double plus one.
fn batch(config: &Config, examples: usize, length: usize, seed: usize) -> Batch {
    let sequence = |example: usize| {
        let mut token = (7 * example + seed) % config.vocabulary;
        (0..=length).map(move |_| {
            token = (2 * token + 1) % config.vocabulary;
            token as u32
        })
    };
    Batch { examples, length, tokens: (0..examples).flat_map(sequence).collect() }
}

#[test]
fn loss_and_all_gradients_are_those_of_pytorch() {
    let file = read_tensors(include_bytes!("../../../tests/data/train/gpt.safetensors"));
    let tokens = file["tokens"].values.iter().map(|&x| x as u32).collect();
    let batch = Batch { examples: 2, length: TINY.context, tokens };
    for (prefix, tied) in [("untied", false), ("tied", true)] {
        let mut model = gpt(Config { tied, ..TINY });
        let names: Vec<String> = model.parameters().iter().map(|p| p.name.clone()).collect();
        let mut parameters = Tensors::zeros(&model);
        for (values, name) in parameters.values.iter_mut().zip(&names) {
            values.copy_from_slice(&file[&format!("weights.{name}")].values);
        }
        let mut gradients = Tensors::zeros(&model);
        let loss = model.forward_backward(&mut parameters, &batch, 4.0, &mut gradients).unwrap();
        assert_eq!(loss.count, 20);
        assert_close(&[loss.mean() as f32], &file[&format!("{prefix}.loss")].values, "loss");
        for (gradient, name) in gradients.values.iter().zip(&names) {
            let key = format!("{prefix}.{name}");
            let unscaled: Vec<f32> = gradient.iter().map(|x| x / 4.0).collect();
            assert_close(&unscaled, &file[&key].values, &key);
        }
        assert_eq!(model.evaluate(&mut parameters, &batch).unwrap(), loss);
        // Gradients are added to what is there: twice the same is the double, to rounding.
        let before = gradients.clone();
        model.forward_backward(&mut parameters, &batch, 4.0, &mut gradients).unwrap();
        for ((twice, once), name) in gradients.values.iter().zip(&before.values).zip(&names) {
            assert_close(twice, &once.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), name);
        }
    }
}

/// Parameters and gradients that write down what a model asks of them.
struct Watched {
    tensors: Tensors,
    arrived: Vec<bool>,
}

impl ParameterSource for Watched {
    fn arrive(&mut self, parameters: Range<usize>) -> Result<()> {
        self.arrived[parameters].fill(true);
        Ok(())
    }

    fn values(&self, parameter: usize) -> &[f32] {
        assert!(self.arrived[parameter], "parameter {parameter} is read before it arrived");
        &self.tensors.values[parameter]
    }
}

#[test]
fn parameters_arrive_before_use_and_gradients_are_ready_last_layer_first() {
    for tied in [false, true] {
        let mut model = gpt(Config { tied, ..TINY });
        let count = model.parameters().len();
        let tensors = Tensors::initial(&model, 1);
        let mut watched = Watched { tensors, arrived: vec![false; count] };
        let mut gradients = Tensors::zeros(&model);
        let batch = batch(&TINY, 2, 5, 0);
        model.forward_backward(&mut watched, &batch, 1.0, &mut gradients).unwrap();
        assert_eq!(gradients.ready, (0..count).rev().collect::<Vec<_>>());
        assert_eq!(model.parameters()[0].shared_embedding, tied);
        assert_eq!(watched.arrived, vec![true; count]);
    }
}

#[test]
fn bits_depend_on_neither_threads_nor_earlier_micro_batches() {
    let config = Config { width: 48, heads: 3, context: 70, ..TINY };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let run = |threads: usize, earlier: bool| {
        let mut model = Gpt::new(config, threads).unwrap();
        let mut parameters = Tensors::initial(&model, 3);
        let mut gradients = Tensors::zeros(&model);
        if earlier {
            let other = batch(&config, 7, 66, 5);
            model.forward_backward(&mut parameters, &other, 1.0, &mut gradients).unwrap();
            gradients = Tensors::zeros(&model);
        }
        let batch = batch(&config, 5, 67, 0);
        let loss = model.forward_backward(&mut parameters, &batch, 1.0, &mut gradients).unwrap();
        (loss.sum.to_bits(), gradients.values)
    };
    let one = run(1, false);
    assert!(one == run(1, true));
    assert!((2..=4).all(|threads| pool.install(|| run(threads, false)) == one));
}

#[test]
fn plain_gradient_descent_makes_the_loss_fall() {
    for tied in [false, true] {
        let mut model = gpt(Config { tied, ..TINY });
        let mut parameters = Tensors::initial(&model, 1);
        let mut losses = Vec::new();
        for step in 0..50 {
            let mut gradients = Tensors::zeros(&model);
            let batch = batch(&TINY, 8, 10, step % 7);
            let loss = model.forward_backward(&mut parameters, &batch, 1.0, &mut gradients);
            losses.push(loss.unwrap().mean());
            let pairs = parameters.values.iter_mut().zip(&gradients.values);
            for (value, gradient) in pairs.flat_map(|(v, g)| v.iter_mut().zip(g)) {
                *value -= 0.5 * gradient;
            }
        }
        assert!((losses[0] - 40f64.ln()).abs() < 0.1, "{}", losses[0]);
        assert!(losses[49] < 0.7 * losses[0], "{losses:?}");
    }
}

#[test]
fn reading_token_by_token_gives_the_logits_of_the_whole() {
    for tied in [false, true] {
        let mut model = gpt(Config { tied, ..TINY });
        let mut parameters = Tensors::initial(&model, 1);
        // Larger values than the initial ones, so that attention and norms matter.
        parameters.values.iter_mut().flatten().for_each(|x| *x *= 5.0);
        let batch = batch(&TINY, 1, 10, 2);
        model.evaluate(&mut parameters, &batch).unwrap();
        let mut reader = Reader::new(model.config());
        for (at, want) in model.workspace.logits.chunks(TINY.vocabulary).enumerate() {
            reader.read(batch.tokens[at], &mut parameters).unwrap();
            assert_close(&reader.logits, want, "logits");
        }
    }
}

#[test]
fn sampling_is_seeded_and_goes_beyond_the_context() {
    let model = gpt(TINY);
    let mut parameters = Tensors::initial(&model, 1);
    let mut text = |temperature, top_k, seed| {
        let sampling = Sampling { temperature, top_k, seed };
        generate(&TINY, &mut parameters, &[1, 2, 3], 100, sampling).unwrap()
    };
    let first = text(1.0, None, 1);
    assert_eq!((first.len(), &first), (100, &text(1.0, None, 1)));
    assert_ne!(first, text(1.0, None, 2));
    let greedy = text(0.0, None, 1);
    assert_eq!(greedy, text(0.0, None, 2));
    assert_eq!(greedy, text(3.0, Some(1), 5));
    // With small initial weights all tokens are about equally likely, two of them at a time.
    let mut kinds = text(1.0, None, 3);
    kinds.sort_unstable();
    kinds.dedup();
    assert!(kinds.len() > 25, "{kinds:?}");
}

#[test]
fn impossible_requests_are_errors() {
    for config in [
        Config { heads: 3, ..TINY },
        Config { layers: 0, ..TINY },
        Config { vocabulary: 0, ..TINY },
    ] {
        assert_eq!(Gpt::new(config, 1).unwrap_err().exit_code(), 2);
    }
    let mut model = gpt(TINY);
    let mut parameters = Tensors::initial(&model, 1);
    for batch in [
        Batch { examples: 1, length: 11, tokens: vec![0; 12] },
        Batch { examples: 0, length: 3, tokens: vec![] },
        Batch { examples: 1, length: 2, tokens: vec![0, 1, 40] },
    ] {
        assert_eq!(model.evaluate(&mut parameters, &batch).unwrap_err().exit_code(), 2);
    }
    for (prompt, sampling) in [
        (&[][..], Sampling::default()),
        (&[40], Sampling::default()),
        (&[1], Sampling { temperature: f32::NAN, ..Sampling::default() }),
        (&[1], Sampling { top_k: Some(0), ..Sampling::default() }),
    ] {
        let error = generate(&TINY, &mut parameters, prompt, 1, sampling).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
