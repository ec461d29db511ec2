//! Writing files so that a reader never sees half of one.
//!
//! A file is written under a temporary name in the folder of its target, flushed to the disk, and
//! then renamed: the target holds the old contents or the new, whatever happens in between. A run
//! that writes files ends with a manifest that lists them, written last, so that a missing
//! manifest means an unfinished run. Cost: one pass over the data, which also takes its checksum.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::error::{Error, Result};

/// A file that was written, as the manifest lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FileRecord {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// `crc32:` and the CRC-32 of its contents (the one of gzip and zip) in hexadecimal.
    pub checksum: String,
}

/// The writer that [`write_atomically`] hands out: buffered, counted and checksummed.
#[derive(Debug)]
pub struct AtomicWriter {
    file: BufWriter<File>,
    crc: flate2::Crc,
}

impl Write for AtomicWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write_all(data)?;
        self.crc.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Removes the temporary file unless the rename has taken it away, also when `write` panics.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // The error that led here is the one to report.
        fs::remove_file(&self.0).ok();
    }
}

/// Refuses a file whose folder does not exist, before time is spent on its contents.
pub fn check_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() {
        return Ok(());
    }
    Err(Error::input(format!(
        "{}: its folder {} does not exist; create it first",
        path.display(),
        folder.display()
    )))
}

/// Writes `path` by calling `write`; on success the file is on the disk under its name, on an
/// error or a panic the old contents stay and nothing else is left behind.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut AtomicWriter) -> io::Result<()>,
) -> Result<FileRecord> {
    let failed = |doing: &str, error: &io::Error| Error::file(path, doing, error);
    let Some(name) = path.file_name().filter(|_| !path.is_dir()) else {
        return Err(Error::input(format!(
            "{}: is a folder; expected the name of a file to write",
            path.display()
        )));
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Several ranks may be threads of one process, or processes on several nodes.
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.{serial}.tmp", std::process::id()));
    let temporary = folder.join(temporary_name);

    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(|e| failed("create a file in its folder", &e))?;
    let temporary = Temporary(temporary);
    let mut writer =
        AtomicWriter { file: BufWriter::with_capacity(1 << 20, file), crc: flate2::Crc::new() };
    write(&mut writer).map_err(|e| failed("write", &e))?;
    let AtomicWriter { file, crc } = writer;
    let file = file.into_inner().map_err(|e| failed("write", e.error()))?;
    file.sync_all().map_err(|e| failed("flush to the disk", &e))?;
    let bytes = file.metadata().map_err(|e| failed("read its length", &e))?.len();
    fs::rename(&temporary.0, path).map_err(|e| failed("rename its temporary file", &e))?;
    std::mem::forget(temporary);
    // The rename itself is only on the disk once the folder is.
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed("flush its folder", &e))?;
    let checksum = format!("crc32:{:08x}", crc.sum());
    Ok(FileRecord { path: path.to_path_buf(), bytes, checksum })
}

/// The manifest of a run.
#[derive(Serialize)]
struct Manifest<'a, S> {
    version: u32,
    rankwise: &'static str,
    command: &'a str,
    ranks: usize,
    files: &'a [FileRecord],
    summary: &'a S,
}

/// The name of the manifest of `output`: `<output>.manifest.json`.
pub fn manifest_path(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_os_string();
    name.push(".manifest.json");
    PathBuf::from(name)
}

/// Writes the manifest of a run whose main output is `output`. Call it last.
pub fn manifest(
    output: &Path,
    command: &str,
    ranks: usize,
    files: &[FileRecord],
    summary: &impl Serialize,
) -> Result<FileRecord> {
    let rankwise = env!("CARGO_PKG_VERSION");
    let manifest = Manifest { version: 1, rankwise, command, ranks, files, summary };
    write_atomically(&manifest_path(output), |writer| {
        serde_json::to_writer_pretty(&mut *writer, &manifest)?;
        writer.write_all(b"\n")
    })
}

/// Removes the manifest of an earlier run with the same output. Call it before writing, or a run
/// that dies half-way would leave new files under an old manifest.
pub fn remove_manifest(output: &Path) -> Result<()> {
    let path = manifest_path(output);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file(&path, "remove the manifest of an earlier run", &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_with_its_length_and_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.txt");
        let record = write_atomically(&path, |w| {
            w.write_all(b"12345")?;
            assert!(!path.exists());
            w.write_all(b"6789")
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"123456789");
        // The check value that defines this CRC.
        assert_eq!((record.bytes, record.checksum.as_str()), (9, "crc32:cbf43926"));
        assert_eq!(names(folder.path()), ["numbers.txt"]);
    }

    #[test]
    fn an_error_or_a_panic_keeps_the_old_contents_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.txt");
        fs::write(&path, "old").unwrap();
        let error = write_atomically(&path, |w| {
            w.write_all(b"new")?;
            Err(io::Error::other("the disk is full"))
        })
        .unwrap_err();
        assert!(error.message.contains("kept.txt") && error.message.contains("disk is full"));
        std::panic::catch_unwind(|| write_atomically(&path, |_| panic!("in the middle")))
            .unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["kept.txt"]);
    }

    #[test]
    fn impossible_targets_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for target in [folder.path().to_path_buf(), folder.path().join("missing/file.csv")] {
            let error = write_atomically(&target, |_| Ok(())).unwrap_err();
            assert!(error.message.contains(target.to_str().unwrap()), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn the_manifest_lists_the_files_and_can_be_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("ranks.csv");
        let file = write_atomically(&output, |w| w.write_all(b"node,rank\n")).unwrap();
        manifest(&output, "pagerank g.txt", 2, &[file], &serde_json::json!({"vertices": 3}))
            .unwrap();
        assert_eq!(names(folder.path()), ["ranks.csv", "ranks.csv.manifest.json"]);
        let text = fs::read_to_string(manifest_path(&output)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["ranks"], 2);
        assert_eq!(value["files"][0]["bytes"], 10);
        assert_eq!(value["summary"]["vertices"], 3);
        remove_manifest(&output).unwrap();
        remove_manifest(&output).unwrap();
        assert_eq!(names(folder.path()), ["ranks.csv"]);
    }
}
