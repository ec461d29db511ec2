//! Folders of checkpoints: their names and order, how one becomes complete, how one goes.
//!
//! A name says everything: `step-00000100` is complete, `step-00000100-2` the same step of the
//! second generation, and whatever ends in `.part` is being written or being removed. A folder
//! appears and goes by one rename. Cost: one listing of the folder per call.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The name of a checkpoint. The order is that of saving: a generation starts when a step is saved
/// that is not beyond the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) generation: u64,
    pub(super) step: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step-{:08}", self.step)?;
        if self.generation > 1 { write!(f, "-{}", self.generation) } else { Ok(()) }
    }
}

impl Name {
    /// The name that prints as `text`.
    pub(super) fn parse(text: &str) -> Option<Name> {
        let numbers = text.strip_prefix("step-")?;
        let (step, generation) = numbers.split_once('-').unwrap_or((numbers, "1"));
        let name = Name { generation: generation.parse().ok()?, step: step.parse().ok()? };
        (name.to_string() == text).then_some(name)
    }

    /// Its folder once complete.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.to_string())
    }

    /// Its folder before that, and while it is removed.
    pub(super) fn part(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{self}.part"))
    }
}

/// What a folder holds, in the order of saving.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) complete: Vec<Name>,
    pub(super) parts: Vec<Name>,
}

/// Lists a folder of checkpoints; other files in it are none of ours.
pub(super) fn list(folder: &Path) -> Result<Listing> {
    let failed = |e| Error::file(folder, "list the checkpoints in it", &e);
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        match name.strip_suffix(".part") {
            Some(name) => listing.parts.extend(Name::parse(name)),
            None => listing.complete.extend(Name::parse(name)),
        }
    }
    listing.complete.sort_unstable();
    listing.parts.sort_unstable();
    Ok(listing)
}

/// Makes the empty folder for a new checkpoint, and removes what earlier saves left unfinished.
pub(super) fn begin(folder: &Path, step: u64) -> Result<Name> {
    if !folder.is_dir() {
        fs::create_dir_all(folder).map_err(|e| Error::file(folder, "create the folder", &e))?;
        let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
        sync(parent.unwrap_or(Path::new(".")))?;
    }
    let listing = list(folder)?;
    for part in &listing.parts {
        remove(&part.part(folder))?;
    }
    let name = match listing.complete.last() {
        None => Name { generation: 1, step },
        Some(last) if step > last.step => Name { step, ..*last },
        Some(last) => Name { generation: last.generation.saturating_add(1), step },
    };
    let part = name.part(folder);
    crash_point();
    fs::create_dir(&part).map_err(|e| Error::file(&part, "create the folder", &e))?;
    crash_point();
    Ok(name)
}

/// Turns a folder whose files are all on the disk into a checkpoint.
pub(super) fn complete(folder: &Path, name: Name) -> Result<PathBuf> {
    let (part, path) = (name.part(folder), name.path(folder));
    sync(&part)?;
    crash_point();
    fs::rename(&part, &path).map_err(|e| Error::file(&part, "rename the folder", &e))?;
    crash_point();
    sync(folder)?;
    Ok(path)
}

/// Removes all but the last `keep` checkpoints, the oldest first; 0 keeps all.
pub(super) fn keep_last(folder: &Path, keep: usize) -> Result<()> {
    let complete = list(folder)?.complete;
    let old = if keep == 0 { 0 } else { complete.len().saturating_sub(keep) };
    for name in &complete[..old] {
        let (path, part) = (name.path(folder), name.part(folder));
        crash_point();
        fs::rename(&path, &part).map_err(|e| Error::file(&path, "rename the folder", &e))?;
        // Before the first file goes: a checkpoint with a file less must not look complete.
        sync(folder)?;
        remove(&part)?;
    }
    Ok(())
}

/// Removes an unfinished checkpoint.
pub(super) fn remove(part: &Path) -> Result<()> {
    let failed = |e| Error::file(part, "remove the folder of an old or unfinished save", &e);
    for entry in fs::read_dir(part).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        crash_point();
        if !entry.file_type().map_err(failed)?.is_dir() {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    crash_point();
    fs::remove_dir_all(part).map_err(failed)?;
    crash_point();
    Ok(())
}

/// Flushes the entries of a folder to the disk.
fn sync(folder: &Path) -> Result<()> {
    let flush = || -> io::Result<()> { File::open(folder)?.sync_all() };
    flush().map_err(|e| Error::file(folder, "flush the folder to the disk", &e))
}

/// Between any two changes of the disk stands one of these: where tests end the process.
#[cfg(not(test))]
pub(super) fn crash_point() {}

#[cfg(test)]
pub(super) use super::crash_tests::crash_point;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_not_ours() {
        for step in [0, 7, 99_999_999, 100_000_000, u64::MAX] {
            for generation in [1, 2, 10, u64::MAX] {
                let name = Name { generation, step };
                assert_eq!(Name::parse(&name.to_string()), Some(name));
            }
        }
        assert_eq!(Name { generation: 1, step: 100 }.to_string(), "step-00000100");
        assert_eq!(Name { generation: 2, step: 100 }.to_string(), "step-00000100-2");
        for text in ["", "step-", "step-1", "step-00000001-1", "step-00000001-0", "x-00000001"] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
        for text in ["step-00000001-", "step-+0000001", "step-00000001 ", "step-00000001-02"] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }

    #[test]
    fn going_back_starts_a_generation_and_removal_follows_the_order_of_saving() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut names = Vec::new();
        for (step, wanted) in [
            (50, "step-00000050"),
            (100, "step-00000100"),
            (100, "step-00000100-2"),
            (60, "step-00000060-3"),
            (70, "step-00000070-3"),
            (100, "step-00000100-3"),
            (0, "step-00000000-4"),
        ] {
            let name = begin(folder, step).unwrap();
            complete(folder, name).unwrap();
            assert_eq!(name.to_string(), wanted);
            names.push(name);
            assert_eq!(list(folder).unwrap().complete, names);
        }
        keep_last(folder, 0).unwrap();
        for keep in (1..=names.len() + 1).rev() {
            keep_last(folder, keep).unwrap();
            let first = names.len().saturating_sub(keep);
            assert_eq!(list(folder).unwrap().complete, names[first..]);
            assert!(list(folder).unwrap().parts.is_empty());
        }
    }

    #[test]
    fn leftovers_go_at_the_next_save_and_foreign_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for name in ["step-00000001.part", "step-00000009-3.part", "step-00000002"] {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("file"), "x").unwrap();
        }
        fs::create_dir(folder.join("step-00000001.part/inner")).unwrap();
        for name in ["notes.part", "step-1.part", "step-00000003.part.txt"] {
            fs::write(folder.join(name), "x").unwrap();
        }
        let name = begin(folder, 1).unwrap();
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut wanted = ["notes.part", "step-00000002", "step-00000003.part.txt", "step-1.part"]
            .map(String::from)
            .to_vec();
        wanted.push(format!("{name}.part"));
        wanted.sort();
        assert_eq!(names, wanted);
    }
}
