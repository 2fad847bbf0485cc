//! The loader in a training loop: `cargo run --release --example train_loop -- DATASET SPLIT`.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use dataset::loader::TextOptions;
use dataset::transform::Transform;
use dataset::{Dataset, Loader, Split, Subset};

fn main() -> Result<()> {
    let usage = "usage: train_loop DATASET SPLIT";
    let mut arguments = std::env::args().skip(1);
    let dataset = Arc::new(Dataset::open(arguments.next().context(usage)?)?);
    let split = Split::load(&dataset, &arguments.next().context(usage)?)?;
    let mut loader = Loader::builder(&dataset)
        .subset(&split, Subset::Train)
        .batch_size(8)
        .seed(7)
        .transform(Transform::pretrain(64))
        .text(TextOptions { tokens: 32, mask_ratio: 0.5 })
        .build()?;
    for step in 0..loader.batches() {
        let batch = loader.next_batch()?;
        // Images are floats `[B, 1, S, S]`, token ids `[B, L]`. A model would compute its loss here.
        let mean = batch.images().iter().sum::<f32>() / batch.images().len() as f32;
        let masked = batch.token_ids().iter().zip(batch.target_ids()).filter(|(id, target)| id != target).count();
        let (count, side) = (batch.len(), batch.size());
        writeln!(
            std::io::stdout(),
            "step {step}: {count} images of {side}×{side}, mean {mean:.3}, {masked} masked tokens"
        )?;
    }
    // What a checkpoint keeps of the loader; `resume` of the builder continues from it.
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&loader.state())?)?;
    Ok(())
}
