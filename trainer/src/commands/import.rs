//! `trainer import`: converts weights of PyTorch, timm and Hugging Face to a safetensors file for `--init`: an encoder of images,
//! a BERT that reads reports, or both together. (`import_encoder` writes an encoder with its sizes.)

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dataset::store::files;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::config::{PretrainConfig, fitting_preset, preset_hint};
use crate::model::bert::BertConfig;
use crate::model::mrm::Mrm;
use crate::weights::Tensors;
use crate::weights::foreign_vit::Family;
use crate::weights::load::{LoadReport, check_finite, load_state, shortened, write};
use crate::weights::pth;
use crate::weights::{bert, hugging_face};

/// Names of weight files in a model's folder, the preferred one first.
const IN_FOLDER: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The tokenizer in a model's folder.
const TOKENIZER: &str = "tokenizer.json";

/// The result of an import.
#[derive(Debug)]
pub struct Imported {
    /// The files, and their formats.
    sources: Vec<String>,
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
    /// Sizes of the BERT that was translated.
    pub bert: Option<BertConfig>,
    /// The tokenizer of the BERT that was written.
    pub tokenizer: Option<PathBuf>,
    /// The file that was written.
    pub out: PathBuf,
}

/// Writes the weights of checkpoints under our names, and compares them with the pre-training model of a configuration.
///
/// All tensors are written, including those that this model lacks: `finetune` takes a classifier's head. With `tokenizer`, the
/// tokenizer of a BERT's folder is written there, with the ids of special tokens that datasets need, and the rows of the
/// weights in its order.
///
/// # Errors
/// When a checkpoint cannot be read, two have a tensor of one name, or the model takes none of the tensors. Nothing is written
/// then.
pub fn import(sources: &[PathBuf], out: &Path, tokenizer: Option<&Path>, config: &PretrainConfig) -> Result<Imported> {
    let preset = &config.preset;
    let (mut tensors, mut names) = (Tensors::new(), Vec::new());
    let (mut translated, mut is_bert, mut written) = (false, false, None);
    let (mut skipped, mut beside) = (Vec::new(), Vec::new());
    for source in sources {
        let Loaded { file, what, mut state } = load(source)?;
        let has = |of: fn(&mut dyn Iterator<Item = &str>) -> bool, tensors: &Tensors| {
            of(&mut tensors.iter().map(|(name, _)| name.as_str()))
        };
        if let Some(family) = Family::of(state.tensors.iter().map(|(name, _)| name.as_str())) {
            bail!(
                "{} is an encoder of {}, with sizes that no preset has: give --out a folder, whose config.toml then has them",
                file.display(),
                family.name()
            );
        }
        if has(|names| hugging_face::is_hugging_face(names), &state.tensors) {
            state.tensors = hugging_face::from_hugging_face(state.tensors)?;
            translated = true;
        } else if has(|names| bert::is_hugging_face(names), &state.tensors) {
            state.tensors = bert::from_hugging_face(state.tensors);
            (translated, is_bert) = (true, true);
            if tokenizer.is_some() {
                let folder = if source.is_dir() { source.as_path() } else { file.parent().unwrap_or(Path::new("")) };
                let (text, order) = reordered_tokenizer(&folder.join(TOKENIZER))?;
                bert::reorder_tokens(&mut state.tensors, &order)?;
                written = Some(text);
            }
        }
        names.push(format!("{}: {what}", file.display()));
        tensors.append(&mut state.tensors);
        skipped.append(&mut state.skipped);
        beside.append(&mut state.other_keys);
    }
    let all = || sources.iter().map(|source| source.display().to_string()).collect::<Vec<_>>().join(", ");
    if tokenizer.is_some() && written.is_none() {
        bail!("--tokenizer: {} holds no BERT of Hugging Face, whose tokenizer it would be", all());
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some([(name, _), _]) = tensors.array_windows().find(|[a, b]| a.0 == b.0) {
        bail!("{}: two tensors would be `{name}`", all());
    }
    let converted = float32(&mut tensors)?;
    let bert = bert::sizes(&tensors).filter(|_| is_bert);
    let report = compare(&tensors, config, bert.as_ref())?;
    if report.loaded() == 0 {
        let hint = preset_hint(&tensors);
        bail!("{}: no tensor fits {preset}, nothing was written{hint}\n{report}", all());
    }
    write(&tensors, out)?;
    if let (Some(path), Some(text)) = (tokenizer, &written) {
        files::write_atomic(path, text.as_bytes())?;
        dataset::tokenizer::load(path)?;
    }
    Ok(Imported {
        sources: names,
        count: tensors.len(),
        converted,
        translated,
        skipped,
        beside,
        preset: preset.clone(),
        report,
        fitting: fitting_preset(&tensors),
        bert,
        tokenizer: tokenizer.map(Path::to_path_buf),
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
    check_finite(&state.tensors).with_context(|| file.display().to_string())?;
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

/// The tokenizer of a BERT, with the ids that datasets need, and the former id of each new one.
fn reordered_tokenizer(path: &Path) -> Result<(String, Vec<i64>)> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read {}; transformers' AutoTokenizer.from_pretrained(…).save_pretrained(…) writes it",
            path.display()
        )
    })?;
    bert::reordered_tokenizer(&text).with_context(|| path.display().to_string())
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

/// What the pre-training model of a configuration takes of the tensors. Its vocabulary is that of the weights, and all sizes of its
/// BERT are those of an imported one.
fn compare(tensors: &Tensors, config: &PretrainConfig, bert: Option<&BertConfig>) -> Result<LoadReport> {
    let mut config = config.model.clone();
    let vocabulary = bert::sizes(tensors).filter(|sizes| sizes.embed_dim == config.bert.embed_dim);
    config.bert.vocab_size = vocabulary.map_or(BertConfig::default().vocab_size, |sizes| sizes.vocab_size.max(1));
    if let Some(bert) = bert {
        config.bert = bert.clone();
    }
    let store = VarStore::new(Device::Cpu);
    let _model = Mrm::new(&store.root(), &config)?;
    Ok(load_state(&store, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?)
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}; {} tensors", self.sources.join("; "), self.count)?;
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
        if let Some(bert) = &self.bert {
            let BertConfig {
                vocab_size,
                embed_dim,
                num_layers,
                num_heads,
                intermediate,
                max_positions,
                type_vocab,
                ..
            } = bert;
            write!(
                f,
                "\na BERT of {vocab_size} tokens: ingest with its tokenizer, and pretrain with --set model.bert.vocab_size={vocab_size} \
                 --set model.bert.embed_dim={embed_dim} --set model.bert.num_layers={num_layers} --set model.bert.num_heads={num_heads} --set \
                 model.bert.intermediate={intermediate} --set model.bert.max_positions={max_positions} --set \
                 model.bert.type_vocab={type_vocab}"
            )?;
        }
        write!(f, "\nwritten to {}", self.out.display())?;
        match &self.tokenizer {
            Some(path) => write!(f, "; the tokenizer, for `ingest --tokenizer`, to {}", path.display()),
            None => Ok(()),
        }
    }
}
