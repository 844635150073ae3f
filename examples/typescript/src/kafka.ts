import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Consumer, MessagesStreamFallbackModes, MessagesStreamModes } from "@platformatic/kafka";

import { FleetEventSchema } from "./gen/fleetbus/v1/event_pb.js";

const consumer = new Consumer({
  clientId: "my-service",
  groupId: process.env.GROUP ?? "my-service",
  bootstrapBrokers: [process.env.KAFKA_BROKERS ?? "localhost:9092"],
});
const records = await consumer.consume({
  topics: [process.env.TOPIC ?? "fleet.position"],
  mode: MessagesStreamModes.COMMITTED,
  fallbackMode: MessagesStreamFallbackModes.EARLIEST,
  autocommit: false,
});
for await (const record of records) {
  const event = fromBinary(FleetEventSchema, record.value);
  const point = event.body.case === "position" ? event.body.value.place?.point : undefined;
  const time = event.occurTime ? timestampDate(event.occurTime).toISOString() : "";
  console.log(time, event.subject, event.vehicle?.name, point?.latitude, point?.longitude);
  await record.commit(); // done
}
