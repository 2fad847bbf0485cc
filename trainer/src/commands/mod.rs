//! What the subcommands do, from parsed arguments on. They print nothing: what is to be shown is returned.

mod bench;
mod compare;
mod device;
mod embed;
mod embedder;
mod encoder_sizes;
mod export;
mod import;
mod import_encoder;
mod predict;
mod probe;
mod sweep;

pub use bench::{Measured, bench};
pub use compare::compare;
pub use device::{device, device_of_rank};
pub use embed::{Embedded, embed};
pub use embedder::EncoderChoice;
pub use export::{Exported, TARGETS, export};
pub use import::{Imported, import};
pub use import_encoder::{ImportedEncoder, import_encoder};
pub use predict::{Predicted, predict};
pub use probe::{Probe, ProbeResult, Probed, probe_table};
pub use sweep::{
    Axis, Cell, GridPoint, InitChoice, Plan, Progress, Sweep, Swept, parse_axis, parse_init, table as sweep_table,
};
