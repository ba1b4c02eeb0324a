//! The `garage` program.
fn main() {}
