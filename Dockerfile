# The job: built in Rust's image, run in a slim Debian as a user of its own.

FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY . .
# The build folder is a cache between builds, so the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin riderflow \
    && cp target/release/riderflow /usr/local/bin/riderflow

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --home-dir /var/lib/riderflow riderflow
COPY --from=build /usr/local/bin/riderflow /usr/local/bin/riderflow
COPY pipelines/ /etc/riderflow/
USER riderflow
# Snapshots go to ./riderflow-state unless the pipeline file says otherwise.
WORKDIR /var/lib/riderflow
ENTRYPOINT ["riderflow"]
CMD ["--help"]
