//! Functions of libtorch that tch does not bind, and torch errors as one line.

pub mod c10d;
mod error_text;
pub mod message;
pub mod shim;
