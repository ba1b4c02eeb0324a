//! Whole nodes on a virtual clock, a simulated network and simulated disks. One program, so that the nodes are linked once.

mod catching_up;
mod deleted_keys;
mod faults;
mod healing;
mod histories;
mod listing;
mod locks;
mod multipart;
mod reference_model;
mod rivals;
mod round_trips;
mod speed;
mod sync_cost;
