//! The values of a pickle, and what torch's functions make of them.

use std::ops::{Index, IndexMut};
use std::rc::Rc;

use tch::Kind;

/// Largest number of nested calls by which a tensor is rebuilt: `_rebuild_from_type_v2`, `_rebuild_parameter`.
pub(super) const REBUILD_DEPTH: usize = 4;

/// Largest number of dimensions of a tensor, as in torch.
const MAX_DIMENSIONS: usize = 64;

/// Longest name of a storage, in bytes; torch uses numbers.
const MAX_STORAGE_NAME: usize = 64;

/// Index of a value.
pub(in crate::weights::pth) type Id = usize;

/// A tensor as a view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::weights::pth) struct TensorRef {
    /// Name of the storage; its entry in the archive is `data/NAME`.
    pub(in crate::weights::pth) storage: Rc<str>,
    /// Type of an element; torch's name of the type if it is not supported.
    pub(in crate::weights::pth) element: Result<Kind, String>,
    /// Elements of the storage before the first one of the tensor.
    pub(in crate::weights::pth) offset: i64,
    /// Its shape.
    pub(in crate::weights::pth) size: Vec<i64>,
    /// Distance of neighbors in elements, by dimension.
    pub(in crate::weights::pth) stride: Vec<i64>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::weights::pth) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, as `module.name`. It is never looked up.
    Global(Rc<str>),
    /// A storage: its name, and the type of its elements; none for an untyped one.
    Storage(Rc<str>, Option<Result<Kind, String>>),
    Tensor(Box<TensorRef>),
    /// The result of a call that is not made, with the name of the function or class.
    Opaque(Rc<str>),
}

/// The values of a pickle. They refer to each other by index.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<Value>);

impl Index<Id> for Values {
    type Output = Value;

    fn index(&self, id: Id) -> &Value {
        &self.0[id]
    }
}

impl IndexMut<Id> for Values {
    fn index_mut(&mut self, id: Id) -> &mut Value {
        &mut self.0[id]
    }
}

impl Values {
    /// Adds a value and returns its index.
    pub(super) fn add(&mut self, value: Value) -> Id {
        self.0.push(value);
        self.0.len() - 1
    }

    /// The name of a function, class or opaque value, for messages.
    pub(super) fn name(&self, id: Id) -> Rc<str> {
        match &self[id] {
            Value::Global(name) | Value::Opaque(name) => name.clone(),
            _ => "an object".into(),
        }
    }

    /// The items of a tuple.
    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match &self[id] {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn int(&self, id: Id) -> Option<i64> {
        match self[id] {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    /// A tuple of integers: sizes or strides.
    fn ints(&self, id: Id) -> Option<Vec<i64>> {
        self.tuple(id).filter(|items| items.len() <= MAX_DIMENSIONS)?.iter().map(|&id| self.int(id)).collect()
    }

    /// The result of a call: a tensor or a container if the function is one of the few known ones, else an opaque value.
    pub(super) fn call(&self, callable: Id, arguments: Id, depth: usize) -> Value {
        let opaque = || Value::Opaque(self.name(callable));
        let (Value::Global(name), Some(arguments)) = (&self[callable], self.tuple(arguments)) else {
            return opaque();
        };
        let known = match (&**name, arguments) {
            ("collections.OrderedDict", []) | ("collections.defaultdict", _) => Some(Value::Dict(Vec::new())),
            ("collections.OrderedDict", &[items]) => self.items(items),
            ("torch.Size", &[sizes]) => self.tuple(sizes).map(|sizes| Value::Tuple(sizes.to_vec())),
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                &[storage, offset, size, stride, ..],
            ) => self.tensor(storage, offset, size, stride, None),
            ("torch._utils._rebuild_tensor_v3", &[storage, offset, size, stride, _, _, element, ..]) => {
                self.tensor(storage, offset, size, stride, Some(element))
            }
            ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", &[data, ..]) => {
                Some(self[data].clone()).filter(|value| matches!(value, Value::Tensor(_)))
            }
            // A tensor of a subclass, or with attributes: (function, class, its arguments, state).
            ("torch._tensor._rebuild_from_type_v2", &[function, _, inner, ..]) if depth > 0 => {
                Some(self.call(function, inner, depth - 1))
            }
            _ => None,
        };
        known.unwrap_or_else(opaque)
    }

    /// A dict from a list of pairs.
    fn items(&self, list: Id) -> Option<Value> {
        let Value::List(items) = &self[list] else { return None };
        let pair = |&item: &Id| match self[item] {
            Value::Tuple(ref pair) | Value::List(ref pair) => Some((*pair.first()?, *pair.get(1)?)),
            _ => None,
        };
        items.iter().map(pair).collect::<Option<_>>().map(Value::Dict)
    }

    /// A tensor of a storage. `element` is the type if the function has one as an argument.
    fn tensor(&self, storage: Id, offset: Id, size: Id, stride: Id, element: Option<Id>) -> Option<Value> {
        let Value::Storage(name, of_storage) = &self[storage] else { return None };
        let element = match element {
            Some(id) => element_named(self.name(id).strip_prefix("torch.")?),
            None => of_storage.clone()?,
        };
        let (offset, size, stride) = (self.int(offset)?, self.ints(size)?, self.ints(stride)?);
        (size.len() == stride.len())
            .then(|| Value::Tensor(Box::new(TensorRef { storage: name.clone(), element, offset, size, stride })))
    }

    /// The storage of a persistent id: `("storage", class, name, device, elements)`.
    pub(super) fn storage(&self, id: Id) -> Value {
        let unknown = Value::Opaque("persistent id".into());
        let Some(&[kind, class, name, ..]) = self.tuple(id) else { return unknown };
        match (&self[kind], &self[class], &self[name]) {
            (Value::Text(kind), Value::Global(class), Value::Text(name))
                if kind == "storage" && name.len() <= MAX_STORAGE_NAME =>
            {
                Value::Storage(name.as_str().into(), element_of_storage(class))
            }
            _ => unknown,
        }
    }
}

/// Type of the elements of a storage class, `torch.FloatStorage` or `torch.cuda.FloatStorage`; none for the untyped one.
fn element_of_storage(class: &str) -> Option<Result<Kind, String>> {
    let name = class.rsplit('.').next().unwrap_or(class);
    let element = match name {
        "UntypedStorage" => return None,
        "FloatStorage" => "float32",
        "DoubleStorage" => "float64",
        "HalfStorage" => "float16",
        "BFloat16Storage" => "bfloat16",
        "LongStorage" => "int64",
        "IntStorage" => "int32",
        "ShortStorage" => "int16",
        "CharStorage" => "int8",
        "ByteStorage" => "uint8",
        "BoolStorage" => "bool",
        _ => return Some(Err(class.to_owned())),
    };
    Some(element_named(element))
}

/// The kind of a torch dtype, such as `float32`; its name if it is not supported.
fn element_named(name: &str) -> Result<Kind, String> {
    Ok(match name {
        "float32" => Kind::Float,
        "float64" => Kind::Double,
        "float16" => Kind::Half,
        "bfloat16" => Kind::BFloat16,
        "int64" => Kind::Int64,
        "int32" => Kind::Int,
        "int16" => Kind::Int16,
        "int8" => Kind::Int8,
        "uint8" => Kind::Uint8,
        "bool" => Kind::Bool,
        other => return Err(other.to_owned()),
    })
}
