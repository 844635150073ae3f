#!/usr/bin/env bash
# The real brokers of the tests, without Docker: Apache Kafka from its Maven artifacts, nats-server from its Go module.
# Installed once into the cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

kafka_version=4.1.1
nats_version=v2.15.2

if [ ! -f "$cache/kafka-$kafka_version/.complete" ]; then
  command -v java >/dev/null || apt default-jre-headless
  command -v mvn >/dev/null || apt maven
  rm -rf "$cache/kafka-$kafka_version"
  mkdir -p "$cache/kafka-$kafka_version"
  step "fetching Apache Kafka $kafka_version (45 jars)" \
    mvn -q -B -f scripts/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory="$cache/kafka-$kafka_version/libs"
  touch "$cache/kafka-$kafka_version/.complete"
fi

if [ ! -x "$cache/bin/nats-server-$nats_version" ]; then
  need_go
  step "building nats-server $nats_version (about a minute)" \
    env GOBIN="$cache/gobin" GOFLAGS=-mod=mod go install "github.com/nats-io/nats-server/v2@$nats_version"
  cp "$cache/gobin/nats-server" "$cache/bin/nats-server-$nats_version"
fi
