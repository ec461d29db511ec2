//! The distributed optimizer on ranks that are threads: the same bits for any number of ranks,
//! placement, bucket size, overlap and sharing, compared with a plain serial reference.

#![allow(clippy::unwrap_used)]

use rankwise::communicator::{Communicator, Settings};
use rankwise::element::Op;
use rankwise::error::{Error, ErrorKind, Result};
use rankwise::launch;
use rankwise::optimizer::distributed::{
    Bytes, DistributedOptimizer, Options, Passes, Precision, StepInput, StepReport,
};
use rankwise::optimizer::gradients::Gradients;
use rankwise::optimizer::parameter::{GradientSink, Parameter, ParameterSource};
use rankwise::reduce::step::{AdamScalars, Copy16, Elements, Scalars, step};
use rankwise::sharding::Sharding;

/// Odd parameters: empty, one element, larger than shards and buckets, one shared.
fn parameters() -> Vec<Parameter> {
    let shapes: [&[usize]; 7] = [&[37, 11], &[11], &[0], &[1], &[129, 3], &[64], &[500]];
    let named = shapes.iter().enumerate();
    let mut parameters: Vec<Parameter> =
        named.map(|(i, shape)| Parameter::new(format!("layer.{i}"), shape)).collect();
    parameters[5].shared_embedding = true;
    parameters
}

fn start(parameter: usize, elements: usize) -> Vec<f32> {
    (0..elements).map(|i| ((parameter * 31 + i * 7) % 23) as f32 * 0.03 - 0.3).collect()
}

/// A gradient that depends on the micro-batch and the values, with sums that round.
fn gradient(micro_batch: usize, parameter: usize, values: &[f32], into: &mut [f32]) {
    for (i, (g, x)) in into.iter_mut().zip(values).enumerate() {
        let t = x * 3.7 + (micro_batch * 5 + parameter * 3 + i % 13) as f32 * 0.11;
        *g += t - t * t * t / 6.0 + 1e-3 * (micro_batch as f32 + 0.3);
    }
}

fn backward(
    micro_batch: usize,
    source: &mut impl ParameterSource,
    sink: &mut Gradients,
    parameters: &[Parameter],
) -> Result<()> {
    // A forward pass uses the first layers first.
    for (i, parameter) in parameters.iter().enumerate() {
        source.arrive(i..i + 1)?;
        assert_eq!(source.values(i).len(), parameter.elements());
    }
    for i in (0..parameters.len()).rev() {
        let values = source.values(i).to_vec();
        gradient(micro_batch, i, &values, sink.gradient(i));
        sink.ready(i)?;
    }
    Ok(())
}

fn rules(parameters: &[Parameter], t: i32) -> Vec<Scalars> {
    let adam = |parameter: &Parameter| {
        let decay = if parameter.shape.len() > 1 { 0.1 } else { 0.0 };
        let (lr, b1, b2) = (1e-2f64, 0.9f64, 0.95f64);
        Scalars::Adam(AdamScalars {
            keep: (1.0 - lr * decay) as f32,
            l2: 0.0,
            beta1: b1 as f32,
            one_minus_beta1: (1.0 - b1) as f32,
            beta2: b2 as f32,
            one_minus_beta2: (1.0 - b2) as f32,
            rate: (lr / (1.0 - b1.powi(t))) as f32,
            correction2_sqrt: (1.0 - b2.powi(t)).sqrt() as f32,
            epsilon: 1e-8,
        })
    };
    parameters.iter().map(adam).collect()
}

const STEPS: i32 = 100;
const CLIP: f64 = 2.0;

/// Trains and returns the bits of all parameters and the reports.
fn train(
    c: &Communicator,
    micro_batches: usize,
    options: Options,
    clip: Option<f64>,
) -> Result<(Vec<Vec<u32>>, Vec<StepReport>)> {
    let parameters = parameters();
    let mut optimizer = DistributedOptimizer::new(c, parameters.clone(), micro_batches, options)?;
    optimizer.initialise(|i| start(i, parameters[i].elements()))?;
    let mut reports = Vec::new();
    for t in 1..=STEPS {
        for micro_batch in optimizer.own_micro_batches() {
            let (source, sink) = optimizer.split();
            backward(micro_batch, source, sink, &parameters)?;
            optimizer.end_micro_batch()?;
        }
        let scalars = rules(&parameters, t);
        let factor = 1.0 / micro_batches as f64;
        reports.push(optimizer.step(&StepInput { scalars: &scalars, factor, clip })?);
    }
    optimizer.synchronise()?;
    let (source, _) = optimizer.split();
    let bits = |i: usize| source.values(i).iter().map(|x| x.to_bits()).collect();
    Ok(((0..parameters.len()).map(bits).collect(), reports))
}

