import asyncio
import os

import nats

from fleetbus.v1.event_pb2 import FleetEvent


async def main():
    url = os.environ.get("NATS_URL", "nats://localhost:4222")
    client = await nats.connect(url, max_reconnect_attempts=-1)  # it never gives up
    messages = await client.jetstream().pull_subscribe(
        os.environ.get("SUBJECT", "fleet.position.>"),
        durable=os.environ.get("GROUP", "my-service"),
        stream=os.environ.get("STREAM", "FLEET"),
    )
    while True:
        try:
            batch = await messages.fetch(100, timeout=5)
        except asyncio.TimeoutError:
            continue  # nothing new
        for message in batch:
            event = FleetEvent.FromString(message.data)
            place = event.position.place
            where = f"{place.point.latitude} {place.point.longitude}" if place.HasField("point") else "no fix"
            print(event.occur_time.ToJsonString(), event.subject, event.vehicle.name, where, flush=True)
            await message.ack()


asyncio.run(main())
