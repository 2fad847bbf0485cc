//! What tch does not bind of libtorch, and torch errors as one line.

pub mod panic;
pub mod shim;
