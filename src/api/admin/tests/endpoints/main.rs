//! Every endpoint over a simulated node: what it changes, what it answers, what it refuses, and that each answer is of the documented shape.

mod buckets;
mod cluster;
mod http;
mod keys;
mod layout;
mod maintenance;
mod schema;
mod support;
mod uploads;