/// The same on one rank without the optimizer: whole vectors, one after another.
fn reference(micro_batches: usize, clip: Option<f64>) -> Vec<Vec<u32>> {
    let parameters = parameters();
    let all = launch::threads(1, |c| {
        let mut values: Vec<Vec<f32>> =
            (0..parameters.len()).map(|i| start(i, parameters[i].elements())).collect();
        let zeros = || parameters.iter().map(|p| vec![0f32; p.elements()]).collect::<Vec<_>>();
        let (mut m, mut v) = (zeros(), zeros());
        for t in 1..=STEPS {
            let mut sums = Vec::new();
            for (i, values) in values.iter().enumerate() {
                let leaves: Vec<Vec<f32>> = (0..micro_batches)
                    .map(|batch| {
                        let mut leaf = vec![0.0; values.len()];
                        gradient(batch, i, values, &mut leaf);
                        leaf
                    })
                    .collect();
                let leaves: Vec<&[f32]> = leaves.iter().map(Vec::as_slice).collect();
                let sharding = Sharding::even(values.len(), 1);
                sums.push(c.reduce_scatter_contributions(&sharding, &leaves, Op::Sum)?);
            }
            // Squares of f32 are exact in f64, and these few add up without a rounding that the
            // rounding to f32 could show.
            let squares: f64 = sums.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum();
            let norm = squares.sqrt() / micro_batches as f64;
            let clip = clip.map_or(1.0, |most| most / (norm + 1e-6)).min(1.0);
            let factor = 1.0 / micro_batches as f64 * clip;
            for (i, scalars) in rules(&parameters, t).iter().enumerate() {
                let elements = Elements {
                    p: &mut values[i],
                    g: &sums[i],
                    m: &mut m[i],
                    v: &mut v[i],
                    copy: Copy16::None,
                };
                step(scalars, factor as f32, elements);
            }
        }
        Ok(values)
    });
    let bits = |values: &Vec<f32>| values.iter().map(|x| x.to_bits()).collect();
    all.unwrap()[0].iter().map(bits).collect()
}

fn small() -> Options {
    Options { bucket_elements: Some(300), ..Options::default() }
}

#[test]
fn any_ranks_and_options_give_the_bits_of_the_serial_reference() {
    let separate = Passes::Separate;
    let of = |share, overlap, bucket_elements, passes| Options {
        share,
        overlap,
        bucket_elements,
        passes,
        ..Options::default()
    };
    for micro_batches in [1, 4, 12] {
        for clip in [Some(CLIP), None] {
            let expected = reference(micro_batches, clip);
            for ranks in [1, 2, 3, 4, 7] {
                for options in [
                    of(true, true, None, separate),
                    of(false, true, Some(300), separate),
                    of(true, false, Some(1), Passes::Folded),
                    of(true, true, Some(300), Passes::Fused),
                    of(false, true, None, Passes::Fused),
                ] {
                    if clip.is_none() && (options.passes != Passes::Fused || ranks > 4) {
                        continue;
                    }
                    let found =
                        launch::threads(ranks, |c| train(c, micro_batches, options, clip)).unwrap();
                    for (rank, (values, reports)) in found.iter().enumerate() {
                        let what =
                            format!("{micro_batches} micro-batches, {ranks} ranks, {options:?}");
                        assert_eq!(values, &expected, "rank {rank}: {what}");
                        assert_eq!(reports, &found[0].1, "rank {rank}: {what}");
                        assert!(reports.iter().all(|r| r.stepped));
                        assert!(reports.iter().any(|r| r.norm > CLIP), "clipping was needed");
                    }
                }
            }
        }
    }
}

