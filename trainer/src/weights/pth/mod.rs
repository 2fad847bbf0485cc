//! PyTorch checkpoints read without Python: `torch.save` of a state dict, alone or with an optimizer's state and more.
//!
//! A checkpoint is a zip archive with a pickle and the bytes of each storage. The pickle is read without running code
//! (`unpickle`); entries of the state dict that are not supported are left out and listed. Only the storages that the state
//! dict uses are read, one at a time, and every size is compared with the file before memory is allocated for it.
//!
//! | read | not read |
//! | --- | --- |
//! | archives of PyTorch 1.6 and newer, pickle protocols 2 to 5 | the format before 1.6; TorchScript archives |
//! | strided tensors, views, shared storages, Parameters, subclasses | sparse, quantized, nested, meta tensors: left out |
//! | float32, float64, float16, bfloat16, int8 to int64, uint8, bool | complex, float8, other unsigned: left out |
//! | little-endian | big-endian |

mod archive;
mod unpickle;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use tch::{Kind, Tensor};

use archive::Archive;
use unpickle::{Id, Pickle, TensorRef, Value, unpickle};

pub use unpickle::UnpickleError;

/// Keys under which checkpoints have their weights, in order of priority: MAE and the MRM release, timm and Lightning, other
/// usual ones.
const STATE_KEYS: [&str; 4] = ["model", "state_dict", "model_state_dict", "module"];

/// Largest pickle that is read, in bytes. The pickle of a thousand tensors with an optimizer's state has less than one MB.
const MAX_PICKLE: u64 = 1 << 26;

/// Tensors may share a storage or repeat its values; the bytes of all tensors are at most this multiple of the file's size.
const MAX_EXPANSION: u64 = 8;

