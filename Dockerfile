# syntax=docker/dockerfile:1
# The image of fleetbus, for x86-64 and arm64: one binary and what it is linked to, without a shell. docs/deploy.md says how to run it.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-${DEBIAN} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates cmake g++ gcc libcurl4-openssl-dev libssl-dev make pkg-config zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
# What the binary is made of is written into it, so that a scanner finds it there.
RUN cargo install --locked --root /usr/local cargo-auditable@0.7.7
WORKDIR /src

# Dependencies first: this layer is made again only when they, the toolchain or the schema change.
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY proto proto
# Tests and benchmarks stay outside; cargo would ask for the files of those that the manifest names.
RUN sed -Ei '/^\[\[(bench|test)\]\]/,/^$/d' Cargo.toml
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo auditable build --release --locked \
 && rm -r src

COPY src src
# The commit that it names itself by: `--build-arg FLEETBUS_REVISION=$(git rev-parse HEAD)`.
ARG FLEETBUS_REVISION=
RUN find src -name '*.rs' -exec touch {} + \
 && FLEETBUS_REVISION="$FLEETBUS_REVISION" cargo auditable build --release --locked
COPY deploy/image/root.sh deploy/image/root.sh
# The volume's folder apart: a copy gives its owner to a folder that it makes, and not to one that is there.
RUN deploy/image/root.sh target/release/fleetbus /image && mv /image/data /data

FROM scratch
ARG FLEETBUS_REVISION=
ARG FLEETBUS_VERSION=
LABEL org.opencontainers.image.title="fleetbus" \
      org.opencontainers.image.description="A bridge from fleet telematics to Kafka and NATS" \
      org.opencontainers.image.source="https://github.com/fleetbus/fleetbus" \
      org.opencontainers.image.documentation="https://github.com/fleetbus/fleetbus/blob/main/docs/deploy.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${FLEETBUS_VERSION}" \
      org.opencontainers.image.revision="${FLEETBUS_REVISION}"
COPY --from=build /image/ /
# The volume is the user's; all else is root's, and read-only.
COPY --from=build --chown=65532:65532 /data /data
ENV FLEETBUS_CONFIG=/etc/fleetbus/fleetbus.yaml
WORKDIR /
USER 65532:65532
VOLUME ["/data"]
# 8080: webhooks. 9090: the operator's port, on loopback unless admin.address says otherwise.
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 CMD ["/usr/bin/fleetbus", "health"]
ENTRYPOINT ["/usr/bin/fleetbus"]
CMD ["run"]
