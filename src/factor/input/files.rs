//! The files of a panel: one, those of a folder, or those that a pattern names, in the order of
//! their names.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The formats of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Parquet,
    /// Plain, gzip or zstd.
    Csv,
    Npy,
}

impl Format {
    /// What the name of a file says.
    pub(super) fn of(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let unpacked = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
        match unpacked.rsplit_once('.')?.1 {
            "parquet" | "pq" => Some(Format::Parquet),
            "csv" => Some(Format::Csv),
            "npy" => Some(Format::Npy),
            _ => None,
        }
    }
}

/// The files that `source` names. Other files in a folder, and hidden ones, are passed over.
pub(super) fn list(source: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(source);
    let mut files = Vec::new();
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| Error::file(path, "list", &e))?;
        for entry in entries {
            let file = entry.map_err(|e| Error::file(path, "list", &e))?.path();
            let hidden = file.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if !hidden && file.is_file() && Format::of(&file).is_some() {
                files.push(file);
            }
        }
    } else if path.exists() || !source.contains(['*', '?', '[']) {
        files.push(path.to_path_buf());
    } else {
        let options =
            glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let found = glob::glob_with(source, options)
            .map_err(|e| Error::input(format!("{source}: not a pattern: {e}")))?;
        for file in found {
            files.push(file.map_err(|e| Error::file(e.path(), "read", e.error()))?);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::input(format!(
            "{source}: no file with a panel there; expected .parquet, .csv (.gz, .zst) or .npy"
        )));
    }
    Ok(files)
}

/// The one format of all files.
pub(super) fn format(files: &[PathBuf]) -> Result<Format> {
    let mut formats = files.iter().map(|file| {
        Format::of(file).ok_or_else(|| {
            Error::input(format!(
                "{}: the format follows from the name; expected .parquet, .csv, .csv.gz, \
                 .csv.zst or .npy",
                file.display()
            ))
        })
    });
    let first = formats.next().unwrap_or(Ok(Format::Parquet))?;
    for (format, file) in formats.zip(&files[1..]) {
        if format? != first {
            return Err(Error::input(format!(
                "{} and {} have different formats; name one kind, such as 'folder/*.parquet'",
                files[0].display(),
                file.display()
            )));
        }
    }
    Ok(first)
}

/// How the bytes of a file are packed, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    pub(super) fn of(path: &Path) -> Result<Packing> {
        let failed = |doing, e| Error::file(path, doing, &e);
        let mut magic = Vec::new();
        let mut file = File::open(path).map_err(|e| failed("open", e))?;
        file.by_ref().take(4).read_to_end(&mut magic).map_err(|e| failed("read", e))?;
        Ok(match magic[..] {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
            _ => Packing::Plain,
        })
    }

    /// The bytes of `file` from where it stands.
    pub(super) fn unpack(self, file: File) -> io::Result<Box<dyn Read + Send>> {
        let file = BufReader::with_capacity(1 << 18, file);
        Ok(match self {
            Packing::Plain => Box::new(file),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        })
    }
}

/// The text of a file from `position` on, and how many lines come before.
pub(super) fn text_from(path: &Path, position: u64) -> Result<(Box<dyn Read + Send>, u64)> {
    let failed = |e| Error::file(path, "read", &e);
    let file = File::open(path).map_err(failed)?;
    let mut reader = Packing::of(path)?.unpack(file).map_err(failed)?;
    let mut left = position;
    let mut lines = 0;
    let mut buffer = vec![0; 1 << 18];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match reader.read(&mut buffer[..most]).map_err(failed)? {
            0 => break,
            read => {
                lines += buffer[..read].iter().filter(|&&b| b == b'\n').count() as u64;
                left -= read as u64;
            }
        }
    }
    Ok((reader, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_folders_and_patterns_are_lists_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), "x").unwrap();
        ["b.csv", "a.csv.gz", ".hidden.csv", "notes.txt"].into_iter().for_each(write);
        let names = |source: &str| -> Vec<String> {
            let files = list(source).unwrap();
            files.iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        let path = folder.path().to_str().unwrap();
        assert_eq!(names(path), ["a.csv.gz", "b.csv"]);
        assert_eq!(names(&format!("{path}/*.csv")), ["b.csv"]);
        assert_eq!(names(&format!("{path}/missing.csv")), ["missing.csv"]);
        assert!(list(&format!("{path}/*.parquet")).unwrap_err().message.contains("no file"));
        assert_eq!(format(&list(path).unwrap()).unwrap(), Format::Csv);
        write("c.parquet");
        let message = format(&list(path).unwrap()).unwrap_err().message;
        assert!(message.contains("c.parquet have different formats"), "{message}");
        assert!(format(&[PathBuf::from("x.xlsx")]).is_err());
    }
}
