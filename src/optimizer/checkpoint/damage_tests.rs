//! Damaged, cut off, foreign and hostile files: named and refused, never a panic, and the
//! checkpoint before them loads.

use std::fs;
use std::path::Path;

use super::folders::Name;
use super::manifest::Manifest;
use super::tests::{Dice, load_salted, save_salted};
use super::{PieceMut, TensorInfo, Which, import, plain};
use crate::launch;

/// Loads step 2 and the latest while `file` of step 2 is damaged.
fn expect_refusal(folder: &Path, file: &Path, what: &str) {
    let name = file.file_name().unwrap().to_str().unwrap();
    let error = launch::threads(2, |comm| load_salted(comm, folder, Which::Step(2), 1));
    let error = error.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{what}: {error}");
    let message = error.message;
    assert!(message.contains(&format!("step-00000002/{name}")), "{what}: {message}");
    assert!(message.contains("choose another step: 1"), "{what}: {message}");
    launch::threads(2, |comm| {
        let checkpoint = load_salted(comm, folder, Which::Latest, 1)?;
        assert_eq!(checkpoint.step, 1);
        assert_eq!(checkpoint.refused.len(), 1);
        assert!(checkpoint.refused[0].contains(name), "{what}: {:?}", checkpoint.refused);
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn damage_to_any_file_is_named_and_the_one_before_loads() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for step in 1..=2 {
        launch::threads(3, |comm| save_salted(comm, folder, step, step, 2)).unwrap();
    }
    let entries = fs::read_dir(folder.join("step-00000002")).unwrap();
    let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 4);
    for file in &files {
        let good = fs::read(file).unwrap();
        let len = good.len();
        for cut in [0, 1, 8, len / 2, len - 1] {
            fs::write(file, &good[..cut]).unwrap();
            expect_refusal(folder, file, &format!("cut at {cut}"));
        }
        fs::write(file, [&good[..], b" "].concat()).unwrap();
        expect_refusal(folder, file, "a byte more");
        for (i, at) in [0, 7, 8, len / 4, len / 3, len / 2, len - 1].into_iter().enumerate() {
            let mut bad = good.clone();
            bad[at] ^= 1 << i;
            fs::write(file, bad).unwrap();
            expect_refusal(folder, file, &format!("bit {i} of byte {at}"));
        }
        fs::remove_file(file).unwrap();
        expect_refusal(folder, file, "removed");
        fs::write(file, &good).unwrap();
    }
    let checkpoint = launch::threads(2, |comm| load_salted(comm, folder, Which::Latest, 1));
    assert_eq!(checkpoint.unwrap()[0].step, 2);
    // Where none is left, all are named.
    for step in 1..=2 {
        fs::write(folder.join(format!("step-0000000{step}/rank-00001.safetensors")), "").unwrap();
    }
    let error = launch::threads(2, |comm| load_salted(comm, folder, Which::Latest, 1)).unwrap_err();
    assert!(error.message.contains("no intact checkpoint"), "{error}");
    for step in ["step-00000001/rank-00001", "step-00000002/rank-00001"] {
        assert!(error.message.contains(step), "{error}");
    }
}

#[test]
fn a_folder_under_another_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    launch::threads(2, |comm| save_salted(comm, folder, 1, 1, 2)).unwrap();
    fs::rename(folder.join("step-00000001"), folder.join("step-00000002")).unwrap();
    let error = launch::threads(1, |comm| load_salted(comm, folder, Which::Latest, 1)).unwrap_err();
    assert!(error.message.contains("belongs to step-00000001"), "{error}");
}

const NAME: Name = Name { generation: 1, step: 1 };

fn a_manifest() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = launch::threads(2, |comm| save_salted(comm, folder.path(), 1, 3, 1)).unwrap();
    fs::read(path[0].join("manifest.json")).unwrap()
}

