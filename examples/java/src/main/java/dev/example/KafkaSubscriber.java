package dev.example;

import dev.fleetbus.v1.FleetEvent;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Prints what vehicles report, from Kafka. */
public final class KafkaSubscriber {
  public static void main(String[] arguments) throws Exception {
    var environment = System.getenv();
    Map<String, Object> settings =
        Map.of(
            "bootstrap.servers", environment.getOrDefault("KAFKA_BROKERS", "localhost:9092"),
            "group.id", environment.getOrDefault("GROUP", "my-service"),
            "auto.offset.reset", "earliest",
            "enable.auto.commit", "false");
    try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
      consumer.subscribe(List.of(environment.getOrDefault("TOPIC", "fleet.position")));
      while (true) {
        for (var record : consumer.poll(Duration.ofSeconds(1))) {
          var event = FleetEvent.parseFrom(record.value());
          var place = event.getPosition().getPlace();
          var point = place.getPoint();
          var where = place.hasPoint() ? point.getLatitude() + " " + point.getLongitude() : "no fix";
          var time = Instant.ofEpochSecond(event.getOccurTime().getSeconds(), event.getOccurTime().getNanos());
          System.out.println(
              String.join(" ", time.toString(), event.getSubject(), event.getVehicle().getName(), where));
        }
        consumer.commitAsync(); // all of them are done
      }
    }
  }
}
