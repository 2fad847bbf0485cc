//! `trainer embed`: pooled features, one row a record.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow_array::builder::{FixedSizeListBuilder, Float32Builder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use dataset::Loader;
use dataset::format::table::TableWriter;
use dataset::transform::Transform;
use tch::nn::VarStore;
use tch::{Device, Kind};

use crate::config::{Encoder, preset_hint, pretrain_preset};
use crate::model::classifier::{ClassifierConfig, VitClassifier};
use crate::model::vit::Pooling;
use crate::task::objective::{images, loader_for};
use crate::task::{DataSource, Registry, unfinished_init};
use crate::train::run_dir;
use crate::weights::source::{initialize, read_weights};

/// Records of a batch without gradients.
const BATCH: usize = 128;

/// Records of a row group: 25 MB of ViT-B's features, the most that is in memory at a time.
const GROUP: usize = 8192;

/// What was embedded.
#[derive(Debug)]
pub struct Embedded {
    /// Length of a feature vector.
    pub features: i64,
    /// What was loaded.
    pub loaded: String,
    /// A warning about an unfinished run.
    pub warning: Option<String>,
}

/// Whose features are computed.
#[derive(Debug, Clone, Copy)]
pub struct EncoderChoice<'a> {
    /// A run, an imported encoder or a safetensors file.
    pub weights: &'a Path,
    /// Sizes of weights that are in no run; replaces the sizes of a run.
    pub preset: Option<&'a str>,
    /// What stands for an image; none: as the encoder is configured.
    pub pooling: Option<Pooling>,
}

/// The encoder of some weights: that of the preset if one is given, else that of their run.
fn encoder(registry: &Registry, weights: &Path, preset: Option<&str>) -> Result<Encoder> {
    if let Some(preset) = preset {
        let config = pretrain_preset(preset)?;
        return Ok(Encoder { vit: config.model.vit, mean: config.data.mean, std: config.data.std });
    }
    let unknown = || {
        let hint = read_weights(weights).map_or_else(|_| String::new(), |tensors| preset_hint(&tensors));
        format!("no --preset is given, and no run says the sizes{hint}")
    };
    Ok(registry.load(&run_dir::run_of(weights).with_context(unknown)?)?.common()?.encoder)
}

/// Whether weights have a norm after the last block and none after the pooling.
fn has_own_norm(weights: &Path) -> Result<bool> {
    let tensors = read_weights(weights)?;
    let has = |wanted: &str| tensors.iter().any(|(name, _)| name == wanted);
    Ok(has("norm.weight") && !has("fc_norm.weight"))
}

/// Writes `record_id`, `patient_id`, `study_id` and `features` of some rows, in their order. The features are a list of D floats:
/// the mean over patch tokens or the class token (`pooling`; none: as the encoder is configured), normalized by the encoder's
/// final norm where it is configured to keep one, else by `fc_norm` of a fine-tuned run, else by a plain layer normalization.
///
/// # Errors
/// When neither a preset nor a run gives the sizes, the weights do not fit, or no row is given.
pub fn embed(
    registry: &Registry,
    source: &DataSource,
    rows: &[u32],
    &EncoderChoice { weights, preset, pooling }: &EncoderChoice,
    device: Device,
    out: &Path,
) -> Result<Embedded> {
    let Encoder { mut vit, mean, std } = encoder(registry, weights, preset)?;
    if let Some(pooling) = pooling {
        vit.pooling = pooling;
        // A masked encoder normalizes its tokens before the decoders; the mean over patches is taken without that.
        vit.final_norm |= pooling == Pooling::Cls && has_own_norm(weights)?;
    }
    let store = VarStore::new(device);
    let (image_size, width) = (vit.image_size, vit.embed_dim);
    let config = ClassifierConfig { vit, classes: 1, ..ClassifierConfig::default() };
    let model = VitClassifier::new(&store.root(), &config)?;
    let report = initialize(&store, weights, &|name| name.starts_with("head."), preset_hint)?;
    if rows.is_empty() {
        bail!("no record to embed");
    }
    dataset::store::files::check_place(out)?;
    let transform = Transform { mean: mean as f32, std: std as f32, ..Transform::evaluate(image_size as u32) };
    let loader = loader_for(device, Loader::builder(&source.dataset))
        .rows(rows.to_vec())
        .batch_size(BATCH)
        .shuffle(false)
        .transform(transform)
        .build()?;
    let texts = ["record_id", "patient_id", "study_id"].map(|name| Ok((name, source.dataset.texts(name)?)));
    let texts = texts.into_iter().collect::<Result<Vec<_>>>()?;
    let mut table: Option<TableWriter> = None;
    let mut kept: Vec<f32> = Vec::new();
    let (mut from, mut done) = (0, 0);
    for batch in loader {
        let batch = batch?; // must exist until its features are copied: a CUDA device reads its memory meanwhile
        let images = images(&batch, device);
        let pooled = tch::no_grad(|| model.features(&images, false))?.to_kind(Kind::Float).to_device(Device::Cpu);
        kept.extend(Vec::<f32>::try_from(&pooled.flatten(0, -1))?);
        done += batch.len();
        if done - from < GROUP && done < rows.len() {
            continue;
        }
        let mut features = FixedSizeListBuilder::new(Float32Builder::with_capacity(kept.len()), width as i32);
        features.values().append_slice(&kept);
        (from..done).for_each(|_| features.append(true));
        let of_rows = |(name, values): &(&'static str, Vec<Option<String>>)| {
            let column: StringArray = rows[from..done].iter().map(|&row| values[row as usize].as_deref()).collect();
            (*name, Arc::new(column) as ArrayRef, *name != "record_id")
        };
        let columns = texts.iter().map(of_rows).chain([("features", Arc::new(features.finish()) as ArrayRef, false)]);
        let group = RecordBatch::try_from_iter_with_nullable(columns)?;
        if table.is_none() {
            table = Some(TableWriter::create(out, group.schema())?);
        }
        if let Some(table) = &mut table {
            table.write(&group)?;
        }
        kept.clear();
        from = done;
    }
    if let Some(table) = table {
        table.finish()?;
    }
    Ok(Embedded {
        features: width,
        loaded: format!("{}: {report}", weights.display()),
        warning: unfinished_init(&weights.to_string_lossy()),
    })
}