#[test]
fn nodes_change_no_bit() {
    let expected = reference(4, Some(CLIP));
    for nodes in [[0, 1, 2, 3], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]] {
        for overlap in [true, false] {
            let settings = Settings::default();
            let found = launch::threads_on_nodes(&nodes, settings, |c| {
                train(c, 4, Options { overlap, ..small() }, Some(CLIP))
            });
            assert!(found.unwrap().iter().all(|(values, _)| *values == expected));
        }
    }
}

#[test]
fn sixteen_bit_parameters_have_the_same_bits_on_any_ranks_and_are_rounded_main_parameters() {
    for precision in [Precision::Bf16, Precision::F16] {
        let options = Options { precision, ..small() };
        let one = launch::threads(1, |c| train(c, 4, options, None)).unwrap();
        for ranks in [2, 3, 4] {
            for (share, passes) in [(true, Passes::Separate), (false, Passes::Fused)] {
                let found = launch::threads(ranks, |c| {
                    train(c, 4, Options { share, passes, ..options }, None)
                });
                assert!(found.unwrap().iter().all(|(values, _)| *values == one[0].0));
            }
        }
        let low = if precision == Precision::Bf16 { 16 } else { 13 };
        let rounded = |bits: &u32| bits & ((1 << low) - 1) == 0;
        assert!(one[0].0.iter().flatten().all(rounded), "{precision:?}");
    }
}

#[test]
fn sixteen_bit_gradients_have_the_same_bits_under_all_options() {
    for (precision, micro_batches) in [(Precision::Bf16, 4), (Precision::F16, 6)] {
        for ranks in [1, 2, 3, 4] {
            let clip = Some(CLIP).filter(|_| ranks % 2 == 0);
            let base = Options { precision, narrow_gradients: true, ..small() };
            let run = |options: Options| {
                launch::threads(ranks, |c| train(c, micro_batches, options, clip)).unwrap()
            };
            let expected = run(base);
            let wide = run(Options { narrow_gradients: false, ..base });
            assert!(wide[0].0 != expected[0].0, "gradients are rounded");
            for options in [
                Options { overlap: false, bucket_elements: None, ..base },
                Options { passes: Passes::Folded, bucket_elements: Some(1), ..base },
                Options { passes: Passes::Fused, share: false, ..base },
            ] {
                let found = run(options);
                let what = format!("{micro_batches} on {ranks} ranks, {options:?}");
                assert!(found == expected, "{what}");
            }
            let nodes: Vec<usize> = (0..ranks).collect();
            let apart = launch::threads_on_nodes(&nodes, Settings::default(), |c| {
                train(c, micro_batches, base, clip)
            });
            assert!(apart.unwrap() == expected, "between nodes, {ranks} ranks");
        }
    }
}

#[test]
fn sixteen_bit_gradients_are_near_those_of_f32() {
    let options = Options { precision: Precision::Bf16, ..small() };
    let run = |narrow_gradients| {
        let options = Options { narrow_gradients, ..options };
        launch::threads(3, |c| train(c, 3, options, None)).unwrap()[0].clone()
    };
    let (narrow, wide) = (run(true), run(false));
    for (a, b) in narrow.1.iter().zip(&wide.1).take(5) {
        assert!((a.norm / b.norm - 1.0).abs() < 0.02, "{} and {}", a.norm, b.norm);
    }
}

#[test]
fn a_nan_on_one_rank_skips_the_step_on_all_and_changes_nothing() {
    for (bad, passes) in [(f32::NAN, Passes::Separate), (f32::INFINITY, Passes::Folded)] {
        let options = Options { passes, ..small() };
        let all = launch::threads(3, |c| {
            let parameters = parameters();
            let mut optimizer = DistributedOptimizer::new(c, parameters.clone(), 3, options)?;
            optimizer.initialise(|i| start(i, parameters[i].elements()))?;
            let mut stepped = Vec::new();
            for t in 1..=3 {
                let before = state_of(&mut optimizer)?;
                for micro_batch in optimizer.own_micro_batches() {
                    let (source, sink) = optimizer.split();
                    if t == 2 && c.rank() == 1 {
                        sink.gradient(4)[17] = bad;
                    }
                    backward(micro_batch, source, sink, &parameters)?;
                    optimizer.end_micro_batch()?;
                }
                let scalars = rules(&parameters, t);
                let input = StepInput { scalars: &scalars, factor: 1.0, clip: None };
                stepped.push(optimizer.step(&input)?.stepped);
                assert_eq!(state_of(&mut optimizer)? == before, t == 2, "step {t}");
            }
            Ok(stepped)
        });
        assert!(all.unwrap().iter().all(|stepped| *stepped == [true, false, true]));
    }
}

