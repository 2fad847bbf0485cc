//! Loads weights into a model: tensors are matched by name, position tables are resized, and a report lists what was loaded and
//! what was not. Writes weights to a file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result as AnyResult, bail};
use dataset::store::files;
use safetensors::tensor::{Dtype, View, serialize_to_file};
use tch::nn::VarStore;
use tch::{Kind, TchError, Tensor};

use crate::error::ModelError;
use crate::model::pos_embed::{PosResize, resize_table};

/// Named tensors.
pub type Tensors = Vec<(String, Tensor)>;

/// An error where a weight is infinite or no number: a model with it computes nothing but such values.
///
/// # Errors
/// Names the first such tensor; also when torch fails.
pub fn check_finite(tensors: &Tensors) -> AnyResult<()> {
    let is_finite = |tensor: &Tensor| -> Result<bool, TchError> {
        let is_float = matches!(tensor.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16);
        Ok(!is_float || tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
    };
    for (name, tensor) in tensors {
        if !is_finite(tensor)? {
            bail!("the tensor `{name}` has values that are infinite or no numbers");
        }
    }
    Ok(())
}

/// Names of position tables, which are resized to the model's grid.
const POSITION_TABLES: [&str; 2] = ["pos_embed", "decoder_pos_embed"];

/// Number of names that a message lists; the others are counted.
const NAMES_SHOWN: usize = 6;

/// A tensor with another shape than the model's variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeChange {
    /// Name of the variable.
    pub name: String,
    /// Shape in the state.
    pub from: Vec<i64>,
    /// Shape in the model.
    pub to: Vec<i64>,
}

/// The result of loading a state: each tensor of the state and each variable of the model, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Loaded unchanged.
    pub matched: Vec<String>,
    /// Position tables that were resized to the model's grid and loaded.
    pub resized: Vec<ShapeChange>,
    /// In both, with different shapes: not loaded, the model keeps its initialization.
    pub mismatched: Vec<ShapeChange>,
    /// In the model only: it keeps its initialization.
    pub missing: Vec<String>,
    /// In the state only: not used.
    pub unexpected: Vec<String>,
}

impl LoadReport {
    /// Whether every variable of the model was loaded.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.mismatched.is_empty()
    }

    /// One line per name with its result.
    pub fn details(&self) -> String {
        let changed = |what, changes: &[ShapeChange]| -> Vec<String> {
            changes.iter().map(|c| format!("{what:<12}{} {:?} -> {:?}", c.name, c.from, c.to)).collect()
        };
        let named =
            |what, names: &[String]| -> Vec<String> { names.iter().map(|name| format!("{what:<12}{name}")).collect() };
        let lines = [
            named("matched", &self.matched),
            changed("resized", &self.resized),
            changed("other shape", &self.mismatched),
            named("missing", &self.missing),
            named("unexpected", &self.unexpected),
        ];
        lines.concat().join("\n")
    }

    /// Number of variables that were loaded.
    pub fn loaded(&self) -> usize {
        self.matched.len() + self.resized.len()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "loaded {} tensors", self.loaded())?;
        for (title, changes) in [("resized", &self.resized), ("of another shape, not loaded", &self.mismatched)] {
            if !changes.is_empty() {
                let changes: Vec<String> =
                    changes.iter().map(|c| format!("{} {:?} -> {:?}", c.name, c.from, c.to)).collect();
                write!(f, "\n  {title}: {}", shortened(&changes))?;
            }
        }
        for (title, names) in
            [("missing, left at their initialization", &self.missing), ("unexpected, unused", &self.unexpected)]
        {
            if !names.is_empty() {
                write!(f, "\n  {title}: {} ({})", names.len(), shortened(&families(names)))?;
            }
        }
        Ok(())
    }
}

/// The first names of a list, and the number of the others.
pub(crate) fn shortened(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_SHOWN)].join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Names grouped by their first part: `blocks.* (24)`; a group of one is listed by its full name.
pub(crate) fn families(names: &[String]) -> Vec<String> {
    let mut families: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        families.entry(name.split('.').next().unwrap_or(name)).or_default().push(name);
    }
    let describe = |(family, members): (&str, Vec<&str>)| match members.as_slice() {
        [only] => (*only).to_owned(),
        _ => format!("{family}.* ({})", members.len()),
    };
    families.into_iter().map(describe).collect()
}

/// [`load_resized`] with position tables resized as MRM's are.
///
/// # Errors
/// As [`load_resized`].
pub fn load_state<'a>(
    store: &VarStore,
    state: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<LoadReport, ModelError> {
    load_resized(store, state, PosResize::default())
}

/// Copies a state into the variables of `store` with the same names.
///
/// Values are converted to the variable's kind and device. Position tables of another square grid are resized. Missing and
/// mismatched tensors are not an error here; the caller decides by the report. On an error, nothing is copied.
///
/// # Errors
/// When a position table cannot be resized, or torch fails.
pub fn load_resized<'a>(
    store: &VarStore,
    state: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    resize: PosResize,
) -> Result<LoadReport, ModelError> {
    let mut variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    let mut report = LoadReport::default();
    let mut copies: Vec<(Tensor, Tensor)> = Vec::new();
    let state: BTreeMap<&str, &Tensor> = state.into_iter().collect();
    for (name, tensor) in state {
        let Some(variable) = variables.remove(name) else {
            report.unexpected.push(name.to_owned());
            continue;
        };
        let (from, to) = (tensor.size(), variable.size());
        if from == to {
            report.matched.push(name.to_owned());
            copies.push((variable, tensor.shallow_clone()));
            continue;
        }
        let change = ShapeChange { name: name.to_owned(), from, to };
        if is_other_grid(&change) {
            let grid = ((change.to[1] - 1) as f64).sqrt().round() as i64;
            copies.push((variable, resize_table(tensor, grid, resize)?));
            report.resized.push(change);
        } else {
            report.mismatched.push(change);
        }
    }
    report.missing = variables.into_keys().collect();
    tch::no_grad(|| copies.iter_mut().try_for_each(|(variable, tensor)| variable.f_copy_(tensor)))?;
    Ok(report)
}

