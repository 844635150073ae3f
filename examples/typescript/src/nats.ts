import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

import { FleetEventSchema } from "./gen/fleetbus/v1/event_pb.js";

const stream = process.env.STREAM ?? "FLEET";
const name = process.env.GROUP ?? "my-service";
const connection = await connect({
  servers: process.env.NATS_URL ?? "nats://localhost:4222",
  maxReconnectAttempts: -1, // it never gives up
});
const manager = await jetstreamManager(connection);
await manager.consumers.add(stream, {
  durable_name: name,
  filter_subject: process.env.SUBJECT ?? "fleet.position.>",
  ack_policy: AckPolicy.Explicit,
});
const consumer = await jetstream(connection).consumers.get(stream, name);
for await (const message of await consumer.consume()) {
  const event = fromBinary(FleetEventSchema, message.data);
  const point = event.body.case === "position" ? event.body.value.place?.point : undefined;
  const where = point ? `${point.latitude} ${point.longitude}` : "no fix";
  const time = event.occurTime ? timestampDate(event.occurTime).toISOString() : "";
  console.log(time, event.subject, event.vehicle?.name ?? "", where);
  message.ack();
}
throw new Error("the subscription has ended");
