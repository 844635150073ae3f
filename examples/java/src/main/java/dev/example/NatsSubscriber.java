package dev.example;

import dev.fleetbus.v1.FleetEvent;
import io.nats.client.Nats;
import io.nats.client.Options;
import io.nats.client.api.ConsumerConfiguration;
import java.time.Instant;

/** Prints what vehicles report, from NATS JetStream. */
public final class NatsSubscriber {
  public static void main(String[] arguments) throws Exception {
    var environment = System.getenv();
    var name = environment.getOrDefault("GROUP", "my-service");
    var options =
        Options.builder()
            .server(environment.getOrDefault("NATS_URL", "nats://localhost:4222"))
            .maxReconnects(-1) // it never gives up
            .build();
    try (var connection = Nats.connect(options)) {
      var stream = connection.getStreamContext(environment.getOrDefault("STREAM", "FLEET"));
      var consumer =
          stream.createOrUpdateConsumer(
              ConsumerConfiguration.builder()
                  .durable(name)
                  .filterSubject(environment.getOrDefault("SUBJECT", "fleet.position.>"))
                  .build());
      try (var messages = consumer.iterate()) {
        while (true) {
          var message = messages.nextMessage(1_000);
          if (message == null) {
            continue; // nothing new
          }
          var event = FleetEvent.parseFrom(message.getData());
          var place = event.getPosition().getPlace();
          var point = place.getPoint();
          var where = place.hasPoint() ? point.getLatitude() + " " + point.getLongitude() : "no fix";
          var time = Instant.ofEpochSecond(event.getOccurTime().getSeconds(), event.getOccurTime().getNanos());
          System.out.println(
              String.join(" ", time.toString(), event.getSubject(), event.getVehicle().getName(), where));
          message.ack();
        }
      }
    }
  }
}
