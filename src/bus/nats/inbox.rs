//! Where acknowledgements come: one subscription, and who waits for each copy that was sent. The client's own requests would keep a
//! place in memory for each that is never answered, until the process ends. Invariants: a copy's place goes with its wait; what
//! is heard reaches the copy that it is about, or nobody.

use std::collections::HashMap;
use std::convert::Infallible;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber, client};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ACK;
use crate::event::Text;

/// How one copy ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The stream's word, or none in time.
    Told(Result<PublishAck, PublishError>),
    /// The server takes nothing on this subject from this user.
    Forbidden,
    /// There is a new connection: what came of it on the old one is not known.
    Disconnected,
}

/// Who waits, by the number at the end of the subject for the answer.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Copies>);

#[derive(Debug, Default)]
struct Copies {
    last: u64,
    sent: HashMap<u64, Sent>,
}

#[derive(Debug)]
struct Sent {
    topic: Text,
    tell: oneshot::Sender<Ended>,
}

/// The place of one copy.
struct Place<'a> {
    waiting: &'a Waiting,
    number: u64,
    ended: oneshot::Receiver<Ended>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().sent.remove(&self.number);
    }
}

impl Waiting {
    fn place(&self, topic: &Text) -> Place<'_> {
        let (tell, ended) = oneshot::channel();
        let mut copies = self.0.lock();
        copies.last += 1;
        let number = copies.last;
        copies.sent.insert(number, Sent { topic: topic.clone(), tell });
        Place { waiting: self, number, ended }
    }

    /// There is a new connection: nothing is heard any more of what was sent on the one before.
    pub(super) fn disconnected(&self) {
        let sent = std::mem::take(&mut self.0.lock().sent);
        for copy in sent.into_values() {
            // Who waited may have left.
            drop(copy.tell.send(Ended::Disconnected));
        }
    }

    /// The server let nobody publish there. Servers and clients differ in what they make of upper case.
    pub(super) fn forbidden(&self, subject: &str) {
        let about = |_: &u64, copy: &mut Sent| copy.topic.eq_ignore_ascii_case(subject);
        let refused: Vec<_> = self.0.lock().sent.extract_if(about).collect();
        for (_, copy) in refused {
            drop(copy.tell.send(Ended::Forbidden));
        }
    }

    fn answered(&self, message: &Message) {
        let number = message.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        let copy = number.and_then(|number| self.0.lock().sent.remove(&number));
        if let Some(copy) = copy {
            drop(copy.tell.send(Ended::Told(told(message))));
        }
    }
}

/// What the stream said, or that there is none.
fn told(answer: &Message) -> Result<PublishAck, PublishError> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(PublishError::new(PublishErrorKind::StreamNotFound));
    }
    match serde_json::from_slice(&answer.payload) {
        Ok(Response::Ok(taken)) => Ok(taken),
        Ok(Response::Err { error }) => Err(PublishError::with_source(PublishErrorKind::Other, error)),
        Err(error) => Err(PublishError::with_source(PublishErrorKind::Other, error)),
    }
}

/// A client, and where it is answered.
pub(super) struct Connection {
    pub(super) client: Client,
    inbox: String,
}

impl Connection {
    /// With the subscription that [`hear`] reads.
    pub(super) async fn new(client: Client) -> Result<(Self, Subscriber), String> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await.map_err(|error| error.to_string())?;
        Ok((Self { client, inbox }, answers))
    }

    /// Sends one copy, and waits for what is heard of it.
    pub(super) async fn send(
        &self,
        waiting: &Waiting,
        topic: &Text,
        headers: HeaderMap,
        payload: bytes::Bytes,
    ) -> Ended {
        let mut place = waiting.place(topic);
        let (subject, reply) = (String::from(&**topic), format!("{}.{}", self.inbox, place.number));
        let silent = || Ended::Told(Err(PublishError::new(PublishErrorKind::TimedOut)));
        match timeout(ACK, self.client.publish_with_reply_and_headers(subject, reply, headers, payload)).await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ended::Told(Err(not_sent(error))),
            Err(_) => return silent(),
        }
        match timeout(ACK, &mut place.ended).await {
            Ok(ended) => ended.unwrap_or(Ended::Disconnected),
            Err(_) => silent(),
        }
    }
}

fn not_sent(error: client::PublishError) -> PublishError {
    let kind = match error.kind() {
        client::PublishErrorKind::MaxPayloadExceeded => PublishErrorKind::MaxPayloadExceeded,
        client::PublishErrorKind::InvalidSubject | client::PublishErrorKind::Send => PublishErrorKind::Other,
    };
    PublishError::with_source(kind, error)
}

/// Tells who waits what comes.
pub(super) async fn hear(mut answers: Subscriber, waiting: &Waiting) -> Infallible {
    while let Some(answer) = answers.next().await {
        waiting.answered(&answer);
    }
    // The client is closed.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u64, payload: &'static str, status: Option<StatusCode>) -> Message {
        Message {
            subject: format!("_INBOX.a.{number}").into(),
            reply: None,
            payload: payload.into(),
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    fn heard(place: &mut Place<'_>) -> Option<Ended> {
        place.ended.try_recv().ok()
    }

    #[test]
    fn each_copy_hears_its_own_answer_and_its_place_goes_with_it() {
        let waiting = Waiting::default();
        let topics: [Text; 4] = ["a", "b", "c", "d"].map(Into::into);
        let [mut taken, mut refused, mut nobody, left] = topics.each_ref().map(|topic| waiting.place(topic));
        let number = left.number;
        drop(left);
        waiting.answered(&answer(number, "{}", None));
        waiting.answered(&answer(taken.number, r#"{"stream":"FLEET","seq":7,"duplicate":true}"#, None));
        let words = r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#;
        waiting.answered(&answer(refused.number, words, None));
        waiting.answered(&answer(nobody.number, "", Some(StatusCode::NO_RESPONDERS)));
        let Some(Ended::Told(Ok(ack))) = heard(&mut taken) else { panic!("an acknowledgement") };
        assert_eq!((ack.stream.as_str(), ack.sequence, ack.duplicate), ("FLEET", 7, true));
        let Some(Ended::Told(Err(error))) = heard(&mut refused) else { panic!("an error") };
        assert_eq!(error.kind(), PublishErrorKind::Other);
        let Some(Ended::Told(Err(error))) = heard(&mut nobody) else { panic!("an error") };
        assert_eq!(error.kind(), PublishErrorKind::StreamNotFound);
        assert!(waiting.0.lock().sent.is_empty());
    }

    #[test]
    fn a_refusal_is_about_its_subject_and_a_new_connection_about_all() {
        let waiting = Waiting::default();
        let topics: [Text; 3] = ["fleet.Trip.1", "fleet.trip.2", "fleet.trip.1"].map(Into::into);
        let [mut first, mut other, mut again] = topics.each_ref().map(|topic| waiting.place(topic));
        waiting.forbidden("fleet.trip.1");
        assert!(matches!(heard(&mut first), Some(Ended::Forbidden)));
        assert!(matches!(heard(&mut again), Some(Ended::Forbidden)));
        assert!(heard(&mut other).is_none());
        waiting.disconnected();
        assert!(matches!(heard(&mut other), Some(Ended::Disconnected)));
        assert!(waiting.0.lock().sent.is_empty());
    }
}
