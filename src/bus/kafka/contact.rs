//! What is known of the way to the brokers: the last that librdkafka said of it, for who asks, and one line in the log for what a
//! person must mend. Invariants: a line is not repeated before there was a connection, nor within a minute; what is said has
//! hosts and reasons in it, never a secret. Pure, but for `now`.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use crate::bus::Finding;
use crate::deliver::seldom::Lasting;

/// At most one line of a kind in this time.
const QUIET: Duration = Duration::from_secs(60);
/// How long there is no connection before that is said: a broker that is started anew takes less.
const DOWN: Duration = Duration::from_secs(10);
/// How long a connection may be under way before it counts as none.
const VAIN: Duration = Duration::from_secs(5);

/// What keeps the client from a connection, named for what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The broker does not let this user in.
    Login,
    /// There is no TLS with it.
    Tls,
    /// Its name leads nowhere.
    Name,
    /// Nobody is there, or the connection broke.
    Away,
}

impl Trouble {
    pub(super) const fn of(code: Option<RDKafkaErrorCode>) -> Self {
        match code {
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::UnsupportedSASLMechanism
                | RDKafkaErrorCode::IllegalSASLState,
            ) => Self::Login,
            Some(RDKafkaErrorCode::SSL) => Self::Tls,
            Some(RDKafkaErrorCode::Resolve) => Self::Name,
            Some(_) | None => Self::Away,
        }
    }
}

/// Whether a line is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Say {
    Now,
    Nothing,
}

/// How a client's connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    /// Connections are tried, and none comes about.
    Vain,
    /// None is needed, or the first is still under way.
    Quiet,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Contact {
    last: Option<(Trouble, String)>,
    login: Line,
    tls: Line,
    tries_since: Option<Instant>,
    /// There is no connection.
    down: Option<Lasting>,
}

#[derive(Debug, Default)]
struct Line {
    said: Option<Instant>,
    stands: bool,
}

impl Line {
    fn say(&mut self, now: Instant) -> Say {
        if self.stands || self.said.is_some_and(|said| now.saturating_duration_since(said) < QUIET) {
            return Say::Nothing;
        }
        *self = Self { said: Some(now), stands: true };
        Say::Now
    }
}

impl Contact {
    /// librdkafka says so. That nobody is there follows on everything else, and says less.
    pub(super) fn failed(&mut self, trouble: Trouble, reason: &str, now: Instant) -> Say {
        if trouble != Trouble::Away || self.last.as_ref().is_none_or(|(last, _)| *last == Trouble::Away) {
            self.last = Some((trouble, reason.to_owned()));
        }
        match trouble {
            Trouble::Login => self.login.say(now),
            Trouble::Tls => self.tls.say(now),
            Trouble::Name | Trouble::Away => Say::Nothing,
        }
    }

    /// There is still none. Where that is to be said, the last reason that is known.
    pub(super) fn is_down(&mut self, now: Instant) -> Option<String> {
        let is_to_say = self.down.get_or_insert(Lasting::begun(now)).is_to_say(now, DOWN);
        is_to_say.then(|| self.last.as_ref().map(|(_, reason)| reason.clone()).unwrap_or_default())
    }

    /// There is one. Whether it was said that there was none.
    pub(super) fn is_up(&mut self) -> bool {
        self.last = None;
        self.login.stands = false;
        self.tls.stands = false;
        self.down.take().is_some_and(|down| down.was_said())
    }

    /// What the states of the brokers' connections come to, where so many messages wait. A broker may accept a connection and never
    /// answer, and a client may know no broker any more: of that librdkafka says nothing.
    pub(super) fn way(&mut self, states: &[&str], messages: u64, now: Instant) -> Way {
        if states.iter().any(|state| is_up(state)) {
            self.tries_since = None;
            return Way::Open;
        }
        let rests = states.iter().all(|state| matches!(*state, "INIT" | "DOWN"));
        if rests && messages == 0 && !states.is_empty() {
            self.tries_since = None;
            return Way::Quiet;
        }
        let since = *self.tries_since.get_or_insert(now);
        if now.saturating_duration_since(since) < VAIN { Way::Quiet } else { Way::Vain }
    }

