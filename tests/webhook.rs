//! The webhooks' port as a sender meets it: real sockets, and a stand-in for what happens behind the answer.

#[path = "webhook/answers.rs"]
mod answers;
#[path = "webhook/connections.rs"]
mod connections;
#[path = "support/hanging.rs"]
mod hanging;
#[path = "webhook/limits.rs"]
mod limits;
#[path = "webhook/port.rs"]
mod port;
#[path = "webhook/smuggling.rs"]
mod smuggling;
#[path = "webhook/tls.rs"]
mod tls;
