//! Rows of a table chosen by token: `y[i] = table[token[i]]`, and rows of a second table by place.
//!
//! Backward adds each row of `dy` to the row of its token, in the order of the tokens.

/// `y[i] = table[token[i]]`.
///
/// # Panics
/// If a token is not a row of the table.
pub fn forward(y: &mut [f32], tokens: &[u32], table: &[f32], width: usize) {
    assert_eq!(y.len(), tokens.len() * width);
    for (y, &token) in y.chunks_exact_mut(width).zip(tokens) {
        let at = token as usize * width;
        y.copy_from_slice(&table[at..at + width]);
    }
}

/// `dtable[token[i]] += dy[i]`.
pub fn backward_table(dtable: &mut [f32], dy: &[f32], tokens: &[u32], width: usize) {
    assert_eq!(dy.len(), tokens.len() * width);
    for (dy, &token) in dy.chunks_exact(width).zip(tokens) {
        let at = token as usize * width;
        dtable[at..at + width].iter_mut().zip(dy).for_each(|(sum, x)| *sum += x);
    }
}

/// Adds row `first + i % length` of `positions` to row i of `y`: examples of one `length`, each
/// of which begins at place `first`.
pub fn add_positions(y: &mut [f32], positions: &[f32], first: usize, length: usize, width: usize) {
    let used = &positions[first * width..(first + length) * width];
    for example in y.chunks_exact_mut(length * width) {
        example.iter_mut().zip(used).for_each(|(y, x)| *y += x);
    }
}

/// The gradient of the positions that [`add_positions`] used with `first` = 0.
pub fn backward_positions(dpositions: &mut [f32], dy: &[f32], length: usize, width: usize) {
    for example in dy.chunks_exact(length * width) {
        dpositions[..length * width].iter_mut().zip(example).for_each(|(sum, x)| *sum += x);
    }
}
