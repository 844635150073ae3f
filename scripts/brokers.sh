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

# from_maven WHAT POM GOAL FOLDER INTO : artifacts into INTO, in the cache's FOLDER; that is complete, or begun anew.
from_maven() {
  [ ! -f "$cache/$4/.complete" ] || return 0
  command -v java >/dev/null || apt default-jre-headless
  command -v mvn >/dev/null || apt maven
  rm -rf "${cache:?}/$4"
  mkdir -p "$cache/$4"
  step "fetching $1" mvn -q -B -f "$2" "dependency:$3" -DoutputDirectory="$cache/$5"
  touch "$cache/$4/.complete"
}

kafka=kafka-$kafka_version apicurio=apicurio-$apicurio_version
from_maven "Apache Kafka $kafka_version (45 jars)" scripts/kafka/pom.xml copy-dependencies "$kafka" "$kafka/libs"
from_maven "Apicurio Registry $apicurio_version (140 MB)" scripts/apicurio/pom.xml unpack-dependencies "$apicurio" "$apicurio"

if [ ! -x "$cache/bin/nats-server-$nats_version" ]; then
  need_go
  step "building nats-server $nats_version (about a minute)" \
    env GOBIN="$cache/gobin" GOFLAGS=-mod=mod go install "github.com/nats-io/nats-server/v2@$nats_version"
  cp "$cache/gobin/nats-server" "$cache/bin/nats-server-$nats_version"
fi
