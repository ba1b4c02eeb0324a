//! Reads `garage.toml`.
