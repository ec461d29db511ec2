//! Saved with one layout and number of ranks, loaded with another: the same bits. And what a
//! checkpoint refuses. The layouts here serve the other tests too.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::communicator::Communicator;
use crate::error::{Error, ErrorKind, Result};
use crate::launch;

/// Shapes with a scalar, an empty tensor, and sizes about those of the pieces.
pub(super) fn model() -> Vec<TensorInfo> {
    let shapes: [&[usize]; 7] = [&[7, 3], &[64], &[], &[0, 4], &[5, 5], &[1], &[2, 3, 11]];
    let kinds = ["parameter", "exp_avg", "exp_avg_sq"];
    let tensors = kinds.iter().flat_map(|kind| {
        let shapes = shapes.iter().enumerate();
        shapes.map(move |(i, shape)| TensorInfo::new(format!("{kind}/layer.{i}.weight"), shape))
    });
    tensors.collect()
}

/// Any bits at all, NaNs with payloads among them.
pub(super) fn value(tensor: usize, element: usize, salt: u64) -> f32 {
    let mixed = (tensor as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (element as u64 + 1).wrapping_mul(0xd1b5_4a32_d192_ed03)
        ^ salt.wrapping_mul(0x2545_f491_4f6c_dd1d);
    f32::from_bits((mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32) as u32)
}

pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// (tensor, start, length) of the pieces of each rank: uneven, some empty, out of order, and with
/// more than one rank the last but one owns nothing.
pub(super) fn layout(tensors: &[TensorInfo], ranks: usize, seed: u64) -> Vec<Vec<[usize; 3]>> {
    let mut dice = Dice(seed);
    let mut layout = vec![Vec::new(); ranks];
    for (tensor, info) in tensors.iter().enumerate().rev() {
        let mut start = 0;
        while start < info.elements() {
            let len = dice.below(30).min(info.elements() - start);
            let rank = dice.below(ranks);
            let rank = if ranks > 1 && rank == ranks - 2 { ranks - 1 } else { rank };
            layout[rank].push([tensor, start, len]);
            start += len;
        }
    }
    layout
}

/// Saves values of `salt` from this rank.
pub(super) fn save_salted(
    comm: &Communicator,
    folder: &Path,
    step: u64,
    salt: u64,
    keep: usize,
) -> Result<std::path::PathBuf> {
    let tensors = model();
    let own = &layout(&tensors, comm.ranks(), salt)[comm.rank()];
    let values: Vec<Vec<f32>> = own
        .iter()
        .map(|&[tensor, start, len]| (start..start + len).map(|i| value(tensor, i, salt)).collect())
        .collect();
    let pieces: Vec<Piece<'_>> = own
        .iter()
        .zip(&values)
        .map(|(&[tensor, start, _], values)| Piece { tensor, start, values })
        .collect();
    save(comm, folder, step, &tensors, &pieces, &json!({ "salt": salt }), keep)
}

/// Loads with a layout of `seed`, and besides one whole tensor on all ranks, and compares bits.
pub(super) fn load_salted(
    comm: &Communicator,
    folder: &Path,
    which: Which,
    seed: u64,
) -> Result<Checkpoint> {
    let tensors = model();
    let mut own = layout(&tensors, comm.ranks(), seed)[comm.rank()].clone();
    own.push([1, 0, tensors[1].elements()]);
    let mut values: Vec<Vec<f32>> = own.iter().map(|&[.., len]| vec![1.5; len]).collect();
    let mut requests: Vec<PieceMut<'_>> = own
        .iter()
        .zip(&mut values)
        .map(|(&[tensor, start, _], values)| PieceMut { tensor, start, values })
        .collect();
    let checkpoint = load(comm, folder, which, &tensors, &mut requests)?;
    let salt = checkpoint.state["salt"].as_u64().unwrap();
    for (&[tensor, start, _], values) in own.iter().zip(&values) {
        for (i, &found) in values.iter().enumerate() {
            let wanted = value(tensor, start + i, salt);
            assert_eq!(found.to_bits(), wanted.to_bits(), "tensor {tensor} element {}", start + i);
        }
    }
    Ok(checkpoint)
}

#[test]
fn any_number_of_ranks_loads_the_same_bits_that_any_other_saved() {
    let folder = tempfile::tempdir().unwrap();
    for a in 1..=5 {
        let path = folder.path().join(format!("{a}"));
        let saved = launch::threads(a, |comm| save_salted(comm, &path, 100, a as u64, 1)).unwrap();
        assert!(saved.iter().all(|saved| *saved == path.join("step-00000100")));
        for b in 1..=5 {
            for seed in 0..3 {
                let which = if seed == 0 { Which::Latest } else { Which::Step(100) };
                let loaded = launch::threads(b, |comm| load_salted(comm, &path, which, seed));
                for checkpoint in loaded.unwrap() {
                    assert_eq!((checkpoint.step, &checkpoint.path), (100, &saved[0]));
                    assert_eq!(checkpoint.state, json!({ "salt": a }));
                    assert!(checkpoint.refused.is_empty());
                }
            }
        }
    }
}

#[test]
fn rank_files_are_safetensors_that_hold_the_named_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = launch::threads(3, |comm| save_salted(comm, folder.path(), 7, 5, 1)).unwrap();
    let tensors = model();
    for (rank, pieces) in layout(&tensors, 3, 5).iter().enumerate() {
        let bytes = fs::read(path[0].join(format!("rank-0000{rank}.safetensors"))).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let full = pieces.iter().filter(|piece| piece[2] > 0);
        assert_eq!(file.len(), full.clone().count());
        for &[tensor, start, len] in full {
            let view = file.tensor(&format!("{}@{start}", tensors[tensor].name)).unwrap();
            assert_eq!(view.shape(), [len]);
            let wanted: Vec<u8> =
                (start..start + len).flat_map(|i| value(tensor, i, 5).to_le_bytes()).collect();
            assert_eq!(view.data(), wanted);
        }
    }
}

