//! What JetStream's errors mean: named for what helps. Invariant: what the stream says of one copy of a message proves nothing
//! about a copy that was sent before it, whose acknowledgement did not come. Pure.

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode};

use crate::bus::Failure;

/// Which copy of a message the stream speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    First,
    /// One before it may have been stored.
    Again,
}

/// What is known of the stream that takes the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// It was there: where nobody answers, it has no leader.
    Seen,
    Unseen,
}

/// What is done about an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The attempt is over: surely not stored.
    End(Failure),
    /// The attempt is over, and may have been stored.
    Lose,
    /// It may have been stored, or is about to be: sent again under the same id.
    Again,
}

pub(super) fn reaction(error: &PublishError, sending: Sending, stream: Stream) -> Reaction {
    match (failure_of(error, stream), sending) {
        (None, _)
        | (Some(Failure::Unavailable(_) | Failure::Unanswered(_) | Failure::Busy(_)), Sending::Again) => {
            Reaction::Again
        }
        (Some(failure), Sending::First) => Reaction::End(failure),
        (
            Some(Failure::Refused(_) | Failure::Full(_) | Failure::Unfit(_) | Failure::Broken(_)),
            Sending::Again,
        ) => Reaction::Lose,
    }
}

/// Why this copy was not stored. None where it may have been.
fn failure_of(error: &PublishError, stream: Stream) -> Option<Failure> {
    let why = error.to_string();
    Some(match error.kind() {
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => return None,
        PublishErrorKind::MaxAckPending => Failure::Busy(why),
        PublishErrorKind::StreamNotFound => match stream {
            Stream::Seen => Failure::Unanswered("the stream has no leader, or is gone".to_owned()),
            Stream::Unseen => Failure::Refused("no stream takes this subject".to_owned()),
        },
        PublishErrorKind::MaxPayloadExceeded => Failure::Unfit(why),
        // Neither is asked for here.
        PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => Failure::Refused(why),
        PublishErrorKind::Other => {
            let source = std::error::Error::source(error);
            let told = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
            let code = told.map(jetstream::Error::error_code)?;
            match code {
                // A copy of it waits for the stream's quorum.
                ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => return None,
                ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
                    Failure::Unfit(why)
                }
                code if is_unavailability(code) => Failure::Unavailable(why),
                // A full stream that discards what is new; its readers or its age may make room.
                ErrorCode::STREAM_STORE_FAILED | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => Failure::Full(why),
                // The stream's state, cured by its owner.
                _ => Failure::Refused(why),
            }
        }
    })
}

/// Whether it says that the servers cannot at the moment: no leader, no quorum, no room of their own, too much at once.
pub(super) fn is_unavailability(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CLUSTER_INCOMPLETE
            | ErrorCode::CLUSTER_NO_PEERS
            | ErrorCode::CLUSTER_NOT_ASSIGNED
            | ErrorCode::CLUSTER_NOT_AVAILABLE
            | ErrorCode::CLUSTER_NOT_LEADER
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::RAFT_GENERAL
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_TOO_MANY_REQUESTS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: ErrorCode) -> PublishError {
        let words = serde_json::json!({ "code": 500, "err_code": code.0, "description": "so" });
        let error: jetstream::Error = serde_json::from_value(words).unwrap();
        PublishError::with_source(PublishErrorKind::Other, error)
    }

    /// Of a first copy, of a later one.
    fn reactions(error: &PublishError, stream: Stream) -> [&'static str; 2] {
        [Sending::First, Sending::Again].map(|sending| match reaction(error, sending, stream) {
            Reaction::End(Failure::Unavailable(_)) => "unavailable",
            Reaction::End(Failure::Unanswered(_)) => "unanswered",
            Reaction::End(Failure::Busy(_)) => "busy",
            Reaction::End(Failure::Refused(_)) => "refused",
            Reaction::End(Failure::Full(_)) => "full",
            Reaction::End(Failure::Unfit(_)) => "unfit",
            Reaction::End(Failure::Broken(_)) => "broken",
            Reaction::Lose => "unresolved",
            Reaction::Again => "again",
        })
    }

    #[test]
    fn an_error_of_a_first_copy_says_what_helps_and_one_of_a_later_copy_ends_nothing_as_failed() {
        let check = |error: &PublishError, expected: [&str; 2]| {
            assert_eq!(reactions(error, Stream::Seen), expected, "{error}");
        };
        check(&told(ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT), ["again", "again"]);
        check(&told(ErrorCode::CLUSTER_NOT_AVAILABLE), ["unavailable", "again"]);
        check(&told(ErrorCode::INSUFFICIENT_RESOURCES), ["unavailable", "again"]);
        check(&told(ErrorCode::STREAM_STORE_FAILED), ["full", "unresolved"]);
        check(&told(ErrorCode::STREAM_SEALED), ["refused", "unresolved"]);
        check(&told(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM), ["unfit", "unresolved"]);
        let of = |kind: PublishErrorKind| PublishError::new(kind);
        check(&of(PublishErrorKind::TimedOut), ["again", "again"]);
        check(&of(PublishErrorKind::MaxAckPending), ["busy", "again"]);
        check(&of(PublishErrorKind::MaxPayloadExceeded), ["unfit", "unresolved"]);
    }

    #[test]
    fn nobody_answers_for_a_stream_that_was_seen_while_it_has_no_leader() {
        let nobody = PublishError::new(PublishErrorKind::StreamNotFound);
        assert_eq!(reactions(&nobody, Stream::Seen), ["unanswered", "again"]);
        assert_eq!(reactions(&nobody, Stream::Unseen), ["refused", "unresolved"]);
    }
}
