//! What ranks tell each other besides the messages of collectives, as words.
//!
//! ```text
//! [generation, 0, call, chain, called]      Waiting   I wait in this call
//! [generation, 1, call]                     Question  ranks disagree up to it: what did you call?
//! [generation, 2, call, (call, called) …]   Answer    these, as far as I remember
//! [generation, 3, agreed, error]            Verdict   what was found, for all ranks alike
//! ```
//! The generation keeps apart communicators that use one transport after another: the one that
//! finds out where ranks live, and the one that the program gets.

use crate::control;
use crate::error::{Error, Result};
use crate::signature::{Called, Signature};

/// Something that one rank tells another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// The teller waits in a call.
    Waiting {
        /// The number of the call.
        call: u64,
        /// The hash of all calls up to it.
        chain: u64,
        /// What it is.
        called: Called,
    },
    /// The teller knows that ranks disagree in a call or before, and collects what all called.
    Question {
        /// The number of the call.
        call: u64,
    },
    /// What the teller called there and shortly before.
    Answer {
        /// The number of the call in question.
        call: u64,
        /// Calls by number; none if it has not come there yet, or has forgotten.
        calls: Vec<(u64, Called)>,
    },
    /// The error that all ranks return.
    Verdict(Error),
}

impl News {
    pub(super) fn encode(&self, generation: u64) -> Result<Vec<u64>> {
        Ok(match self {
            News::Waiting { call, chain, called } => {
                [vec![generation, 0, *call, *chain], words(called)].concat()
            }
            News::Question { call } => vec![generation, 1, *call],
            News::Answer { call, calls } => {
                let mut all = vec![generation, 2, *call];
                for (number, called) in calls {
                    all.push(*number);
                    all.extend(words(called));
                }
                all
            }
            News::Verdict(error) => {
                let head = vec![generation, 3, u64::from(error.agreed)];
                [head, control::encode_error(error)?].concat()
            }
        })
    }

    /// News of this generation from a rank; `None` for others, and for what makes no sense.
    pub(super) fn decode(rank: usize, generation: u64, words: &[u64]) -> Option<News> {
        let (&[of, kind, number], rest) = words.split_first_chunk::<3>()?;
        if of != generation {
            return None;
        }
        Some(match kind {
            0 => {
                let (&chain, rest) = rest.split_first()?;
                News::Waiting { call: number, chain, called: called(rank, rest)?.0 }
            }
            1 => News::Question { call: number },
            2 => {
                let (mut calls, mut rest) = (Vec::new(), rest);
                while let Some((&number, words)) = rest.split_first() {
                    let (called, left) = called(rank, words)?;
                    calls.push((number, called));
                    rest = left;
                }
                News::Answer { call: number, calls }
            }
            3 => {
                let error = control::decode_error(rest).ok()?;
                News::Verdict(Error { agreed: number == 1, ..error })
            }
            _ => return None,
        })
    }
}

fn words(called: &Called) -> Vec<u64> {
    let mut words = called.signature.to_words().to_vec();
    words.push(called.site.len() as u64);
    words.extend(called.site.as_bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    }));
    words
}

/// A call at the start of the words, and the words after it.
fn called(rank: usize, words: &[u64]) -> Option<(Called, &[u64])> {
    let (&[what, n, rest, len], words) = words.split_first_chunk::<4>()?;
    let len = usize::try_from(len).ok()?;
    let (text, left) = words.split_at_checked(len.div_ceil(8))?;
    let bytes: Vec<u8> = text.iter().flat_map(|word| word.to_le_bytes()).take(len).collect();
    let site = String::from_utf8_lossy(&bytes).into_owned();
    Some((Called { rank, signature: Signature::from_parts([what, n, rest]), site }, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<News> {
        let mut all = vec![News::Question { call: 7 }, News::Answer { call: 8, calls: vec![] }];
        for site in ["", "a", "src/a_file.rs:12", "ünï/çödé.rs:1"] {
            let signature = Signature::from_parts([1, 2, 3]);
            let called = Called { rank: 4, signature, site: site.to_string() };
            all.push(News::Waiting { call: 5, chain: u64::MAX, called: called.clone() });
            let calls = [(6, called.clone()), (u64::MAX, called)];
            for many in [1, 2] {
                all.push(News::Answer { call: 6, calls: calls[..many].to_vec() });
            }
            for agreed in [false, true] {
                all.push(News::Verdict(Error { agreed, ..Error::input(site).on_rank(2) }));
            }
        }
        all
    }

    #[test]
    fn news_survive_the_trip_within_their_generation() {
        for news in examples() {
            let words = news.encode(3).unwrap();
            assert_eq!(News::decode(4, 3, &words), Some(news));
            assert_eq!(News::decode(4, 2, &words), None);
        }
    }

    #[test]
    fn news_that_are_cut_or_garbled_are_other_news_or_none() {
        for news in examples() {
            let words = news.encode(3).unwrap();
            for cut in 0..words.len() {
                assert_ne!(News::decode(4, 3, &words[..cut]), Some(news.clone()));
            }
            assert_eq!(News::decode(4, 3, &[3, 9, 0]), None);
        }
        assert_eq!(News::decode(0, 0, &[0, 0, 0, 0, 0, 0, 0, u64::MAX, 7]), None);
    }
}
