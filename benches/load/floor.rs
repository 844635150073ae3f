//! The floor: what the libraries alone cost. A bare axum that reads the body and discards it, and a bare librdkafka producer
//! of as many bytes as the bridge sends, whose acknowledgement is awaited. No decoding, key only, no dedup, no order, no store.
//! A process of its own, so that its CPU can be told apart.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use futures_util::future::join_all;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Arguments of the floor.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Brokers; without them bodies are only discarded.
    #[arg(long)]
    brokers: Option<String>,
    /// The topic.
    #[arg(long, default_value = "floor")]
    topic: String,
    /// `linger.ms`.
    #[arg(long, default_value = "0")]
    linger: String,
    /// Bytes of a message, beside its key.
    #[arg(long, default_value_t = 0)]
    bytes: usize,
    /// Messages a request.
    #[arg(long, default_value_t = 1)]
    events: usize,
}

/// Tells whoever awaits a message.
struct Telling;

impl ClientContext for Telling {}

impl ProducerContext for Telling {
    type DeliveryOpaque = Box<oneshot::Sender<bool>>;

    fn delivery(&self, result: &DeliveryResult<'_>, tell: Self::DeliveryOpaque) {
        tell.send(result.is_ok()).unwrap_or_default();
    }
}

struct Floor {
    producer: Option<ThreadedProducer<Telling>>,
    args: Args,
    payload: Vec<u8>,
    keys: Vec<String>,
    next: AtomicUsize,
}

/// Serves until it is killed. Says its address on standard output.
pub async fn serve(args: Args) {
    let floor = Arc::new(Floor::new(args));
    let router = Router::new().route("/webhooks/acme", post(take)).with_state(floor);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    std::io::stdout().flush().expect("a pipe");
    axum::serve(listener, router).await.expect("a server");
}

impl Floor {
    fn new(args: Args) -> Self {
        let producer = args.brokers.as_ref().map(|brokers| {
            ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .set("enable.idempotence", "true")
                .set("acks", "all")
                .set("linger.ms", &args.linger)
                .set("partitioner", "murmur2_random")
                .set("queue.buffering.max.kbytes", "65536")
                .create_with_context(Telling)
                .expect("a producer")
        });
        let payload = vec![b'x'; args.bytes];
        let keys = (0..1_000_u64).map(|key| format!("{}", 350_000_000_000_000 + key)).collect();
        Self { producer, args, payload, keys, next: AtomicUsize::new(0) }
    }

    /// Sends a request's messages, and awaits their acknowledgements: whether all came.
    async fn keep(&self) -> bool {
        let Some(producer) = &self.producer else { return true };
        let mut waits = Vec::with_capacity(self.args.events);
        for _ in 0..self.args.events {
            let key = &self.keys[self.next.fetch_add(1, Ordering::Relaxed) % self.keys.len()];
            let (tell, told) = oneshot::channel();
            let record =
                BaseRecord::with_opaque_to(&self.args.topic, Box::new(tell)).key(key).payload(&self.payload);
            if producer.send(record).is_err() {
                return false;
            }
            waits.push(told);
        }
        join_all(waits).await.iter().all(|told| *told == Ok(true))
    }
}

async fn take(State(floor): State<Arc<Floor>>, body: Bytes) -> StatusCode {
    drop(body);
    if floor.keep().await { StatusCode::CREATED } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The producer without HTTP: so many callers in this process, each of which awaits its acknowledgement before it sends again.
/// Prints how many were acknowledged a second.
pub async fn alone(args: Args, callers: usize, warm_up: Duration, measured: Duration) {
    let floor = Arc::new(Floor::new(args));
    let (from, kept) = (Instant::now() + warm_up, Arc::new(AtomicUsize::new(0)));
    let mut calls = JoinSet::new();
    for _ in 0..callers {
        let (floor, kept) = (Arc::clone(&floor), Arc::clone(&kept));
        calls.spawn(async move {
            while Instant::now() < from + measured {
                assert!(floor.keep().await, "the broker is there");
                let now = Instant::now();
                if now >= from && now < from + measured {
                    kept.fetch_add(floor.args.events, Ordering::Relaxed);
                }
            }
        });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("a caller");
    }
    println!("{}", kept.load(Ordering::Relaxed) as f64 / measured.as_secs_f64());
}
