import os
import sys

from confluent_kafka import Consumer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from fleetbus.v1.event_pb2 import FleetEvent

topic = os.environ.get("TOPIC", "fleet.position")
deserialize = ProtobufDeserializer(FleetEvent, {"use.deprecated.format": False})
consumer = Consumer({
    "bootstrap.servers": os.environ.get("KAFKA_BROKERS", "localhost:9092"),
    "group.id": os.environ.get("GROUP", "my-service"),
    "auto.offset.reset": "earliest",
    "enable.auto.offset.store": False,
})
consumer.subscribe([topic])
while True:
    record = consumer.poll(1.0)
    if record is None:
        continue  # nothing new
    if record.error():
        print(record.error(), file=sys.stderr)  # the client itself connects again
        continue
    event = deserialize(record.value(), SerializationContext(topic, MessageField.VALUE))
    place = event.position.place
    where = f"{place.point.latitude} {place.point.longitude}" if place.HasField("point") else "no fix"
    print(event.occur_time.ToJsonString(), event.subject, event.vehicle.name, where, flush=True)
    consumer.store_offsets(record)  # done: only now may its offset be committed
