//! From a request to the configuration of a fine-tuning run, for all kinds of fine-tuning.

use anyhow::Result;

use super::{Initialization, Request};
use crate::config::{Epoch, FinetuneConfig, Provenance, overlay};

/// The configuration of a request: `defaults` of the preset and recipe, the pretrained run's encoder, a length by the records
/// where the recipe states none in steps, file, length, settings, in this order; then the defaults that follow from these.
///
/// `records` counts the training records of a configuration; it is called only where the length depends on them.
///
/// # Errors
/// When a setting is unknown, the pretrained run does not fit, or one of the functions fails.
pub fn resolve_finetune<C: FinetuneConfig>(
    request: &Request,
    defaults: impl FnOnce(&str) -> Result<C>,
    records: impl Fn(&C) -> Result<usize>,
    default_length: Option<fn(&mut C, Epoch) -> Result<()>>,
) -> Result<C> {
    let initialization = Initialization::of(request)?;
    let mut config = defaults(&initialization.preset)?;
    let (keys, _) = config.parts();
    keys.provenance = Provenance { init: initialization.init, ..request.source.provenance() };
    (keys.init_name, keys.recipe) = (initialization.name, request.recipe);
    if let Some(encoder) = initialization.encoder {
        config.take_encoder(encoder);
    }
    // The training records and an epoch of them, with the batch size and the label policies that the user asked for.
    let asked = |config: &C| overlay(&overlay(config, request.file, &[])?, None, request.settings);
    let count = |config: &C| {
        let asked = asked(config)?;
        request.source.check_ratio(request.ratio)?;
        records(&asked)
    };
    let epoch = |config: &C| -> Result<Epoch> { Ok(asked(config)?.parts().1.epoch(count(config)?)) };
    if let Some(take_default_length) = default_length {
        let records = count(&config)?;
        config.take_records(records);
        let epoch = epoch(&config)?;
        take_default_length(&mut config, epoch)?;
    }
    let resolved = |config: &C| -> Result<C> {
        let mut config = overlay(config, request.file, &[])?;
        if let Some(steps) = request.steps {
            config.parts().1.take_steps(steps);
        } else if let Some(epochs) = request.epochs {
            let epoch = epoch(&config)?;
            config.parts().1.take_epochs(epochs, epoch);
        }
        overlay(&config, None, request.settings)
    };
    config.follow(&resolved(&config)?)?;
    let mut config = resolved(&config)?;
    config.complete();
    Ok(config)
}
