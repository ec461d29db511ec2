//! Many short names in one allocation.
//!
//! 8 bytes a name besides its text, where a `String` takes 24 and an allocation. Between ranks
//! names travel as text with a newline after each, packed into 64-bit words: names hold no
//! newline and are never empty, so the newlines that fill up the last word mean nothing.

use rayon::prelude::*;

/// A list of non-empty names without newlines.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct NameTable {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl NameTable {
    /// The number of names.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Appends a name.
    pub fn push(&mut self, name: &[u8]) {
        debug_assert!(!name.is_empty() && !name.contains(&b'\n'), "names are parts of lines");
        self.text.extend_from_slice(name);
        self.ends.push(self.text.len());
    }

    /// The name at `index`.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }

    /// From the names one after another, and where each ends. `None` unless they are what
    /// [`NameTable::sorted`] makes: names in UTF-8, each after the one before.
    pub fn from_parts(text: Vec<u8>, ends: Vec<usize>) -> Option<NameTable> {
        let ascend = ends.windows(2).all(|pair| pair[0] < pair[1]);
        let whole = ends.last().copied().unwrap_or(0) == text.len();
        if !ascend || !whole || ends.first() == Some(&0) {
            return None;
        }
        let table = NameTable { text, ends };
        let good = |name: &[u8]| !name.contains(&b'\n') && std::str::from_utf8(name).is_ok();
        let sorted = (1..table.len()).all(|index| table.get(index - 1) < table.get(index));
        (sorted && table.iter().all(good)).then_some(table)
    }

    /// All names one after another.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Where each name ends in [`NameTable::text`].
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// All names in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The distinct names of `names`, ordered by bytes.
    pub fn sorted<'n>(names: impl Iterator<Item = &'n [u8]>) -> NameTable {
        let mut names: Vec<&[u8]> = names.collect();
        names.par_sort_unstable();
        names.dedup();
        let mut table = NameTable::default();
        table.text.reserve_exact(names.iter().map(|name| name.len()).sum());
        table.ends.reserve_exact(names.len());
        names.into_iter().for_each(|name| table.push(name));
        table
    }

    /// The position of `name` in a sorted table.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.get(middle).cmp(name) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The names as words for the wire.
    pub fn to_words(&self) -> Vec<u64> {
        let mut bytes = Vec::with_capacity(self.text.len() + self.len() + 7);
        for name in self.iter() {
            bytes.extend_from_slice(name);
            bytes.push(b'\n');
        }
        bytes.resize(bytes.len().next_multiple_of(8), b'\n');
        let (words, _) = bytes.as_chunks::<8>();
        words.iter().map(|&word| u64::from_ne_bytes(word)).collect()
    }

    /// The distinct names in words from any number of tables, ordered by bytes.
    pub fn from_words(words: &[u64]) -> NameTable {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        NameTable::sorted(bytes.split(|&b| b == b'\n').filter(|name| !name.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_bring_back_the_distinct_names_in_order() {
        let lists: [&[&str]; 4] = [&[], &["b"], &["a", "abcdefg", "abcdefgh", "é"], &["b", "a b"]];
        let mut words = Vec::new();
        for list in lists {
            let mut table = NameTable::default();
            list.iter().for_each(|name| table.push(name.as_bytes()));
            assert_eq!((table.len(), table.is_empty()), (list.len(), list.is_empty()));
            words.extend(table.to_words());
        }
        let table = NameTable::from_words(&words);
        let names: Vec<&str> = table.iter().map(|n| std::str::from_utf8(n).unwrap()).collect();
        assert_eq!(names, ["a", "a b", "abcdefg", "abcdefgh", "b", "é"]);
        for (index, name) in names.iter().enumerate() {
            assert_eq!(table.find(name.as_bytes()), Some(index));
        }
        for missing in ["", "A", "aa", "c", "zz"] {
            assert_eq!(table.find(missing.as_bytes()), None);
        }
    }
}