/// The text with a checksum that fits, as a forger would make it.
fn forged(body: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(body);
    [format!("{{\"checksum\":\"crc32:{:08x}\",\n", crc.sum()).as_bytes(), body].concat()
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_manifest_is_found() {
    let good = a_manifest();
    Manifest::decode(&good, NAME).unwrap();
    serde_json::from_slice::<serde_json::Value>(&good).unwrap();
    for at in 0..good.len() {
        Manifest::decode(&good[..at], NAME).unwrap_err();
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        Manifest::decode(&bad, NAME).unwrap_err();
    }
}

#[test]
fn no_manifest_makes_it_panic() {
    let good = a_manifest();
    let body = &good[good.iter().position(|&byte| byte == b'\n').unwrap() + 1..];
    assert_eq!(forged(body), good);
    let mut dice = Dice(42);
    let mut accepted = 0;
    for round in 0..20_000 {
        let mut body = body.to_vec();
        for _ in 0..1 + dice.below(3) {
            let at = dice.below(body.len());
            match round % 4 {
                0 => body[at] = dice.below(256) as u8,
                1 => body[at] = b"0123456789\"[]{},:-e."[dice.below(20)],
                2 => drop(body.drain(at..(at + dice.below(20)).min(body.len()))),
                _ => body
                    .splice(at..at, b"18446744073709551615"[dice.below(20)..].to_vec())
                    .for_each(drop),
            }
        }
        accepted += usize::from(Manifest::decode(&forged(&body), NAME).is_ok());
        let len = dice.below(200);
        let noise: Vec<u8> = (0..len).map(|_| dice.below(256) as u8).collect();
        Manifest::decode(&noise, NAME).unwrap_err();
        Manifest::decode(&forged(&noise), NAME).unwrap_err();
    }
    // Some change no more than the state or an offset that stays inside its file.
    assert!(accepted > 0 && accepted < 15_000, "{accepted}");
    let deep = forged(format!("\"state\":{}", "[".repeat(100_000)).as_bytes());
    Manifest::decode(&deep, NAME).unwrap_err();
}

#[test]
fn hostile_manifests_are_refused_with_the_reason() {
    let good = String::from_utf8(a_manifest()).unwrap();
    let body = good.split_once('\n').unwrap().1;
    let piece = body.split_once("\"pieces\":[[").unwrap().1.split_once(']').unwrap().0.to_string();
    let numbers: Vec<u64> = piece.split(',').map(|n| n.parse().unwrap()).collect();
    let with = |at: usize, number: u64| {
        let mut numbers = numbers.clone();
        numbers[at] = number;
        numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
    };
    for (from, to, wanted) in [
        ("rank-00001.safe", "../../00001.safe", "names a file"),
        ("\"version\":1", "\"version\":2", "format version 2; this program reads 1"),
        ("\"checkpoint\":\"step-00000001\"", "\"checkpoint\":\"x\"", "belongs to x"),
        ("parameter/layer.0.weight", "parameter/layer.1.weight", "listed twice"),
        ("\"shape\":[7,3]", "\"shape\":[7,4294967296,4294967296]", "too large to count"),
        ("\"shape\":[7,3]", "\"shape\":[7,4]", "belong to no rank"),
        ("\"shape\":[7,3]", "\"shape\":[7,2]", "a piece of"),
        (&*piece, &*with(0, 99), "a piece of tensor 99"),
        (&*piece, &*with(1, u64::MAX), "a piece of"),
        (&*piece, &*with(2, 0), "a piece of 0 elements"),
        (&*piece, &*with(2, u64::MAX), "a piece of"),
        (&*piece, &*with(3, u64::MAX), "is not inside rank-00001.safetensors"),
        (&*piece, &*with(3, 1 << 30), "is not inside rank-00001.safetensors"),
        (&*format!("[{piece}]"), &*format!("[{piece}],[{piece}]"), "given twice"),
    ] {
        assert!(body.contains(from), "{from}");
        let error = Manifest::decode(&forged(body.replacen(from, to, 1).as_bytes()), NAME);
        let error = error.unwrap_err();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn no_safetensors_file_makes_an_import_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors = [TensorInfo::new("a", &[3, 2]), TensorInfo::new("b", &[4])];
    let mut good = plain::header(&tensors, None).unwrap();
    good.extend((0..40).map(|i| i as u8));
    let mut dice = Dice(7);
    let mut results = [0; 2];
    for round in 0..3000 {
        let mut bytes = good.clone();
        match round % 3 {
            0 => bytes.truncate(dice.below(bytes.len())),
            1 => bytes[dice.below(8)] = dice.below(256) as u8,
            _ => {
                let at = dice.below(bytes.len() - 40);
                bytes[at] = b"0123456789\"[]{},:-e F"[dice.below(21)];
            }
        }
        fs::write(&path, bytes).unwrap();
        let result = launch::threads(1, |comm| {
            let mut values = [[0.0; 6], [0.0; 6]];
            let [a, b] = &mut values;
            let (a, b) = (&mut a[..], &mut b[..4]);
            let requests = [(0, a), (1, b)];
            let mut requests =
                requests.map(|(tensor, values)| PieceMut { tensor, start: 0, values });
            import(comm, &path, &tensors, &mut requests)
        });
        results[usize::from(result.is_ok())] += 1;
        if let Err(error) = result {
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.message.contains("model.safetensors"), "{error}");
        }
    }
    assert!(results[0] > 2000 && results[1] > 10, "{results:?}");
}
