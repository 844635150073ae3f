import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Consumer, MessagesStreamFallbackModes, MessagesStreamModes } from "@platformatic/kafka";

import { FleetEventSchema } from "./gen/fleetbus/v1/event_pb.js";

const consumer = new Consumer({
  clientId: "my-service",
  groupId: process.env.GROUP ?? "my-service",
  bootstrapBrokers: [process.env.KAFKA_BROKERS ?? "localhost:9092"],
  // A member that died holds up the next one for that long. This client waits 30 s for an answer.
  sessionTimeout: 10_000,
  rebalanceTimeout: 20_000,
});
const records = await consumer.consume({
  topics: [process.env.TOPIC ?? "fleet.position"],
  mode: MessagesStreamModes.COMMITTED,
  fallbackMode: MessagesStreamFallbackModes.EARLIEST,
  autocommit: false,
});
// Where Kafka is away, this client gives up within seconds: the loop throws, and node ends with 1, to be started again.
for await (const record of records) {
  const event = fromBinary(FleetEventSchema, record.value);
  const point = event.body.case === "position" ? event.body.value.place?.point : undefined;
  const where = point ? `${point.latitude} ${point.longitude}` : "no fix";
  const time = event.occurTime ? timestampDate(event.occurTime).toISOString() : "";
  console.log(time, event.subject, event.vehicle?.name ?? "", where);
  await record.commit(); // done
}
