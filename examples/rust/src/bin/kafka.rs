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
        let record = match consumer.recv().await {
            Ok(record) => record,
            Err(error) => {
                eprintln!("{error}"); // the client itself connects again
                continue;
            }
        };
        let event = FleetEvent::decode(record.payload().unwrap_or_default())?;
        let vehicle = event.vehicle.unwrap_or_default().name;
        if let Some(Body::Position(position)) = event.body {
            let point = position.place.and_then(|place| place.point);
            let place = point.map_or("no fix".into(), |point| format!("{} {}", point.latitude, point.longitude));
            let time = event.occur_time.unwrap_or_default();
            println!("{time} {} {vehicle} {place}", event.subject);
        }
        // Done: only now may its offset be committed.
        consumer.store_offset_from_message(&record)?;
    }
}
