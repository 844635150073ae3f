import os

from confluent_kafka import Consumer

from fleetbus.v1.event_pb2 import FleetEvent

consumer = Consumer({
    "bootstrap.servers": os.environ.get("KAFKA_BROKERS", "localhost:9092"),
    "group.id": os.environ.get("GROUP", "my-service"),
    "auto.offset.reset": "earliest",
    "enable.auto.offset.store": False,
})
consumer.subscribe([os.environ.get("TOPIC", "fleet.position")])
while True:
    record = consumer.poll(1.0)
    if record is None or record.error():
        continue  # the client itself connects again
    event = FleetEvent.FromString(record.value())
    point = event.position.place.point
    print(event.occur_time.ToJsonString(), event.subject, event.vehicle.name, point.latitude, point.longitude, flush=True)
    consumer.store_offsets(record)  # done: only now may its offset be committed
