//! Whether a request's body was read to its end before the answer. Where it was not, an HTTP/1.1 connection cannot be used again, and the
//! answer says so: else a client that keeps connections sends its next request on one that ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A body, and whether its end was seen.
pub(super) struct Watched {
    body: Incoming,
    read: Read,
}

/// Tells it to who answers.
#[derive(Debug, Clone)]
pub(super) struct Read(Arc<AtomicBool>);

impl Read {
    pub(super) fn is_to_its_end(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Watched {
    pub(super) fn new(body: Incoming) -> (Self, Read) {
        let read = Read(Arc::new(AtomicBool::new(body.is_end_stream())));
        (Self { body, read: read.clone() }, read)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.read.0.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
