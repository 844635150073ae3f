//! In which order and portions a polled answer is taken: what is in work at once is bounded by rows and by bytes, and of one vehicle
//! nothing newer is in a portion before. Pure.

use bytes::Bytes;

use crate::event::Millis;
use crate::provider::time_of_row;

/// Rows of a polled answer, or bytes of them, that are in work at once.
const SLICE: (usize, usize) = (1_000, 4 << 20);

/// Rows of more than one slice, the oldest first: within a slice events are put in order once they are decoded. What says no time
/// occurs when it is received.
pub(super) fn in_order(mut rows: Vec<Bytes>, received_at: Millis) -> Vec<Bytes> {
    if slice_of(&rows) < rows.len() {
        rows.sort_by_cached_key(|row| time_of_row(row).unwrap_or(received_at));
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

    const NOW: Millis = Millis(1_767_096_000_000);

    #[test]
    fn what_is_more_than_a_slice_is_taken_oldest_first() {
        // Times of each feed's rows: what lasts longer ends later, so that its beginning says nothing of its place.
        for text in [
            r#"{"date":AT}"#,
            r#"{"positionDate":AT}"#,
            r#"{"reportDateTime":AT}"#,
            r#"{"startDateTime":FROM,"endDateTime":AT}"#,
            r#"{"beginDate":FROM,"endDate":AT}"#,
            r#"{"alertDateTime":AT}"#,
            r#"{"enterDateTime":AT,"exitDateTime":null}"#,
            r#"{"enterDateTime":null,"exitDateTime":AT}"#,
            r#"{"stopDateTime":AT,"durationMinutes":5}"#,
        ] {
            let row = |at: usize| {
                let text = text.replace("FROM", &(1_767_009_600_000 - at).to_string());
                Bytes::from(text.replace("AT", &(1_767_009_600_000 + at).to_string()))
            };
            let newest_first = |rows: usize| (0..rows).rev().map(row).collect::<Vec<_>>();
            let sorted = in_order(newest_first(SLICE.0 + 1), NOW);
            assert_eq!(sorted, (0..=SLICE.0).map(row).collect::<Vec<_>>());
            assert_eq!(in_order(newest_first(SLICE.0), NOW), newest_first(SLICE.0));
        }
        let without = vec![Bytes::from_static(b"{}"); 2_000];
        assert_eq!(in_order(without.clone(), NOW), without);
    }

    #[test]
    fn a_slice_has_at_least_one_row_and_is_bounded_by_rows_and_bytes() {
        let row = |bytes: usize| Bytes::from(vec![b' '; bytes]);
        assert_eq!(slice_of(&[row(SLICE.1 + 1), row(1)]), 1);
        assert_eq!(slice_of(&vec![row(1); 5_000]), SLICE.0);
        assert_eq!(slice_of(&vec![row(1 << 20); 10]), 4);
    }
}
