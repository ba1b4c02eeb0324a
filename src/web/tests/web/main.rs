//! Websites as browsers see them, on a simulated cluster.

mod errors;
mod objects;
mod rules;
mod sites;
mod support;