#[test]
fn numbers_of_the_state_read_back_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(1);
    let mut floats: Vec<f64> = (0..2000)
        .map(|_| f64::from_bits(((dice.below(1 << 31) as u64) << 33) ^ dice.below(1 << 31) as u64))
        .filter(|x| x.is_finite())
        .collect();
    floats.extend([0.1, -0.0, 5e-324, f64::MAX, 1e-7, 65536.0]);
    let state = json!({ "floats": floats, "random": [u64::MAX, 1], "text": "a\n\"ü" });
    let loaded = launch::threads(2, |comm| {
        save(comm, folder.path(), 1, &[], &[], &state, 1)?;
        Checkpoint::open(comm, folder.path(), Which::Latest)
    });
    for checkpoint in loaded.unwrap() {
        assert_eq!(checkpoint.state, state);
        for (found, wanted) in checkpoint.state["floats"].as_array().unwrap().iter().zip(&floats) {
            assert_eq!(found.as_f64().unwrap().to_bits(), wanted.to_bits());
        }
    }
}

#[test]
fn the_latest_is_the_last_one_saved_also_after_going_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/on/the/way");
    let steps = |salt: u64, step, keep| {
        let result = launch::threads(2, |comm| {
            save_salted(comm, &path, step, salt, keep)?;
            let latest = load_salted(comm, &path, Which::Latest, salt)?;
            assert_eq!(latest.state["salt"], salt);
            let same = load_salted(comm, &path, Which::Step(step), salt)?;
            assert_eq!(same.state["salt"], salt);
            super::steps(comm, &path)
        });
        result.unwrap().remove(0)
    };
    assert!(launch::threads(2, |comm| super::steps(comm, &path)).unwrap()[1].is_empty());
    assert_eq!(steps(1, 50, 0), [50]);
    assert_eq!(steps(2, 100, 0), [50, 100]);
    assert_eq!(steps(3, 100, 0), [50, 100, 100]);
    assert_eq!(steps(4, 60, 3), [100, 100, 60]);
    assert_eq!(steps(5, 70, 3), [100, 60, 70]);
    assert_eq!(steps(6, 80, 1), [80]);
    assert_eq!(steps(7, 0, 1), [0]);
}

fn refusal<T: Send>(
    ranks: usize,
    body: impl Fn(&Communicator) -> Result<T> + Send + Sync,
) -> Error {
    // Also that all ranks return it, and not only the one that found it.
    let errors = launch::threads(ranks, |comm| Ok(body(comm).err()));
    let errors: Vec<Error> = errors.unwrap().into_iter().map(Option::unwrap).collect();
    assert!(errors.iter().all(|error| error.agreed && error == &errors[0]), "{errors:?}");
    errors[0].clone()
}

fn refused_save(ranks: usize, tensors: &[TensorInfo], pieces: &[(usize, [usize; 3])]) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(ranks, |comm| {
        let values = vec![0.0; 100];
        let own = pieces.iter().filter(|(rank, _)| *rank == comm.rank());
        let own: Vec<Piece<'_>> = own
            .map(|&(_, [tensor, start, len])| Piece { tensor, start, values: &values[..len] })
            .collect();
        save(comm, folder.path(), 1, tensors, &own, &State::Null, 1)
    });
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
    assert_eq!(error.exit_code(), 2);
    error
}

#[test]
fn gaps_overlaps_and_strays_are_named_before_anything_is_written() {
    let tensors = [TensorInfo::new("a", &[4]), TensorInfo::new("exp_avg/b", &[2, 5])];
    let whole = (0, [0, 0, 4]);
    for (pieces, wanted) in [
        (vec![whole, (1, [1, 0, 9])], "tensor exp_avg/b: elements 9..10 belong to no rank"),
        (vec![whole, (1, [1, 1, 9])], "tensor exp_avg/b: elements 0..1 belong to no rank"),
        (vec![(0, [1, 0, 10])], "tensor a: elements 0..4 belong to no rank"),
        (
            vec![whole, (1, [1, 0, 6]), (2, [1, 5, 5])],
            "tensor exp_avg/b: elements 5..6 are given twice, by rank 1 and by rank 2",
        ),
        (vec![whole, (1, [1, 0, 10]), (1, [1, 0, 10])], "0..10 are given twice, by rank 1"),
        (vec![whole, (2, [1, 5, 6])], "tensor exp_avg/b: a piece of 6 elements from 5 on; it has"),
        (vec![whole, (1, [2, 0, 1])], "a piece of tensor 2, and there are 2"),
    ] {
        let error = refused_save(3, &tensors, &pieces);
        assert!(error.message.contains(wanted), "{error}");
    }
    let twice = [TensorInfo::new("a", &[4]), TensorInfo::new("a", &[4])];
    assert!(refused_save(2, &twice, &[]).message.contains("tensor a is listed twice"));
}

