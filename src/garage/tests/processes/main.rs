//! Promises of the program as its users meet them: real `garage` processes on loopback, their command line and their S3 interface, nothing else.
//!
//! Reading order: `support` (processes, clusters, a signed client, waiting), then one file a promise: `quick_start`, `cluster`, `faults`,
//! `layout`, `lifecycle`, `rivals`, `disk_full`, `http_limits`, `memory`, `rolling`, `upgrade`.

mod cluster;
mod disk_full;
mod faults;
mod http_limits;
mod layout;
mod lifecycle;
mod memory;
mod quick_start;
mod rivals;
mod rolling;
mod support;
mod upgrade;
