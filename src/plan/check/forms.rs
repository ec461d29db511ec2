//! Symbolic values: which contributions an element is made of, and in which order they were folded.
//!
//! A form is a contribution (a leaf) or the fold of several forms; equal forms have equal numbers,
//! so that equal numbers mean equal bits. Making a form costs O(operands + p / 64) the first time.

use std::collections::BTreeMap;

/// The number of a form. The leaf of rank r is r.
pub(super) type Form = u32;

/// An element of the vector in some form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Value {
    /// The index in the vector (all_to_all: in the input of the sender).
    pub(super) index: u32,
    /// What it is made of.
    pub(super) form: Form,
}

/// All forms that occur.
pub(super) struct Forms {
    ranks: usize,
    /// For each form a bit for each rank that contributes.
    contributions: Vec<Box<[u64]>>,
    /// Operands to form.
    folds: BTreeMap<Box<[Form]>, Form>,
    /// The fold of all leaves in rank order.
    in_order: Box<[Form]>,
    recent: (Vec<Form>, Form),
}

pub(super) fn small(number: usize) -> u32 {
    u32::try_from(number).expect("plans are checked at sizes far below 2^32")
}

impl Forms {
    pub(super) fn new(ranks: usize) -> Self {
        let leaf = |rank: usize| {
            let mut bits = vec![0u64; ranks.div_ceil(64)];
            bits[rank / 64] |= 1 << (rank % 64);
            bits.into()
        };
        Forms {
            ranks,
            contributions: (0..ranks).map(leaf).collect(),
            folds: BTreeMap::new(),
            in_order: (0..ranks).map(small).collect(),
            recent: (Vec::new(), 0),
        }
    }

    /// The fold of `operands`; on failure the rank that contributes twice.
    pub(super) fn fold(&mut self, operands: &[Form]) -> Result<Form, usize> {
        // Neighbouring elements mostly have equal forms.
        if self.recent.0 == operands {
            return Ok(self.recent.1);
        }
        let form = match operands {
            [single] => *single,
            _ => match self.folds.get(operands) {
                Some(form) => *form,
                None => self.add(operands)?,
            },
        };
        self.recent.0.clear();
        self.recent.0.extend_from_slice(operands);
        self.recent.1 = form;
        Ok(form)
    }

    fn add(&mut self, operands: &[Form]) -> Result<Form, usize> {
        let mut all = vec![0u64; self.ranks.div_ceil(64)];
        for operand in operands {
            for (word, bits) in self.contributions[*operand as usize].iter().enumerate() {
                let twice = all[word] & bits;
                if twice != 0 {
                    return Err(word * 64 + twice.trailing_zeros() as usize);
                }
                all[word] |= bits;
            }
        }
        let form = small(self.contributions.len());
        self.contributions.push(all.into());
        self.folds.insert(operands.into(), form);
        Ok(form)
    }

    /// The first rank whose contribution is missing.
    pub(super) fn missing(&self, form: Form) -> Option<usize> {
        let bits = &self.contributions[form as usize];
        (0..self.ranks).find(|rank| bits[rank / 64] >> (rank % 64) & 1 == 0)
    }

    /// Whether it is all contributions folded in one step in rank order.
    pub(super) fn is_once_in_order(&self, form: Form) -> bool {
        self.ranks == 1 || self.folds.get(&self.in_order) == Some(&form)
    }

    /// The rank, if the form is a contribution alone.
    pub(super) fn leaf(&self, form: Form) -> Option<usize> {
        Some(form as usize).filter(|rank| *rank < self.ranks)
    }
}
