//! Plain files: the same bytes from any number of ranks, read by the `safetensors` crate and back.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use super::tests::{layout, model, value};
use super::{Imported, Piece, PieceMut, TensorInfo, export, import};
use crate::error::Result;
use crate::launch;

fn export_at(ranks: usize, path: &Path) -> Result<()> {
    let tensors = model();
    let done = launch::threads(ranks, |comm| {
        let own = &layout(&tensors, ranks, 3)[comm.rank()];
        let values: Vec<Vec<f32>> = own
            .iter()
            .map(|&[t, start, len]| (start..start + len).map(|i| value(t, i, 3)).collect())
            .collect();
        let places = own.iter().zip(&values);
        let pieces: Vec<Piece<'_>> =
            places.map(|(&[tensor, start, _], values)| Piece { tensor, start, values }).collect();
        export(comm, path, &tensors, &pieces)
    });
    done.map(|_| ())
}

#[test]
fn an_export_is_the_same_file_at_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, "an old file").unwrap();
    export_at(1, &path).unwrap();
    let one = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&one).unwrap();
    let tensors = model();
    assert_eq!(file.len(), tensors.len());
    for (t, tensor) in tensors.iter().enumerate() {
        let view = file.tensor(&tensor.name).unwrap();
        assert_eq!((view.shape(), view.dtype()), (&tensor.shape[..], Dtype::F32));
        let wanted = (0..tensor.elements()).flat_map(|i| value(t, i, 3).to_le_bytes());
        assert_eq!(view.data(), wanted.collect::<Vec<u8>>());
    }
    for ranks in 2..=5 {
        export_at(ranks, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), one, "{ranks} ranks");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    for target in [folder.path().to_path_buf(), folder.path().join("missing/model.safetensors")] {
        let error = export_at(2, &target).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.message.contains(target.to_str().unwrap()), "{error}");
    }
}

#[test]
fn an_export_without_a_shared_file_system_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = [TensorInfo::new("w", &[4])];
    let error = launch::threads(2, |comm| {
        let own = folder.path().join(comm.rank().to_string());
        fs::create_dir(&own).unwrap();
        let (start, values) = (2 * comm.rank(), [1.0, 2.0]);
        export(comm, &own.join("w"), &tensors, &[Piece { tensor: 0, start, values: &values }])
    });
    let error = error.unwrap_err();
    assert!(error.message.contains("file system that all nodes share"), "{error}");
    assert_eq!(fs::read_dir(folder.path().join("0")).unwrap().count(), 0, "nothing is left");
}

#[test]
fn an_import_of_an_export_has_the_same_bits_at_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    export_at(3, &path).unwrap();
    let tensors = model();
    for ranks in 1..=5 {
        for seed in 0..2 {
            launch::threads(ranks, |comm| {
                let own = &layout(&tensors, ranks, seed)[comm.rank()];
                let mut values: Vec<Vec<f32>> = own.iter().map(|p| vec![0.0; p[2]]).collect();
                let places = own.iter().zip(&mut values);
                let mut requests: Vec<PieceMut<'_>> = places
                    .map(|(&[tensor, start, _], values)| PieceMut { tensor, start, values })
                    .collect();
                let imported = import(comm, &path, &tensors, &mut requests)?;
                assert_eq!(imported, Imported { unused: vec![] });
                for (&[t, start, _], values) in own.iter().zip(&values) {
                    for (i, found) in values.iter().enumerate() {
                        assert_eq!(found.to_bits(), value(t, start + i, 3).to_bits());
                    }
                }
                Ok(())
            })
            .unwrap();
        }
    }
}

/// Every 16-bit pattern as bf16 and as f16, some integers, and a tensor that nobody wants.
fn foreign_file(path: &Path) {
    let bits: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let tensors = [
        ("brain", view(Dtype::BF16, &[256, 256], &bits[..])),
        ("half", view(Dtype::F16, &[65536], &bits)),
        ("whole", view(Dtype::I64, &[2], &bits[..16])),
        ("spare", view(Dtype::F32, &[1], &bits[..4])),
    ];
    fs::write(path, serialize(tensors, None).unwrap()).unwrap();
}

#[test]
fn every_16_bit_value_is_widened_exactly_and_other_types_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.safetensors");
    foreign_file(&path);
    let tensors = [TensorInfo::new("half", &[65536]), TensorInfo::new("brain", &[256, 256])];
    launch::threads(3, |comm| {
        let start = 1000 * comm.rank();
        let mut values = [vec![0.0; 65536 - start], vec![0.0; 60000]];
        let [half, brain] = &mut values;
        let half = PieceMut { tensor: 0, start, values: half };
        let brain = PieceMut { tensor: 1, start, values: brain };
        let imported = import(comm, &path, &tensors, &mut [half, brain])?;
        let mut unused = imported.unused;
        unused.sort();
        assert_eq!(unused, ["spare", "whole"]);
        for (i, found) in values[0].iter().enumerate() {
            let wanted = f16::from_bits((start + i) as u16).to_f32();
            assert!(found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan());
        }
        for (i, found) in values[1].iter().enumerate() {
            let wanted = bf16::from_bits((start + i) as u16).to_f32();
            assert!(found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan());
        }
        Ok(())
    })
    .unwrap();
    for (tensor, wanted) in [
        (TensorInfo::new("whole", &[2]), "tensor whole is I64; expected F32, BF16 or F16"),
        (TensorInfo::new("brain", &[65536]), "the shape [256, 256]; expected [65536]"),
        (TensorInfo::new("absent", &[1]), "holds no tensor absent"),
    ] {
        let error =
            launch::threads(2, |comm| import(comm, &path, std::slice::from_ref(&tensor), &mut []));
        let error = error.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.message.contains(wanted), "{error}");
        assert!(error.message.contains("foreign.safetensors"), "{error}");
    }
}

#[test]
fn a_header_is_read_as_it_was_written() {
    let tensors = [TensorInfo::new("a\"b", &[2, 3]), TensorInfo::new("c", &[])];
    for format in [None, Some("pt")] {
        let mut bytes = super::plain::header(&tensors, format).unwrap();
        assert_eq!(bytes.len() % 8, 0);
        bytes.extend([0; 28]);
        let metadata = SafeTensors::read_metadata(&bytes).unwrap().1;
        assert_eq!(metadata.offset_keys(), ["a\"b", "c"]);
        let found = metadata.metadata().as_ref().and_then(|map| map.get("format").cloned());
        assert_eq!(found.as_deref(), format);
    }
}