#[test]
fn one_pass_says_when_it_has_applied_a_gradient_that_is_not_finite() {
    let error = launch::threads(2, |c| {
        let parameters = parameters();
        let options = Options { passes: Passes::Fused, ..small() };
        let mut optimizer = DistributedOptimizer::new(c, parameters.clone(), 2, options)?;
        for micro_batch in optimizer.own_micro_batches() {
            let (source, sink) = optimizer.split();
            sink.gradient(4)[17] = if c.rank() == 1 { f32::NAN } else { 0.0 };
            backward(micro_batch, source, sink, &parameters)?;
            optimizer.end_micro_batch()?;
        }
        let scalars = rules(&parameters, 1);
        optimizer.step(&StepInput { scalars: &scalars, factor: 1.0, clip: None })
    });
    let error: Error = error.unwrap_err();
    assert!(error.message.contains("not finite (norm NaN)"), "{error}");
}

#[test]
fn settings_of_the_communicator_change_no_bit() {
    let expected = reference(4, Some(CLIP));
    for settings in [
        Settings { piece_bytes: 512, ..Settings::default() },
        Settings { ranks_per_node: Some(2), ..Settings::default() },
        Settings { ranks_per_node: Some(1), piece_bytes: 1024, ..Settings::default() },
    ] {
        let found =
            launch::threads_on_nodes(&[0; 4], settings, |c| train(c, 4, small(), Some(CLIP)));
        assert!(found.unwrap().iter().all(|(values, _)| *values == expected), "{settings:?}");
    }
}

/// Parameters whose padding does not count beside them: 1 M elements in three buckets.
fn large() -> Vec<Parameter> {
    let shapes = [[700, 500], [350, 1000], [900, 333]];
    let named = shapes.iter().enumerate();
    named.map(|(i, shape)| Parameter::new(format!("w{i}"), shape)).collect()
}

/// What a rank allocates for its optimizer, and what it says it holds. The ranks pretend to be on
/// nodes of their own, so that nothing is shared.
fn memory(ranks: usize, precision: Precision, narrow_gradients: bool) -> Vec<(f64, Bytes)> {
    let nodes: Vec<usize> = (0..ranks).collect();
    let elements: usize = large().iter().map(Parameter::elements).sum();
    let buckets = Some(340_000);
    let options =
        Options { precision, narrow_gradients, bucket_elements: buckets, ..Options::default() };
    let measured = launch::threads_on_nodes(&nodes, Settings::default(), |c| {
        let mut made = None;
        let counted = allocation_counter::measure(|| {
            made = Some(DistributedOptimizer::new(c, large(), ranks, options));
        });
        let optimizer = made.unwrap()?;
        Ok((counted.bytes_current as f64 / elements as f64, optimizer.bytes()))
    });
    measured.unwrap()
}

#[test]
fn memory_is_that_of_the_formulas() {
    let elements: f64 = large().iter().map(Parameter::elements).sum::<usize>() as f64;
    for ranks in [1, 2, 4, 8] {
        let d = ranks as f64;
        // 16-bit parameters are computed with in f32: 4 more, which the formula has not.
        let formulas = [
            (Precision::F32, false, 8.0 + 8.0 / d, 0.0),
            (Precision::Bf16, false, 6.0 + 12.0 / d, 4.0),
            (Precision::F16, false, 6.0 + 12.0 / d, 4.0),
            // 4/d less than Megatron-LM, which has f32 main gradients.
            (Precision::F16, true, 4.0 + 12.0 / d, 4.0),
        ];
        for (precision, narrow, formula, computation) in formulas {
            for (allocated, bytes) in memory(ranks, precision, narrow) {
                let what = format!("{precision:?} ({narrow}) on {ranks} ranks");
                let ratio = allocated / (formula + computation);
                assert!((0.999..1.03).contains(&ratio), "{what}: {allocated} bytes a parameter");
                let each = |bytes: usize| bytes as f64 / elements;
                let said = bytes.parameters + bytes.gradients + bytes.main + bytes.moments;
                let ratio = each(said) / formula;
                assert!((0.999..1.03).contains(&ratio), "{what}: {bytes:?}");
                assert!((each(bytes.computation) - computation).abs() < 0.1, "{what}: {bytes:?}");
            }
        }
    }
}

