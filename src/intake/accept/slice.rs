//! In which portions a polled answer is taken: what is in work at once is bounded by rows and by bytes. Pure.

use bytes::Bytes;

/// Rows of a polled answer, or bytes of them, that are in work at once.
const SLICE: (usize, usize) = (1_000, 4 << 20);

/// How many rows make the next slice: at least one.
pub(super) fn slice_of(rows: &[Bytes]) -> usize {
    let mut bytes = 0;
    let fitting = rows.iter().take(SLICE.0).take_while(|row| {
        bytes += row.len();
        bytes <= SLICE.1
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_at_least_one_row_and_is_bounded_by_rows_and_bytes() {
        let row = |bytes: usize| Bytes::from(vec![b' '; bytes]);
        assert_eq!(slice_of(&[row(SLICE.1 + 1), row(1)]), 1);
        assert_eq!(slice_of(&vec![row(1); 5_000]), SLICE.0);
        assert_eq!(slice_of(&vec![row(1 << 20); 10]), 4);
    }
}
