//! A model of your own under the sharded optimizer, on any number of ranks:
//!
//! ```text
//! cargo run --release --example own_model
//! mpirun -n 2 target/release/examples/own_model
//! ```
//!
//! Least squares: y = w·x + b with ten weights. The model reads its parameters from the optimizer's
//! buffers and adds its gradients to them; it says when a gradient is ready, which is when the
//! reduction of its bucket may start. The last line has the same bits on any number of ranks.

#![allow(clippy::print_stdout)] // the result is a line

use rankwise::error::Result;
use rankwise::launch::{self, Options as Job};
use rankwise::optimizer::distributed::{DistributedOptimizer, Options, StepInput};
use rankwise::optimizer::hyper::Rule;
use rankwise::optimizer::parameter::{GradientSink, Parameter, ParameterSource};
use std::process::ExitCode;

const MICRO_BATCHES: usize = 8;

/// Adds the gradient of the mean squared error of one micro-batch.
fn learn(seed: u64, from: &mut dyn ParameterSource, into: &mut dyn GradientSink) -> Result<()> {
    from.arrive(0..2)?;
    let (w, b) = (from.values(0), from.values(1)[0]);
    let (mut by_w, mut by_b) = ([0.0; 10], 0.0);
    for sample in 0..32 {
        let number = |i: u64| ((seed * 331 + sample * 17 + i * 7919) % 101) as f32 / 50.0 - 1.0;
        let x: [f32; 10] = std::array::from_fn(|i| number(i as u64));
        let truth: f32 = 0.5 + x.iter().zip(1..).map(|(x, k)| x / k as f32).sum::<f32>();
        let error = b + w.iter().zip(&x).map(|(w, x)| w * x).sum::<f32>() - truth;
        by_w.iter_mut().zip(&x).for_each(|(g, x)| *g += 2.0 * error * x / 32.0);
        by_b += 2.0 * error / 32.0;
    }
    into.gradient(1)[0] += by_b;
    into.ready(1)?;
    into.gradient(0).iter_mut().zip(by_w).for_each(|(into, g)| *into += g);
    into.ready(0)
}

fn main() -> ExitCode {
    let job = match Job::detect(Some(2)) {
        Ok(job) => job,
        Err(error) => return launch::refuse(&error, None, Default::default()),
    };
    launch::run(&job, |comm| {
        let parameters = vec![Parameter::new("weight", &[10]), Parameter::new("bias", &[1])];
        let mut optimizer =
            DistributedOptimizer::new(comm, parameters, MICRO_BATCHES, Options::default())?;
        for step in 1..=300 {
            for micro_batch in optimizer.own_micro_batches() {
                let (parameters, gradients) = optimizer.split();
                learn(step * 8 + micro_batch as u64, parameters, gradients)?;
                optimizer.end_micro_batch()?;
            }
            let scalars = [Rule::default().scalars(step, 0.05, 0.0); 2];
            let factor = 1.0 / MICRO_BATCHES as f64;
            optimizer.step(&StepInput { scalars: &scalars, factor, clip: Some(1.0) })?;
        }
        optimizer.synchronise()?;
        let (parameters, _) = optimizer.split();
        if comm.rank() == 0 {
            println!("weights {:?}, bias {:?}", parameters.values(0), parameters.values(1));
        }
        Ok(())
    })
}