/// [`load_state`] of named tensors.
///
/// # Errors
/// As [`load_state`].
pub fn load_tensors(store: &VarStore, tensors: &Tensors) -> Result<LoadReport, ModelError> {
    load_state(store, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))
}

/// Whether the shapes are those of a position table on two grids.
fn is_other_grid(change: &ShapeChange) -> bool {
    let table = change.name.rsplit('.').next().is_some_and(|name| POSITION_TABLES.contains(&name));
    table && change.from.len() == 3 && change.to.len() == 3 && change.from[2] == change.to[2]
}

/// A tensor as `safetensors` writes it.
struct Stored<'a> {
    tensor: &'a Tensor,
    shape: Vec<usize>,
    dtype: Dtype,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// Writes tensors to a safetensors file, atomically. Its metadata names PyTorch's format, which Hugging Face's loaders require.
///
/// # Errors
/// When the file cannot be written, or safetensors has no type for a tensor's kind.
pub fn write(tensors: &[(String, Tensor)], path: &Path) -> AnyResult<()> {
    let temporary = files::temporary(path);
    let written = (|| -> AnyResult<()> {
        let views: Vec<(&str, Stored)> = tensors
            .iter()
            .map(|(name, tensor)| {
                let shape = tensor.size().iter().map(|&side| side as usize).collect();
                Ok((name.as_str(), Stored { tensor, shape, dtype: tensor.kind().try_into()? }))
            })
            .collect::<Result<_, tch::TchError>>()?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        serialize_to_file(views, &Some(metadata), &temporary)?;
        File::open(&temporary)?.sync_all()?;
        Ok(files::publish(&temporary, path)?)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("{} was not written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::Init};

    fn store() -> VarStore {
        let store = VarStore::new(Device::Cpu);
        let root = store.root();
        for (path, name, dims, value) in [
            (root.clone(), "pos_embed", [1, 10, 8].as_slice(), 0.0),
            (root.clone(), "cls_token", &[1, 1, 8], 0.0),
            (root.sub("head"), "weight", &[3, 8], 0.0),
            (root.sub("fc_norm"), "weight", &[8], 1.0),
        ] {
            let _ = path.var(name, dims, Init::Const(value));
        }
        store
    }

    fn ones(size: &[i64]) -> Tensor {
        Tensor::ones(size, (Kind::Double, Device::Cpu))
    }

    #[test]
    fn the_report_lists_loaded_resized_missing_and_unexpected_tensors() {
        let store = store();
        let state = [
            ("pos_embed", ones(&[1, 5, 8])),
            ("cls_token", ones(&[1, 1, 8])),
            ("head.weight", ones(&[2, 8])),
            ("decoder_blocks.0.norm1.weight", ones(&[4])),
            ("decoder_blocks.0.norm1.bias", ones(&[4])),
            ("mask_token", ones(&[1, 1, 4])),
        ];
        let report = load_state(&store, state.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        assert_eq!(report.matched, ["cls_token"]);
        assert_eq!(report.resized[0].to, [1, 10, 8]);
        assert_eq!(report.mismatched[0].name, "head.weight");
        assert_eq!(report.missing, ["fc_norm.weight"]);
        assert!(!report.is_complete());
        assert_eq!(
            report.to_string(),
            "loaded 2 tensors\n  resized: pos_embed [1, 5, 8] -> [1, 10, 8]\n  \
             of another shape, not loaded: head.weight [2, 8] -> [3, 8]\n  \
             missing, left at their initialization: 1 (fc_norm.weight)\n  \
             unexpected, unused: 3 (decoder_blocks.* (2), mask_token)"
        );
        let variables = store.variables();
        let sum = |name: &str| variables[name].sum(Kind::Double).double_value(&[]);
        assert_eq!(sum("cls_token"), 8.0);
        assert!((sum("pos_embed") - 80.0).abs() < 1e-4);
        assert_eq!(sum("head.weight"), 0.0);
        assert!(variables["cls_token"].requires_grad());
    }

    #[test]
    fn written_weights_are_read_back_and_name_their_format() {
        let folder = std::env::temp_dir().join(format!("trainer-weights-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("some.safetensors");
        let tensors = vec![
            ("table".to_owned(), Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).transpose(0, 1)),
            ("numbers".to_owned(), Tensor::from_slice(&[1_i64, -2])),
            ("scalar".to_owned(), Tensor::from(2.5_f32)),
            ("empty".to_owned(), Tensor::zeros([0, 3], (Kind::Half, Device::Cpu))),
        ];
        write(&tensors, &path).unwrap();
        let mut read = Tensor::read_safetensors(&path).unwrap();
        read.sort_by_key(|(name, _)| tensors.iter().position(|(other, _)| other == name));
        assert_eq!(read, tensors);
        let bytes = fs::read(&path).unwrap();
        assert!(bytes[8..].starts_with(b"{\"__metadata__\":{\"format\":\"pt\"}"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(write(&tensors, &folder.join("no/folder.safetensors")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_table_of_no_square_grid_does_not_change_the_model() {
        let store = store();
        let state = [("cls_token", ones(&[1, 1, 8])), ("pos_embed", ones(&[1, 7, 8]))];
        assert!(load_state(&store, state.iter().map(|(name, tensor)| (*name, tensor))).is_err());
        assert_eq!(store.variables()["cls_token"].sum(Kind::Double).double_value(&[]), 0.0);
    }
}
