//! `trainer import`: converts weights of PyTorch, timm and Hugging Face to a safetensors file for `--init`.
//! (`import_encoder` writes an encoder with its sizes.)

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::config::{PretrainConfig, fitting_preset, preset_hint};
use crate::model::bert::BertConfig;
use crate::model::mrm::Mrm;
use crate::weights::Tensors;
use crate::weights::foreign_vit::Family;
use crate::weights::hugging_face;
use crate::weights::load::{LoadReport, load_state, shortened, write};
use crate::weights::pth;

/// Names of weight files in a model's folder, the preferred one first.
const IN_FOLDER: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The token embedding: one row a token of the vocabulary.
const TOKEN_EMBEDDING: &str = "bert_encoder.model.bert.embeddings.word_embeddings.weight";

/// The result of an import.
#[derive(Debug)]
pub struct Imported {
    /// The file, and its format.
    source: String,
    /// Number of tensors that were written.
    pub count: usize,
    /// How many of them were converted to float32.
    pub converted: usize,
    /// Whether Hugging Face's names were translated.
    pub translated: bool,
    /// Entries of the state dict that were left out, and why.
    pub skipped: Vec<(String, String)>,
    /// Other entries of the checkpoint beside its state dict.
    pub beside: Vec<String>,
    /// The preset that the weights were compared with.
    pub preset: String,
    /// What its model takes of the tensors.
    pub report: LoadReport,
    /// The preset with the sizes of the weights.
    pub fitting: Option<&'static str>,
    /// The file that was written.
    pub out: PathBuf,
}

/// Writes the weights of a checkpoint under our names, and compares them with the pre-training model of a configuration.
///
/// All tensors are written, including those that this model lacks: `finetune` takes a classifier's head.
///
/// # Errors
/// When the checkpoint cannot be read, or the model takes none of its tensors. Nothing is written then.
pub fn import(source: &Path, out: &Path, config: &PretrainConfig) -> Result<Imported> {
    let preset = &config.preset;
    let Loaded { file, what, mut state } = load(source)?;
    let names = || state.tensors.iter().map(|(name, _)| name.as_str());
    if let Some(family) = Family::of(names()) {
        bail!(
            "{} is an encoder of {}, with sizes that no preset has: give --out a folder, whose config.toml then has them",
            file.display(),
            family.name()
        );
    }
    let translated = hugging_face::is_hugging_face(names());
    if translated {
        state.tensors = hugging_face::from_hugging_face(state.tensors)?;
    }
    state.tensors.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some([(name, _), _]) = state.tensors.array_windows().find(|[a, b]| a.0 == b.0) {
        bail!("{}: two tensors would be `{name}`", file.display());
    }
    let converted = float32(&mut state.tensors)?;
    let report = compare(&state.tensors, config)?;
    if report.loaded() == 0 {
        let hint = preset_hint(&state.tensors);
        bail!("{}: no tensor fits {preset}, nothing was written{hint}\n{report}", file.display());
    }
    write(&state.tensors, out)?;
    Ok(Imported {
        source: format!("{}: {what}", file.display()),
        count: state.tensors.len(),
        converted,
        translated,
        skipped: state.skipped,
        beside: state.other_keys,
        preset: preset.clone(),
        report,
        fitting: fitting_preset(&state.tensors),
        out: out.to_path_buf(),
    })
}

/// A checkpoint that was read.
pub(super) struct Loaded {
    /// The file.
    pub file: PathBuf,
    /// Its format, in words.
    pub what: String,
    /// Its tensors, without the prefixes of wrappers.
    pub state: pth::StateDict,
}

/// Reads a checkpoint, or that of a folder.
///
/// # Errors
/// When it is a run, or cannot be read.
pub(super) fn load(source: &Path) -> Result<Loaded> {
    if source.join("config.toml").is_file() {
        bail!("{} is a run, which needs no import: give it to --init", source.display());
    }
    let file = if source.is_dir() {
        let file = IN_FOLDER.iter().map(|name| source.join(name)).find(|path| path.is_file());
        file.with_context(|| format!("{} holds neither {}", source.display(), IN_FOLDER.join(" nor ")))?
    } else {
        source.to_path_buf()
    };
    let (what, mut state) = read(&file).with_context(|| format!("{}", file.display()))?;
    hugging_face::unwrap(&mut state.tensors);
    Ok(Loaded { file, what, state })
}

/// Converts other floats to float32; returns how many tensors.
pub(super) fn float32(tensors: &mut Tensors) -> Result<usize> {
    let mut converted = 0;
    for (_, tensor) in tensors {
        if matches!(tensor.kind(), Kind::Half | Kind::BFloat16 | Kind::Double) {
            *tensor = tensor.f_to_kind(Kind::Float)?;
            converted += 1;
        }
    }
    Ok(converted)
}

/// The format of a file, and its tensors.
fn read(file: &Path) -> Result<(String, pth::StateDict)> {
    if pth::is_pth(file)? {
        let state = pth::read(file)?;
        let place = state.key.as_ref().map(|key| format!(", the weights under `{key}`")).unwrap_or_default();
        return Ok((format!("a PyTorch checkpoint{place}"), state));
    }
    let mut start = Vec::new();
    File::open(file)?.take(24).read_to_end(&mut start)?;
    if start.starts_with(b"version https://git-lfs") {
        bail!("a pointer of Git LFS in place of the file; `git lfs pull` brings it");
    }
    if start.get(8) != Some(&b'{') {
        bail!("neither a checkpoint written by torch.save nor a safetensors file");
    }
    let tensors = Tensor::read_safetensors(file).map_err(|error| match error {
        tch::TchError::SafeTensorError { err, .. } => anyhow::anyhow!("a damaged safetensors file: {err:?}"),
        other => other.into(),
    })?;
    Ok(("a safetensors file".to_owned(), pth::StateDict { tensors, ..pth::StateDict::default() }))
}

/// What the pre-training model of a configuration takes of the tensors; its vocabulary is that of the weights.
fn compare(tensors: &Tensors, config: &PretrainConfig) -> Result<LoadReport> {
    let mut config = config.model.clone();
    let vocabulary = tensors.iter().find(|(name, _)| name == TOKEN_EMBEDDING).map(|(_, embedding)| embedding.size());
    config.bert.vocab_size = match vocabulary.as_deref() {
        Some(&[rows, width]) if width == config.bert.embed_dim && rows > 0 => rows,
        _ => BertConfig::default().vocab_size,
    };
    let store = VarStore::new(Device::Cpu);
    let _model = Mrm::new(&store.root(), &config)?;
    Ok(load_state(&store, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?)
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}; {} tensors", self.source, self.count)?;
        if self.translated {
            f.write_str(", Hugging Face's names translated")?;
        }
        if self.converted > 0 {
            write!(f, ", {} made float32", self.converted)?;
        }
        if !self.beside.is_empty() {
            write!(f, "\nbeside the weights, not imported: {}", shortened(&self.beside))?;
        }
        if !self.skipped.is_empty() {
            let skipped: Vec<String> = self.skipped.iter().map(|(name, why)| format!("{name} ({why})")).collect();
            write!(f, "\nleft out: {}", shortened(&skipped))?;
        }
        write!(f, "\n--init of {}: {}", self.preset, self.report)?;
        if let Some(fitting) = self.fitting.filter(|fitting| *fitting != self.preset) {
            write!(f, "\nthe sizes are those of --preset {fitting}")?;
        }
        write!(f, "\nwritten to {}", self.out.display())
    }
}
