//! Symbolic values: which contributions an element is made of, and in which order they were folded.
//!
//! A form is a contribution (a leaf) or the fold of several forms; equal forms have equal numbers,
//! so that equal numbers mean equal bits. Making a form costs O(operands + p / 64) the first time.
//! Beside it stands its tree: a step combines its operands by the canonical tree, so several steps
//! can make the tree that one step over all contributions makes.

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
    /// For each form its tree of pairs. The tree of leaf r is r.
    trees: Vec<u32>,
    pairs: BTreeMap<(u32, u32), u32>,
    /// The canonical tree over all leaves.
    canonical: u32,
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
        let mut forms = Forms {
            ranks,
            contributions: (0..ranks).map(leaf).collect(),
            folds: BTreeMap::new(),
            in_order: (0..ranks).map(small).collect(),
            trees: (0..ranks).map(small).collect(),
            pairs: BTreeMap::new(),
            canonical: 0,
            recent: (Vec::new(), 0),
        };
        let leaves = forms.trees.clone();
        forms.canonical = forms.tree(&leaves);
        forms
    }

    /// The canonical tree over `operands`: the largest power of two of them, and the rest.
    fn tree(&mut self, operands: &[u32]) -> u32 {
        if let [single] = *operands {
            return single;
        }
        let (left, right) = operands.split_at(operands.len().next_power_of_two() / 2);
        let pair = (self.tree(left), self.tree(right));
        let next = small(self.ranks + self.pairs.len());
        *self.pairs.entry(pair).or_insert(next)
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
        let trees: Vec<u32> = operands.iter().map(|&o| self.trees[o as usize]).collect();
        let tree = self.tree(&trees);
        self.trees.push(tree);
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

    /// Whether it is the canonical tree over all contributions, in however many steps.
    pub(super) fn is_canonical(&self, form: Form) -> bool {
        self.trees[form as usize] == self.canonical
    }

    /// The rank, if the form is a contribution alone.
    pub(super) fn leaf(&self, form: Form) -> Option<usize> {
        Some(form as usize).filter(|rank| *rank < self.ranks)
    }
}
