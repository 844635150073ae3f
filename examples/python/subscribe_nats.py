import asyncio
import os

import nats
from nats.errors import TimeoutError

from fleetbus.v1.event_pb2 import FleetEvent


async def main():
    client = await nats.connect(os.environ.get("NATS_URL", "nats://localhost:4222"))
    messages = await client.jetstream().pull_subscribe(
        os.environ.get("SUBJECT", "fleet.position.>"),
        durable=os.environ.get("GROUP", "my-service"),
        stream=os.environ.get("STREAM", "FLEET"),
    )
    while True:
        try:
            batch = await messages.fetch(100, timeout=5)
        except TimeoutError:
            continue  # nothing new
        for message in batch:
            event = FleetEvent.FromString(message.data)
            point = event.position.place.point
            print(event.occur_time.ToJsonString(), event.subject, event.vehicle.name, point.latitude, point.longitude, flush=True)
            await message.ack()


asyncio.run(main())