#[test]
fn ranks_of_a_node_hold_the_parameters_together() {
    let elements: usize = large().iter().map(Parameter::elements).sum();
    let parameters = |ranks: usize, share: bool| {
        let options = Options { share, ..Options::default() };
        let bytes = launch::threads(ranks, |c| {
            Ok(DistributedOptimizer::new(c, large(), ranks, options)?.bytes().parameters)
        });
        (bytes.unwrap()[0] as f64 / elements as f64).round()
    };
    // One copy a node instead of one a rank.
    assert_eq!([1, 2, 4].map(|ranks| parameters(ranks, true)), [4.0, 2.0, 1.0]);
    assert_eq!([1, 2, 4, 8].map(|ranks| parameters(ranks, false)), [4.0; 4]);
}

fn state_of(optimizer: &mut DistributedOptimizer) -> Result<Vec<Vec<u32>>> {
    optimizer.synchronise()?;
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let state = optimizer.state();
    Ok(state.flat_map(|(_, main, [m, v])| [bits(main), bits(m), bits(v)]).collect())
}

#[test]
fn an_unused_parameter_is_named_or_zero() {
    let run = |unused_is_zero: bool| {
        launch::threads(2, |c| {
            let parameters = parameters();
            let options = Options { unused_is_zero, ..small() };
            let mut optimizer = DistributedOptimizer::new(c, parameters.clone(), 2, options)?;
            let (_, sink) = optimizer.split();
            for i in (0..parameters.len()).filter(|&i| i != 4).rev() {
                sink.gradient(i).fill(1.0);
                sink.ready(i)?;
            }
            optimizer.end_micro_batch()?;
            let scalars = rules(&parameters, 1);
            optimizer.step(&StepInput { scalars: &scalars, factor: 0.5, clip: None })
        })
    };
    let error: Error = run(false).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Input);
    assert!(error.message.contains("no gradient for 'layer.4'"), "{error}");
    let used: usize = parameters().iter().map(Parameter::elements).sum::<usize>() - 129 * 3;
    let report = run(true).unwrap()[0];
    assert_eq!(report, StepReport { norm: (used as f64).sqrt(), stepped: true });
}

#[test]
fn wrong_models_and_steps_are_named() {
    let message =
        |work: fn(&Communicator) -> Result<()>| launch::threads(2, work).unwrap_err().message;
    let two = |c: &Communicator| {
        let twice = vec![Parameter::new("w", &[1]), Parameter::new("w", &[2])];
        DistributedOptimizer::new(c, twice, 2, Options::default()).map(|_| ())
    };
    assert!(message(two).contains("two parameters are named 'w'"));
    let none = |c: &Communicator| {
        DistributedOptimizer::new(c, parameters(), 0, Options::default()).map(|_| ())
    };
    assert!(message(none).contains("at least one micro-batch"));
    let missing = |c: &Communicator| {
        let mut optimizer = DistributedOptimizer::new(c, parameters(), 4, Options::default())?;
        let scalars = rules(&parameters(), 1);
        optimizer.step(&StepInput { scalars: &scalars, factor: 1.0, clip: None }).map(|_| ())
    };
    assert!(message(missing).contains("has 2 micro-batches on this rank, and 0 came"));
    let few = |c: &Communicator| {
        let mut optimizer = DistributedOptimizer::new(c, parameters(), 4, Options::default())?;
        optimizer.step(&StepInput { scalars: &[], factor: 1.0, clip: None }).map(|_| ())
    };
    assert!(message(few).contains("0 rules"));
}
