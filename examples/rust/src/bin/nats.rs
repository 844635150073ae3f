//! Prints what vehicles report, from NATS JetStream.

use std::env::var;

use async_nats::jetstream::{self, consumer::pull};
use futures_util::StreamExt as _;
use prost::Message as _;
use subscriber::{FleetEvent, fleet_event::Body};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = async_nats::connect(var("NATS_URL").unwrap_or("nats://localhost:4222".into())).await?;
    let stream = jetstream::new(client).get_stream(var("STREAM").unwrap_or("FLEET".into())).await?;
    let name = var("GROUP").unwrap_or("my-service".into());
    let config = pull::Config {
        durable_name: Some(name.clone()),
        filter_subject: var("SUBJECT").unwrap_or("fleet.position.>".into()),
        ..Default::default()
    };
    let mut messages = stream.get_or_create_consumer(&name, config).await?.messages().await?;
    while let Some(message) = messages.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                eprintln!("{error}"); // the client itself connects again
                continue;
            }
        };
        let event = FleetEvent::decode(message.payload.clone())?;
        let vehicle = event.vehicle.unwrap_or_default().name;
        if let Some(Body::Position(position)) = event.body {
            let point = position.place.and_then(|place| place.point);
            let place = point.map_or("no fix".into(), |point| format!("{} {}", point.latitude, point.longitude));
            let time = event.occur_time.unwrap_or_default();
            println!("{time} {} {vehicle} {place}", event.subject);
        }
        message.ack().await.map_err(anyhow::Error::msg)?;
    }
    anyhow::bail!("the subscription has ended")
}
