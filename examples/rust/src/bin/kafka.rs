//! Prints what vehicles report, from Kafka.

use std::env::var;

use prost::Message as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::{ClientConfig, Message as _};
use subscriber::{FleetEvent, fleet_event::Body};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", var("KAFKA_BROKERS").unwrap_or("localhost:9092".into()))
        .set("group.id", var("GROUP").unwrap_or("my-service".into()))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.offset.store", "false")
        .create()?;
    consumer.subscribe(&[&var("TOPIC").unwrap_or("fleet.position".into())])?;
    loop {
        let record = consumer.recv().await?;
        let event = FleetEvent::decode(record.payload().unwrap_or_default())?;
        let vehicle = event.vehicle.unwrap_or_default().name;
        if let Some(Body::Position(position)) = event.body {
            let point = position.place.and_then(|place| place.point).unwrap_or_default();
            let time = event.occur_time.unwrap_or_default();
            println!("{time} {} {vehicle} {} {}", event.subject, point.latitude, point.longitude);
        }
        // Done: only now may its offset be committed.
        consumer.store_offset_from_message(&record)?;
    }
}
