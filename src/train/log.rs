//! The log of a run: JSON lines, and an event file that TensorBoard reads.
//!
//! A line is complete or not there: it is written in one call and flushed. An event is a TFRecord:
//! length, masked CRC-32C of the length, a `tensorflow.Event` in protocol-buffer form, masked CRC
//! of that. Only scalars are written, for which two message types are enough.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::run::StepLine;
use crate::error::{Error, Result};

/// The files of a run.
#[derive(Debug)]
pub struct Log {
    lines: (PathBuf, File),
    events: (PathBuf, File),
}

impl Log {
    /// Opens the files of a folder, which is made if it does not exist. A run that goes on from
    /// step `after` keeps the lines up to it.
    pub fn open(folder: &Path, after: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, "create", &e))?;
        let path = folder.join("metrics.jsonl");
        let kept = kept_lines(&path, after);
        crate::files::write_atomically(&path, |file| file.write_all(kept.as_bytes()))?;
        let append = |path: PathBuf| {
            let file = File::options().append(true).create(true).open(&path);
            let file = file.map_err(|e| Error::file(&path, "open", &e))?;
            Ok::<_, Error>((path, file))
        };
        let seconds = now().as_secs();
        let mut log = Log {
            lines: append(path)?,
            // TensorBoard reads all files of a folder in the order of their times.
            events: append(folder.join(format!("events.out.tfevents.{seconds}.rankwise")))?,
        };
        log.record(&event(0, &Content::Version("brain.Event:2")))?;
        Ok(log)
    }

    /// Adds a step.
    pub fn add(&mut self, line: &StepLine) -> Result<()> {
        let mut text = serde_json::to_string(line)
            .map_err(|e| Error::internal(format!("a step has no JSON form: {e}")))?;
        text.push('\n');
        let (path, file) = &mut self.lines;
        file.write_all(text.as_bytes()).map_err(|e| Error::file(path, "write", &e))?;
        let mut scalars = vec![
            ("loss", line.loss),
            ("learning_rate", line.lr),
            ("gradient_norm", line.gradient_norm),
            ("loss_scale", line.loss_scale),
            ("units_per_second", line.units_per_second),
        ];
        scalars.extend(line.evaluation.iter().map(|m| (&*m.name, m.value)));
        for (name, value) in scalars {
            self.record(&event(line.step, &Content::Scalar(name, value as f32)))?;
        }
        Ok(())
    }

    fn record(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut bytes = length.to_vec();
        bytes.extend(masked_crc(&length).to_le_bytes());
        bytes.extend(event);
        bytes.extend(masked_crc(event).to_le_bytes());
        let (path, file) = &mut self.events;
        file.write_all(&bytes).map_err(|e| Error::file(path, "write", &e))
    }
}

/// The lines of an earlier run up to a step; none if there are none.
fn kept_lines(path: &Path, after: u64) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let step = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        value.get("step")?.as_u64()
    };
    let kept = text.lines().filter(|line| step(line).is_some_and(|step| step <= after));
    kept.map(|line| format!("{line}\n")).collect()
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What an event says.
enum Content<'a> {
    Version(&'a str),
    Scalar(&'a str, f32),
}

/// A `tensorflow.Event`: wall time (1), step (2), and a version (3) or a summary (5) of one value
/// with a tag (1) and a simple value (2).
fn event(step: u64, content: &Content<'_>) -> Vec<u8> {
    let mut bytes = vec![0x09];
    bytes.extend(now().as_secs_f64().to_le_bytes());
    bytes.push(0x10);
    varint(&mut bytes, step);
    match content {
        Content::Version(version) => field(&mut bytes, 3, version.as_bytes()),
        Content::Scalar(name, value) => {
            let mut inner = Vec::new();
            field(&mut inner, 1, name.as_bytes());
            inner.push(0x15);
            inner.extend(value.to_le_bytes());
            let mut summary = Vec::new();
            field(&mut summary, 1, &inner);
            field(&mut bytes, 5, &summary);
        }
    }
    bytes
}

fn field(bytes: &mut Vec<u8>, number: u8, content: &[u8]) {
    bytes.push(number << 3 | 2);
    varint(bytes, content.len() as u64);
    bytes.extend(content);
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// CRC-32C, bit by bit: a log has a few hundred bytes a line.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let shifted = |crc: u32| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0u32, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| shifted(crc)))
}

/// The CRC as TFRecords store it.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::task::Measure;

    fn line(step: u64) -> StepLine {
        StepLine {
            step,
            loss: 1.5 / step as f64,
            lr: 0.1,
            gradient_norm: 2.0,
            loss_scale: 1.0,
            stepped: true,
            units_per_second: 9.0,
            evaluation: vec![Measure { name: "held_out_loss".into(), value: 3.0 }],
        }
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    /// The records of an event file: (step, tag and value).
    fn records(bytes: &[u8]) -> Vec<(u64, String)> {
        let mut rest = bytes;
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(masked_crc(&rest[..8]).to_le_bytes(), rest[8..12]);
            let event = &rest[12..12 + length];
            assert_eq!(masked_crc(event).to_le_bytes(), rest[12 + length..16 + length]);
            assert_eq!((event[0], event[9]), (0x09, 0x10));
            found.push((u64::from(event[10]), String::from_utf8_lossy(&event[11..]).into_owned()));
            rest = &rest[16 + length..];
        }
        found
    }

    #[test]
    fn a_log_that_goes_on_keeps_what_was_before_and_drops_what_is_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        (1..=5).for_each(|step| log.add(&line(step)).unwrap());
        let mut log = Log::open(folder.path(), 3).unwrap();
        log.add(&line(4)).unwrap();
        let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let steps: Vec<u64> = text
            .lines()
            .map(|l| {
                serde_json::from_str::<serde_json::Value>(l).unwrap()["step"].as_u64().unwrap()
            })
            .collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("tfevents") {
                all.extend(records(&std::fs::read(path).unwrap()));
            }
        }
        assert!(all.iter().any(|(step, text)| *step == 5 && text.contains("held_out_loss")));
        assert!(all[0].1.contains("brain.Event:2"));
    }
}
