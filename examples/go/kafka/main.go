// Prints what vehicles report, from Kafka.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	fleetbusv1 "example.com/subscriber/gen/fleetbus/v1"
)

func main() {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(env("KAFKA_BROKERS", "localhost:9092")),
		kgo.ConsumerGroup(env("GROUP", "my-service")),
		kgo.ConsumeTopics(env("TOPIC", "fleet.position")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		log.Fatal(err)
	}
	for {
		fetches := client.PollFetches(context.Background())
		fetches.EachError(func(topic string, _ int32, err error) {
			log.Println(topic, err) // the client itself connects again
		})
		fetches.EachRecord(func(record *kgo.Record) {
			event := &fleetbusv1.FleetEvent{}
			if err := proto.Unmarshal(record.Value, event); err != nil {
				log.Fatal(err)
			}
			where := "no fix"
			if point := event.GetPosition().GetPlace().GetPoint(); point != nil {
				where = fmt.Sprint(point.GetLatitude(), point.GetLongitude())
			}
			fmt.Println(event.GetOccurTime().AsTime().Format("2006-01-02T15:04:05Z07:00"), event.GetSubject(),
				event.GetVehicle().GetName(), where)
		})
	}
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
