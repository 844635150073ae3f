//! What librdkafka's errors mean: named for what helps. Pure.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::bus::Failure;

/// What helps against an error of the client. Every code that a producer of this kind can see is named; codes that are not
/// (consumers', administrators', transactions') count as unavailability, which parks and tries again. Unfit is only what is
/// wrong with this one message, and would be with any clock, topic and broker: it is set aside, and holds nothing back.
pub(super) fn failure_of(error: &KafkaError) -> Failure {
    use RDKafkaErrorCode as Code;
    let why = error.to_string();
    match error.rdkafka_error_code() {
        Some(
            Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::MessageBatchTooLarge,
        ) => Failure::Unfit(why),
        Some(
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidRequiredAcks
            | Code::TopicDeletionDisabled
            // Our clock or the broker's, against the topic's bounds: a message is sent with the time of its sending.
            | Code::InvalidTimestamp
            // What the topic demands of all its records: all of ours are of one kind. A broker calls one of a wrong time so, too.
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedCompressionType
            | Code::BadCompression,
        ) => Failure::Refused(why),
        Some(
            Code::Fatal
            | Code::OutOfOrderSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::Fenced
            | Code::GaplessGuarantee
            | Code::Inconsistent,
        ) => Failure::Broken(why),
        Some(Code::QueueFull) => Failure::Busy(why),
        Some(
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::SSL
            | Code::Authentication
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::ISRInsufficient
            | Code::ThrottlingQuotaExceeded
            | Code::Retry
            | Code::State
            | Code::KafkaStorageError
            | Code::SaslAuthenticationFailed
            // Damaged on the way; an answer that cannot be read.
            | Code::InvalidMessage
            | Code::BadMessage,
        )
        // Not a producer's, by all that is known.
        | Some(_)
        | None => Failure::Unavailable(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_helps() {
        let check = |code, expected: fn(String) -> Failure| {
            let failure = failure_of(&KafkaError::MessageProduction(code));
            assert_eq!(
                std::mem::discriminant(&failure),
                std::mem::discriminant(&expected(String::new())),
                "{code:?}"
            );
        };
        check(RDKafkaErrorCode::QueueFull, Failure::Busy);
        check(RDKafkaErrorCode::BrokerTransportFailure, Failure::Unavailable);
        check(RDKafkaErrorCode::NotEnoughReplicas, Failure::Unavailable);
        check(RDKafkaErrorCode::MessageSizeTooLarge, Failure::Unfit);
        check(RDKafkaErrorCode::InvalidMessage, Failure::Unavailable);
        check(RDKafkaErrorCode::InvalidTimestamp, Failure::Refused);
        check(RDKafkaErrorCode::InvalidRecord, Failure::Refused);
        check(RDKafkaErrorCode::UnsupportedForMessageFormat, Failure::Refused);
        check(RDKafkaErrorCode::UnsupportedCompressionType, Failure::Refused);
        check(RDKafkaErrorCode::TopicAuthorizationFailed, Failure::Refused);
        check(RDKafkaErrorCode::UnknownTopic, Failure::Refused);
        check(RDKafkaErrorCode::Fatal, Failure::Broken);
    }
}
