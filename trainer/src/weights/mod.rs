//! Weights in and out: loading, PyTorch checkpoints read without Python, key names of Hugging Face.

pub mod bert;
pub mod foreign_vit;
pub mod hugging_face;
pub mod load;
pub mod pth;
pub mod source;

pub use load::{LoadReport, ShapeChange, Tensors, load_state, load_tensors, write};