/// The first bytes of the format before PyTorch 1.6: a pickle of protocol 2 that holds torch's magic number.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The first bytes of a zip archive's first entry.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// An error of reading a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PthError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The checkpoint is damaged, or its format is not supported.
    #[error("{0}")]
    Format(String),
    /// Its pickle is damaged.
    #[error(transparent)]
    Pickle(#[from] UnpickleError),
    /// An error of libtorch.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

impl PthError {
    fn format(problem: impl Into<String>) -> Self {
        Self::Format(problem.into())
    }
}

/// The weights of a checkpoint.
#[derive(Debug, Default)]
pub struct StateDict {
    /// The key of the state dict in the checkpoint; none if the checkpoint is the state dict.
    pub key: Option<String>,
    /// The tensors in their order, contiguous, of the stored kind.
    pub tensors: Vec<(String, Tensor)>,
    /// Entries of the state dict that were left out, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Other keys of the checkpoint: an optimizer's state, arguments, an epoch.
    pub other_keys: Vec<String>,
}

/// Whether a file begins like a checkpoint of PyTorch, of any version.
///
/// # Errors
/// When it cannot be read.
pub fn is_pth(path: &Path) -> Result<bool, PthError> {
    let start = start_of(path)?;
    Ok(start.starts_with(ZIP_MAGIC) || start.starts_with(LEGACY_MAGIC))
}

fn start_of(path: &Path) -> Result<Vec<u8>, PthError> {
    let mut start = Vec::new();
    File::open(path)?.take(LEGACY_MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// Reads the state dict of a checkpoint.
///
/// # Errors
/// When it is damaged, its format is not supported, or it has no state dict.
pub fn read(path: &Path) -> Result<StateDict, PthError> {
    let start = start_of(path)?;
    if start.starts_with(LEGACY_MAGIC) {
        let problem = "in the format of PyTorch before 1.6; save it again with a newer one: \
            torch.save(torch.load(FILE, map_location=\"cpu\"), NEW)";
        return Err(PthError::format(problem));
    }
    if !start.starts_with(ZIP_MAGIC) {
        return Err(PthError::format("not a checkpoint of torch.save: it is not a zip archive"));
    }
    let archive = Archive::open(path)?;
    let root = root_folder(&archive)?;
    if let Some(order) = archive.read(&format!("{root}byteorder"), 16)?
        && order != b"little"
    {
        let order = String::from_utf8_lossy(&order).into_owned();
        return Err(PthError::format(format!("in the byte order `{order}`; save it again on a little-endian machine")));
    }
    let pickle = archive.read(&format!("{root}data.pkl"), MAX_PICKLE)?;
    let pickle = unpickle(&pickle.ok_or_else(|| PthError::format("no data.pkl"))?)?;
    let (mut state, entries) = find_state(&pickle)?;
    let mut tensors = Vec::new();
    for (name, id) in entries {
        match pickle.value(id) {
            Value::Tensor(tensor) => match &tensor.element {
                Ok(kind) => tensors.push((name, tensor.as_ref(), *kind)),
                Err(element) => state.skipped.push((name, format!("elements of type {element}"))),
            },
            other => state.skipped.push((name, describe(other))),
        }
    }
    state.tensors = load(&archive, &root, tensors)?;
    Ok(state)
}

/// The prefix of an archive's entries: a folder with a slash at its end, or empty.
fn root_folder(archive: &Archive) -> Result<String, PthError> {
    let has = |end: &str| archive.names().any(|name| name.ends_with(end));
    if has("constants.pkl") || archive.names().any(|name| name.contains("/code/")) {
        let problem = "a TorchScript archive; take the weights out of it in Python: \
            torch.save(torch.jit.load(FILE, map_location=\"cpu\").state_dict(), NEW)";
        return Err(PthError::format(problem));
    }
    let pickle = archive.names().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let pickle = pickle.ok_or_else(|| PthError::format("not a checkpoint of torch.save: it has no data.pkl"))?;
    Ok(pickle.strip_suffix("data.pkl").unwrap_or_default().to_owned())
}

/// The state dict of a pickle, and its entries by name, in their order.
fn find_state(pickle: &Pickle) -> Result<(StateDict, Vec<(String, Id)>), PthError> {
    let advice = "in Python, torch.save(model.state_dict(), NEW) writes what is needed";
    let Value::Dict(root) = pickle.root() else {
        return Err(PthError::format(format!("not a dict but {}; {advice}", describe(pickle.root()))));
    };
    let root = named(pickle, root);
    let has_tensor =
        |entries: &[(String, Id)]| entries.iter().any(|(_, id)| matches!(pickle.value(*id), Value::Tensor(_)));
    for key in STATE_KEYS {
        let Some((_, id)) = root.iter().find(|(name, _)| name == key) else { continue };
        match pickle.value(*id) {
            Value::Dict(entries) => {
                let entries = named(pickle, entries);
                if has_tensor(&entries) {
                    let other_keys =
                        root.iter().filter(|(name, _)| name != key).map(|(name, _)| name.clone()).collect();
                    return Ok((StateDict { key: Some(key.to_owned()), other_keys, ..StateDict::default() }, entries));
                }
            }
            Value::Opaque(class) if !has_tensor(&root) => {
                return Err(PthError::format(format!("`{key}` is an object of {class}, not a state dict; {advice}")));
            }
            _ => {}
        }
    }
    if has_tensor(&root) {
        return Ok((StateDict::default(), root));
    }
    let mut keys: Vec<&str> = root.iter().map(|(name, _)| name.as_str()).take(8).collect();
    if root.len() > keys.len() {
        keys.push("…");
    }
    Err(PthError::format(format!("no state dict in it; its keys are: {}", keys.join(", "))))
}

/// The entries of a dict with text keys, in their order; a repeated key has its last value.
fn named(pickle: &Pickle, entries: &[(Id, Id)]) -> Vec<(String, Id)> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut named: Vec<(String, Id)> = Vec::new();
    for (key, value) in entries {
        let Value::Text(key) = pickle.value(*key) else { continue };
        if let Some(&place) = places.get(key.as_str()) {
            named[place].1 = *value;
        } else {
            places.insert(key, named.len());
            named.push((key.clone(), *value));
        }
    }
    named
}

/// The type of a value, for a message.
fn describe(value: &Value) -> String {
    match value {
        Value::None => "None".to_owned(),
        Value::Bool(value) => format!("the bool {value}"),
        Value::Int(value) => format!("the number {value}"),
        Value::Float(value) => format!("the number {value}"),
        Value::Text(_) => "a text".to_owned(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::Tuple(_) => "a tuple".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Dict(_) => "a dict".to_owned(),
        Value::Global(name) => format!("the name {name}"),
        Value::Storage(..) => "a storage".to_owned(),
        Value::Tensor(_) => "a tensor".to_owned(),
        Value::Opaque(name) => format!("an object of {name}"),
    }
}

/// Reads the tensors; each storage once.
fn load(
    archive: &Archive,
    root: &str,
    tensors: Vec<(String, &TensorRef, Kind)>,
) -> Result<Vec<(String, Tensor)>, PthError> {
    let limit = archive.length().saturating_mul(MAX_EXPANSION);
    let mut all = 0_u64;
    let mut by_storage: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, (name, tensor, kind)) in tensors.iter().enumerate() {
        let bytes = elements(&tensor.size).and_then(|count| count.checked_mul(kind.elt_size_in_bytes() as u64));
        all = bytes.and_then(|bytes| all.checked_add(bytes)).filter(|&all| all <= limit).ok_or_else(|| {
            PthError::format(format!("`{name}` claims a size of {:?}, more than the file holds", tensor.size))
        })?;
        by_storage.entry(&tensor.storage).or_default().push(index);
    }
    let mut loaded: Vec<Option<Tensor>> = tensors.iter().map(|_| None).collect();
    for (storage, indices) in by_storage {
        let bytes = archive.read(&format!("{root}data/{storage}"), archive.length())?;
        let mut flat: Option<(Kind, Tensor)> = None;
        for index in indices {
            let (name, tensor, kind) = &tensors[index];
            let bytes = bytes.as_deref().ok_or_else(|| {
                PthError::format(format!("`{name}` is in storage {storage}, which the archive does not have"))
            })?;
            let elements = match &flat {
                Some((known, elements)) if known == kind => elements.shallow_clone(),
                _ => flat_tensor(bytes, *kind)?,
            };
            loaded[index] = Some(view(name, &elements, tensor)?);
            flat = Some((*kind, elements));
        }
    }
    Ok(tensors.into_iter().zip(loaded).filter_map(|((name, ..), tensor)| Some((name, tensor?))).collect())
}

/// Number of elements of a shape; none if it is negative or does not fit into 64 bits.
fn elements(size: &[i64]) -> Option<u64> {
    size.iter().try_fold(1_u64, |count, &side| count.checked_mul(u64::try_from(side).ok()?))
}

/// A storage as a tensor of one dimension.
fn flat_tensor(bytes: &[u8], kind: Kind) -> Result<Tensor, PthError> {
    // A bool is one byte, which must be 0 or 1 for torch.
    let stored = if kind == Kind::Bool { Kind::Uint8 } else { kind };
    let count = bytes.len() / kind.elt_size_in_bytes();
    let flat = Tensor::f_from_data_size(bytes, &[count as i64], stored)?;
    Ok(if kind == Kind::Bool { flat.f_ne(0)? } else { flat })
}

/// A contiguous copy of the view of a storage that a tensor is.
fn view(name: &str, storage: &Tensor, tensor: &TensorRef) -> Result<Tensor, PthError> {
    let TensorRef { offset, size, stride, .. } = tensor;
    let empty = size.contains(&0);
    // Strides are checked here, since torch panics on negative ones.
    let reach = size.iter().zip(stride).try_fold(*offset, |reach, (side, stride)| {
        if *stride < 0 { None } else { reach.checked_add((side - 1).max(0).checked_mul(*stride)?) }
    });
    let inside = reach.is_some_and(|last| *offset >= 0 && last < storage.numel() as i64);
    if !empty && !inside {
        return Err(PthError::format(format!(
            "`{name}` reaches outside its storage of {} elements (offset {offset}, size {size:?}, stride {stride:?})",
            storage.numel()
        )));
    }
    if empty {
        return Ok(Tensor::f_zeros(size.as_slice(), (storage.kind(), tch::Device::Cpu))?);
    }
    // Always a copy: with contiguous() a small view could keep its whole storage in memory.
    let mut copy = Tensor::f_empty(size.as_slice(), (storage.kind(), tch::Device::Cpu))?;
    copy.f_copy_(&storage.f_as_strided(size, stride, *offset)?)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(offset: i64, size: &[i64], stride: &[i64]) -> TensorRef {
        let (size, stride) = (size.to_vec(), stride.to_vec());
        TensorRef { storage: "0".into(), element: Ok(Kind::Float), offset, size, stride }
    }

    #[test]
    fn views_are_copied_in_their_order() {
        let storage = Tensor::arange(12, (Kind::Float, tch::Device::Cpu));
        let shown = |offset, size: &[i64], stride: &[i64]| view("x", &storage, &reference(offset, size, stride));
        let transposed = shown(0, &[4, 3], &[1, 4]).unwrap();
        assert_eq!(transposed, storage.view([3, 4]).transpose(0, 1));
        assert!(transposed.is_contiguous());
        assert_eq!(shown(11, &[], &[]).unwrap().double_value(&[]), 11.0);
        assert_eq!(shown(2, &[2, 2], &[0, 3]).unwrap(), Tensor::from_slice2(&[[2.0_f32, 5.0], [2.0, 5.0]]));
        assert_eq!(shown(99, &[0, 7], &[7, 1]).unwrap().size(), [0, 7]);
    }

    #[test]
    fn views_outside_their_storage_are_refused() {
        let storage = Tensor::arange(12, (Kind::Float, tch::Device::Cpu));
        for (offset, size, stride) in [
            (0, 13, 1),
            (12, 1, 1),
            (-1, 2, 1),
            (5, 2, -1),
            (1, 2, 11),
            (i64::MAX, 2, 1),
            (0, i64::MAX, i64::MAX),
            (0, 2, i64::MAX),
        ] {
            let error = view("x", &storage, &reference(offset, &[size], &[stride])).unwrap_err().to_string();
            assert!(error.starts_with("`x` reaches outside its storage of 12 elements"), "{error}");
        }
        assert_eq!(elements(&[2, -1]), None);
        assert_eq!(elements(&[i64::MAX, 4]), None);
        assert_eq!(elements(&[]), Some(1));
    }

    #[test]
    fn bools_are_zero_or_one() {
        let flat = flat_tensor(&[0, 1, 7, 255], Kind::Bool).unwrap();
        assert_eq!(flat, Tensor::from_slice(&[false, true, true, true]));
        assert_eq!(flat_tensor(&[0; 7], Kind::Float).unwrap().size(), [1]);
    }
}
