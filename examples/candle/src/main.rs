//! A candle model under the sharded optimizer of rankwise, on two ranks:
//!
//! ```text
//! cargo run --release --manifest-path examples/candle/Cargo.toml
//! ```
//!
//! Candle differentiates; rankwise reduces gradients, steps and shares parameters. A tensor of
//! candle owns its memory and cannot be a slice of a flat buffer, so parameters and gradients are
//! copied once a micro-batch, and all gradients become ready at the end of the backward pass:
//! nothing overlaps with it. `examples/own_model.rs` shows how a model does without both.

use std::process::ExitCode;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap, linear, loss, ops};
use rankwise::error::{Error, Result};
use rankwise::launch::{self, Options as Job};
use rankwise::optimizer::distributed::{DistributedOptimizer, Options, StepInput};
use rankwise::optimizer::hyper::Rule;
use rankwise::optimizer::parameter::{GradientSink as _, Parameter, ParameterSource as _};

const MICRO_BATCHES: usize = 4;
const STEPS: u64 = 200;

fn candle(error: candle_core::Error) -> Error {
    Error::internal(format!("candle: {error}"))
}

/// Points inside (class 1) and outside (class 0) of a circle, drawn by number.
fn batch(seed: u64) -> candle_core::Result<(Tensor, Tensor)> {
    let number = |i: u64| ((seed * 64 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32;
    let points: Vec<f32> = (0..128).map(|i| number(i) / 8_388_608.0 - 1.0).collect();
    let inside = |p: &[f32]| u32::from(p[0] * p[0] + p[1] * p[1] < 0.6);
    let classes: Vec<u32> = points.chunks_exact(2).map(inside).collect();
    let device = Device::Cpu;
    Ok((Tensor::from_vec(points, (64, 2), &device)?, Tensor::from_vec(classes, 64, &device)?))
}

/// A perceptron with one hidden layer, and its parameters by name.
struct Model {
    forward: Box<dyn Fn(&Tensor) -> candle_core::Result<Tensor>>,
    variables: Vec<(String, Var)>,
}

impl Model {
    fn new() -> candle_core::Result<Model> {
        let map = VarMap::new();
        let builder = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let (hidden, output) = (linear(2, 32, builder.pp("1"))?, linear(32, 2, builder.pp("2"))?);
        let mut variables: Vec<(String, Var)> = match map.data().lock() {
            Ok(named) => named.iter().map(|(name, var)| (name.clone(), var.clone())).collect(),
            Err(_) => Vec::new(),
        };
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        let forward = move |x: &Tensor| x.apply(&hidden)?.relu()?.apply(&output);
        Ok(Model { forward: Box::new(forward), variables })
    }

    fn loss(&self, seed: u64) -> candle_core::Result<(Tensor, f32)> {
        let (points, classes) = batch(seed)?;
        let scores = (self.forward)(&points)?;
        let right = ops::softmax(&scores, 1)?.argmax(1)?.eq(&classes)?.to_dtype(DType::F32)?;
        Ok((loss::cross_entropy(&scores, &classes)?, right.mean_all()?.to_scalar()?))
    }
}

fn main() -> ExitCode {
    let job = match Job::detect(Some(2)) {
        Ok(job) => job,
        Err(error) => return launch::refuse(&error, None, Default::default()),
    };
    launch::run(&job, |comm| {
        let model = Model::new().map_err(candle)?;
        let named = model.variables.iter();
        let parameters = named.map(|(name, var)| Parameter::new(name, var.dims())).collect();
        let mut optimizer =
            DistributedOptimizer::new(comm, parameters, MICRO_BATCHES, Options::default())?;
        // The owner of a shard sets its initial values; every rank then has them.
        optimizer.initialise(|i| {
            let var = &model.variables[i].1;
            var.flatten_all().and_then(|flat| flat.to_vec1()).unwrap_or_default()
        })?;
        let mut accuracy = 0.0;
        for step in 1..=STEPS {
            for micro_batch in optimizer.own_micro_batches() {
                let (values, gradients) = optimizer.split();
                values.arrive(0..model.variables.len())?;
                for (i, (_, var)) in model.variables.iter().enumerate() {
                    let new = Tensor::from_slice(values.values(i), var.dims(), &Device::Cpu);
                    var.set(&new.map_err(candle)?).map_err(candle)?;
                }
                let seed = step * MICRO_BATCHES as u64 + micro_batch as u64;
                let (loss, right) = model.loss(seed).map_err(candle)?;
                accuracy = right;
                let found = loss.backward().map_err(candle)?;
                for (i, (_, var)) in model.variables.iter().enumerate().rev() {
                    if let Some(gradient) = found.get(var) {
                        let flat = gradient.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
                        let into = gradients.gradient(i).iter_mut();
                        into.zip(flat.map_err(candle)?).for_each(|(into, g)| *into += g);
                    }
                    gradients.ready(i)?;
                }
                optimizer.end_micro_batch()?;
            }
            let scalars = vec![Rule::default().scalars(step, 1e-2, 1.0); model.variables.len()];
            let factor = 1.0 / MICRO_BATCHES as f64;
            optimizer.step(&StepInput { scalars: &scalars, factor, clip: Some(1.0) })?;
        }
        if comm.rank() == 0 {
            println!("right on the last micro-batch: {:.0} %", accuracy * 100.0);
        }
        Ok(())
    })
}
