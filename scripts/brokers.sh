#!/usr/bin/env bash
# The real brokers of the tests, without Docker: Apache Kafka and Apicurio Registry (a schema registry that speaks Confluent's
# protocol) from their Maven artifacts, nats-server from its Go module.
# Installed once into the cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

kafka_version=4.1.1
apicurio_version=2.6.13.Final
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

if [ ! -f "$cache/apicurio-$apicurio_version/.complete" ]; then
  command -v java >/dev/null || apt default-jre-headless
  command -v mvn >/dev/null || apt maven
  rm -rf "$cache/apicurio-$apicurio_version"
  mkdir -p "$cache/apicurio-$apicurio_version"
  step "fetching Apicurio Registry $apicurio_version (140 MB)" \
    mvn -q -B -f scripts/apicurio/pom.xml dependency:unpack-dependencies -DoutputDirectory="$cache/apicurio-$apicurio_version"
  touch "$cache/apicurio-$apicurio_version/.complete"
fi

if [ ! -x "$cache/bin/nats-server-$nats_version" ]; then
  need_go
  step "building nats-server $nats_version (about a minute)" \
    env GOBIN="$cache/gobin" GOFLAGS=-mod=mod go install "github.com/nats-io/nats-server/v2@$nats_version"
  cp "$cache/gobin/nats-server" "$cache/bin/nats-server-$nats_version"
fi