    /// What a check says where Kafka did not answer.
    pub(super) fn finding(&self, brokers: &str, error: &str) -> Finding {
        let kafka = format!("Kafka at {brokers}");
        let (what, fix) = match &self.last {
            None => return Finding::Unreachable(format!("{kafka} cannot be reached: {error}")),
            Some((Trouble::Away, reason)) => {
                return Finding::Unreachable(format!("{kafka} cannot be reached: {reason}"));
            }
            Some((Trouble::Login, reason)) => (
                format!("{kafka} refuses the login: {reason}"),
                "compare sasl.mechanism, the user and its secret with what the brokers know",
            ),
            Some((Trouble::Tls, reason)) => (
                format!("there is no TLS with {kafka}: {reason}"),
                "look at the brokers' certificate (until when it is valid, for which names, by whom), at ssl.ca.location and security.protocol",
            ),
            Some((Trouble::Name, reason)) => (
                format!("{kafka} is not found: {reason}"),
                "correct the host in bus.kafka.brokers, or the name service",
            ),
        };
        Finding::Barred { what, fix: fix.to_owned() }
    }
}

/// Whether a connection that is in a state can be used.
pub(super) fn is_up(state: &str) -> bool {
    matches!(state, "UP" | "UPDATE" | "REAUTH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_once_until_there_was_a_connection_and_a_minute_has_passed() {
        let (mut contact, begin) = (Contact::default(), Instant::now());
        let mut at = |seconds: u64, up: bool, trouble: Trouble| {
            if up {
                contact.is_up();
            }
            contact.failed(trouble, "so", begin + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, false, Trouble::Away), Say::Nothing);
        assert_eq!(at(1, false, Trouble::Login), Say::Now);
        assert_eq!(at(2, false, Trouble::Tls), Say::Now, "another kind");
        assert_eq!(at(200, false, Trouble::Login), Say::Nothing, "it still stands");
        assert_eq!(at(300, true, Trouble::Login), Say::Now);
        assert_eq!(at(310, true, Trouble::Login), Say::Nothing, "one broker of many");
        assert_eq!(at(361, false, Trouble::Login), Say::Now);
    }

    #[test]
    fn a_check_says_what_helps_and_not_what_followed_on_it() {
        let mut contact = Contact::default();
        let mut after = |code, reason: &str| {
            contact.failed(Trouble::of(Some(code)), reason, Instant::now());
            match contact.finding("k:9092", "no connection") {
                Finding::Barred { what, fix } => format!("{what} / {fix}"),
                other => format!("{other:?}"),
            }
        };
        assert!(after(RDKafkaErrorCode::BrokerTransportFailure, "refused").contains("Unreachable"));
        assert!(after(RDKafkaErrorCode::SSL, "expired").contains("certificate"));
        assert!(after(RDKafkaErrorCode::AllBrokersDown, "1/1 down").contains("expired"));
        let login = after(RDKafkaErrorCode::Authentication, "wrong password");
        assert!(login.contains("refuses the login: wrong password") && login.contains("sasl.mechanism"));
        assert!(after(RDKafkaErrorCode::Resolve, "no such host").contains("bus.kafka.brokers"));
        contact.is_up();
        assert!(matches!(contact.finding("k:9092", "timed out"), Finding::Unreachable(_)));
    }

    #[test]
    fn a_connection_that_never_comes_about_is_none_after_a_while() {
        let (mut contact, begin) = (Contact::default(), Instant::now());
        let mut at =
            |seconds: u64, states: &[&str]| contact.way(states, 0, begin + Duration::from_secs(seconds));
        assert_eq!(at(0, &["INIT", "APIVERSION_QUERY"]), Way::Quiet, "the first one");
        assert_eq!(at(4, &["INIT", "CONNECT"]), Way::Quiet);
        assert_eq!(at(5, &["INIT", "TRY_CONNECT"]), Way::Vain);
        assert_eq!(at(6, &["UP", "APIVERSION_QUERY"]), Way::Open, "another broker");
        assert_eq!(at(7, &["DOWN", "INIT"]), Way::Quiet, "idle, and closed for that");
        assert_eq!(at(900, &["CONNECT"]), Way::Quiet, "needed again");
        assert_eq!(at(901, &["UP"]), Way::Open);
        assert_eq!(at(902, &[]), Way::Quiet);
        assert_eq!(at(907, &[]), Way::Vain, "it knows none any more");
        assert_eq!(at(908, &["INIT"]), Way::Quiet);
        let mut needed =
            |seconds: u64| contact.way(&["INIT", "DOWN"], 1, begin + Duration::from_secs(seconds));
        assert_eq!((needed(909), needed(914)), (Way::Quiet, Way::Vain), "messages wait, and nothing is done");
    }
}
