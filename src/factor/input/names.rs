//! Texts as numbers: each distinct one is stored once.
//!
//! Rows of a panel repeat the same assets in the same order day after day, so the text that
//! followed the last one before is tried first: most rows cost one comparison of a few bytes and
//! no hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::communicator::Communicator;
use crate::error::{Error, Result};

/// The number of a missing text.
pub(super) const MISSING: u32 = u32::MAX;

/// Hashes eight bytes at a time; the texts are those of one file and nobody's attack.
#[derive(Default)]
struct QuickHasher(u64);

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 = mixed ^ (mixed >> 29);
        }
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

/// Distinct texts, numbered as they came.
#[derive(Default)]
pub(super) struct Names {
    numbers: HashMap<Box<[u8]>, u32, BuildHasherDefault<QuickHasher>>,
    names: Vec<Box<[u8]>>,
    /// Which number came after each one last time.
    next: Vec<u32>,
    last: u32,
}

impl Names {
    /// The number of `name`.
    pub(super) fn number(&mut self, name: &[u8]) -> u32 {
        let guess = self.next.get(self.last as usize).copied().unwrap_or(MISSING);
        if self.names.get(guess as usize).is_some_and(|known| **known == *name) {
            self.last = guess;
            return guess;
        }
        let number = match self.numbers.get(name) {
            Some(&number) => number,
            None => {
                let number = self.names.len() as u32;
                self.numbers.insert(name.into(), number);
                self.names.push(name.into());
                self.next.push(MISSING);
                number
            }
        };
        if let Some(next) = self.next.get_mut(self.last as usize) {
            *next = number;
        }
        self.last = number;
        number
    }

    /// The distinct texts, in the order of their numbers.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().map(|name| &name[..])
    }

    /// The numbers here of the names of `other`.
    pub(super) fn merge(&mut self, other: &Names) -> Vec<u32> {
        other.names.iter().map(|name| self.number(name)).collect()
    }
}

/// The distinct names of all ranks, ordered by bytes, and the place of each own one. Collective.
pub(super) fn gather(comm: &Communicator, own: &Names) -> Result<(Vec<String>, Vec<u32>)> {
    let mut bytes = Vec::new();
    for name in &own.names {
        bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(name);
    }
    // Padding reads as names of length 0, which are none.
    bytes.resize(bytes.len().next_multiple_of(8) + 8, 0);
    let (words, _) = bytes.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|&word| u64::from_le_bytes(word)).collect();
    let (words, parts) = comm.all_gather_vec(&words)?;
    let mut all: Vec<Vec<u8>> = Vec::new();
    for rank in 0..parts.ranks() {
        let bytes: Vec<u8> =
            words[parts.range(rank)].iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut rest = &bytes[..];
        while let Some((length, text)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((name, after)) = text.split_at_checked(length).filter(|_| length > 0) else {
                break;
            };
            all.push(name.to_vec());
            rest = after;
        }
    }
    all.sort_unstable();
    all.dedup();
    let place = |name: &[u8]| {
        all.binary_search_by(|known| known[..].cmp(name)).map_or(MISSING, |place| place as u32)
    };
    let places = own.names.iter().map(|name| place(name)).collect();
    let names = all.into_iter().map(|name| {
        String::from_utf8(name).map_err(|e| {
            let text = String::from_utf8_lossy(e.as_bytes()).into_owned();
            Error::input(format!("the name '{text}' is not UTF-8; save the file as UTF-8"))
        })
    });
    // The same names and so the same error on all ranks.
    Ok((comm.agree(names.collect())?, places))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;

    #[test]
    fn equal_texts_have_equal_numbers_in_any_order() {
        let texts: Vec<String> =
            (0..50).map(|i| "x".repeat(i % 19) + &(i / 3).to_string()).collect();
        let mut names = Names::default();
        let mut expected: Vec<&str> = Vec::new();
        for i in 0..3000usize {
            let text = &texts[if i < 1500 { i % 50 } else { i * i % 50 }];
            let place = expected.iter().position(|known| known == text).unwrap_or_else(|| {
                expected.push(text);
                expected.len() - 1
            });
            assert_eq!(names.number(text.as_bytes()), place as u32);
        }
        assert_eq!(names.names.len(), expected.len());
        assert_eq!(*names.names[7], *expected[7].as_bytes());
    }

    #[test]
    fn all_ranks_get_all_names() {
        for ranks in [1, 2, 5] {
            let results = launch::threads(ranks, |comm| {
                let mut own = Names::default();
                // The last rank has none.
                for i in 0..(ranks - 1 - comm.rank()) * 3 {
                    own.number(format!("n{}", i * (comm.rank() + 1)).as_bytes());
                }
                let (all, places) = gather(comm, &own)?;
                for (i, &place) in places.iter().enumerate() {
                    assert_eq!(all[place as usize].as_bytes(), &*own.names[i]);
                }
                Ok(all)
            })
            .unwrap();
            assert!(results.iter().all(|all| *all == results[0]));
            assert_eq!(results[0].is_empty(), ranks == 1);
            assert!(results[0].is_sorted());
        }
    }
}
