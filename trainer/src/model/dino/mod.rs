//! Self-distillation without text: a student learns the output of its teacher, the moving average of itself, on other crops of
//! the same image (DINO, Caron et al. 2021), and on patches that it does not see (iBOT, Zhou et al. 2022).
//!
//! | file | purpose |
//! | --- | --- |
//! | `config` | sizes |
//! | `head` | the projection head, whose outputs are scores of prototypes |
//! | `network` | encoder and heads: the student, or the teacher |
//! | `loss` | cross-entropies, centering, Sinkhorn–Knopp, KoLeo |
//! | `block_masks` | which patches the student does not see |

pub mod block_masks;
mod config;
mod head;
pub mod loss;
mod network;

pub use config::{DinoHeadConfig, DinoModelConfig};
pub use head::DinoHead;
pub use network::DinoNetwork;
