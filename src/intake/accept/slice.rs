//! In which order and portions a polled answer is taken: what is in work at once is bounded by rows and by bytes, and of one vehicle
//! nothing newer is in a portion before. Pure.

use bytes::Bytes;

use crate::provider::time_of_row;

/// Rows of a polled answer, or bytes of them, that are in work at once.
const SLICE: (usize, usize) = (1_000, 4 << 20);

/// Rows of more than one slice, the oldest first: within a slice events are put in order once they are decoded.
pub(super) fn in_order(mut rows: Vec<Bytes>) -> Vec<Bytes> {
    if slice_of(&rows) < rows.len() {
        rows.sort_by_cached_key(|row| time_of_row(row));
    }
    rows
}

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
    fn what_is_more_than_a_slice_is_taken_oldest_first() {
        let row = |date: usize| Bytes::from(format!(r#"{{"date":{}}}"#, 1_767_009_600_000 + date));
        let newest_first = |rows: usize| (0..rows).rev().map(row).collect::<Vec<_>>();
        assert_eq!(in_order(newest_first(SLICE.0 + 1)), (0..=SLICE.0).map(row).collect::<Vec<_>>());
        assert_eq!(in_order(newest_first(SLICE.0)), newest_first(SLICE.0));
        let without = vec![Bytes::from_static(b"{}"); 2_000];
        assert_eq!(in_order(without.clone()), without);
    }

    #[test]
    fn a_slice_has_at_least_one_row_and_is_bounded_by_rows_and_bytes() {
        let row = |bytes: usize| Bytes::from(vec![b' '; bytes]);
        assert_eq!(slice_of(&[row(SLICE.1 + 1), row(1)]), 1);
        assert_eq!(slice_of(&vec![row(1); 5_000]), SLICE.0);
        assert_eq!(slice_of(&vec![row(1 << 20); 10]), 4);
    }
}