#[test]
fn ranks_that_save_different_things_are_told() {
    let folder = tempfile::tempdir().unwrap();
    for odd in 0..2 {
        let error = refusal(3, |comm| {
            let differs = usize::from(comm.rank() == 1);
            let tensors = [TensorInfo::new("w", &[0, 1 + differs * odd])];
            let step = 5 + (differs * (1 - odd)) as u64;
            save(comm, folder.path(), step, &tensors, &[], &State::Null, 1)
        });
        assert_eq!(error.kind, ErrorKind::Disagreement);
        assert!(error.message.contains("different steps or tensors"), "{error}");
    }
}

#[test]
fn other_models_and_missing_checkpoints_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let message = |which, tensors: &[TensorInfo]| {
        let error = refusal(2, |comm| load(comm, &path, which, tensors, &mut []));
        assert_eq!(error.exit_code(), 2);
        error.message
    };
    assert!(message(Which::Latest, &[]).contains("run"));
    fs::create_dir_all(path.join("step-00000003.part")).unwrap();
    assert!(message(Which::Latest, &[]).contains("no complete checkpoint, and 1 unfinished"));
    launch::threads(2, |comm| save_salted(comm, &path, 100, 1, 1)).unwrap();
    assert!(!path.join("step-00000003.part").exists());
    let text = message(Which::Step(3), &[]);
    assert!(text.contains("no checkpoint of step 3; choose another step: 100"), "{text}");
    let tensors = model();
    assert!(message(Which::Latest, &tensors[1..]).contains(&tensors[0].name));
    let mut more = tensors.clone();
    more.push(TensorInfo::new("momentum/x", &[1]));
    assert!(message(Which::Latest, &more).contains("holds no tensor momentum/x"));
    more.pop();
    more[0].shape = vec![3, 7];
    let text = message(Which::Latest, &more);
    assert!(text.contains("parameter/layer.0.weight has the shape [7, 3]; expected [3, 7]"));
    let error = refusal(2, |comm| {
        let mut values = vec![0.0; 22];
        let request = PieceMut { tensor: 0, start: 0, values: &mut values };
        load(comm, &path, Which::Latest, &tensors, &mut [request])
    });
    assert!(error.message.contains("a piece of 22 elements from 0 on; it has 21"), "{error}");
}

#[test]
fn a_part_of_the_tensors_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    launch::threads(3, |comm| save_salted(comm, folder.path(), 1, 9, 1)).unwrap();
    launch::threads(2, |comm| {
        let checkpoint = Checkpoint::open(comm, folder.path(), Which::Step(1))?;
        assert_eq!(checkpoint.tensors, model());
        let wanted = [checkpoint.tensors[20].clone(), checkpoint.tensors[4].clone()];
        let mut values = vec![0.0; 25];
        let request = PieceMut { tensor: 1, start: 0, values: &mut values };
        checkpoint.read(comm, &wanted, &mut [request])?;
        let wanted: Vec<u32> = (0..25).map(|i| value(4, i, 9).to_bits()).collect();
        assert_eq!(values.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), wanted);
        Ok(())
    })
    .unwrap();
}

#[test]
fn nodes_without_a_shared_file_system_are_told() {
    let folder = tempfile::tempdir().unwrap();
    for leftover in [false, true] {
        let of = |rank: usize| folder.path().join(format!("{leftover}-{rank}"));
        // Even where a stale folder of that name misleads the rank, its file is missed.
        if leftover {
            fs::create_dir_all(of(2).join("step-00000001.part")).unwrap();
        }
        let error = refusal(3, |comm| {
            let of = of(if comm.rank() == 2 { 2 } else { 0 });
            save_salted(comm, &of, 1, 1, 1)
        });
        assert!(error.message.contains("file system that all nodes share"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert_eq!(fs::read_dir(of(0)).unwrap().count(), 0, "nothing is left behind");
        launch::threads(2, |comm| save_salted(comm, &of(0), 1, 1, 1)).unwrap();
        let error = refusal(3, |comm| {
            let of = of(if comm.rank() == 1 { 7 } else { 0 });
            load_salted(comm, &of, Which::Step(1), 1)
        });
        assert!(error.message.contains("not all nodes see the same file system"), "{error}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refusal(2, |comm| save_salted(comm, &path, 1, 1, 1));
        assert_eq!(error.exit_code(), 2);
        assert!(error.message.contains("file"), "{error}");
    }
}
