//! Raw radiographs and reports to training-ready shards.

pub mod phantom;
