// Prints what vehicles report, from NATS JetStream.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	fleetbusv1 "example.com/subscriber/gen/fleetbus/v1"
)

func main() {
	connection, err := nats.Connect(env("NATS_URL", nats.DefaultURL), nats.MaxReconnects(-1)) // it never gives up
	must(err)
	stream, err := jetstream.New(connection)
	must(err)
	consumer, err := stream.CreateOrUpdateConsumer(context.Background(), env("STREAM", "FLEET"), jetstream.ConsumerConfig{
		Durable:       env("GROUP", "my-service"),
		FilterSubject: env("SUBJECT", "fleet.position.>"),
		AckPolicy:     jetstream.AckExplicitPolicy,
	})
	must(err)
	messages, err := consumer.Messages()
	must(err)
	for {
		message, err := messages.Next()
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			log.Print(err) // it asks again
			continue
		}
		must(err)
		event := &fleetbusv1.FleetEvent{}
		must(proto.Unmarshal(message.Data(), event))
		where := "no fix"
		if point := event.GetPosition().GetPlace().GetPoint(); point != nil {
			where = fmt.Sprint(point.GetLatitude(), point.GetLongitude())
		}
		fmt.Println(event.GetOccurTime().AsTime().Format("2006-01-02T15:04:05Z07:00"), event.GetSubject(),
			event.GetVehicle().GetName(), where)
		must(message.Ack())
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
