//! A reader of pickles that runs nothing.
//!
//! Python's pickle is a program for a stack machine, and two of its instructions call any function there is. This reader
//! knows the instructions that build plain values, and the handful of functions by which torch writes a tensor. Whatever
//! else a pickle would call or construct becomes an opaque value that bears its name.
//!
//! Values lie in one list and refer to each other by number, so neither depth nor cycles cost anything: the memory taken
//! is a small multiple of the pickle's length.
//!
//! Format: `pickletools.py` of CPython (protocols 2 to 5), `torch/serialization.py` and `torch/_utils.py`.

use std::collections::HashMap;
use std::rc::Rc;

use tch::Kind;

/// The newest protocol.
const NEWEST_PROTOCOL: u8 = 5;

/// How often a function that rebuilds a tensor may call another one: `_rebuild_from_type_v2`, `_rebuild_parameter`.
const REBUILD_DEPTH: usize = 4;

/// The most dimensions of a tensor, as in torch.
const MOST_DIMENSIONS: usize = 64;

/// The longest name of a storage, in bytes; torch numbers them.
const LONGEST_STORAGE_NAME: usize = 64;

/// Why a pickle cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pickle is damaged at byte {at}: {problem}")]
pub struct UnpickleError {
    /// Offset of the instruction.
    pub at: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// The number of a value.
pub(super) type Id = usize;

/// Where a tensor's numbers lie.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorRef {
    /// Name of the storage: its entry in the archive is `data/NAME`.
    pub(super) storage: Rc<str>,
    /// What an element is, as torch names it where it is none we know.
    pub(super) element: Result<Kind, String>,
    /// Elements before the first.
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    /// Elements from one to the next, by dimension.
    pub(super) stride: Vec<i64>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// Anything of a module: a class or a function, as `module.name`. It is never looked up.
    Global(Rc<str>),
    /// A storage: its name, and what an element is; none for one that does not say.
    Storage(Rc<str>, Option<Result<Kind, String>>),
    Tensor(Box<TensorRef>),
    /// What a call or a construction would give, by the name of what was called.
    Opaque(Rc<str>),
}

/// The values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// The value that was pickled.
    pub(super) fn root(&self) -> &Value {
        &self.values[self.root]
    }

    /// The value of a number.
    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }
}

/// Reads a pickle.
pub(super) fn unpickle(bytes: &[u8]) -> Result<Pickle, UnpickleError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    let root = loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => break root,
            Err(problem) => return Err(UnpickleError { at, problem }),
        }
    };
    Ok(Pickle { values: machine.values, root })
}

/// The stack machine.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Items that calls have copied from one container to another.
    copied: usize,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// Carries one instruction out; the value of the pickle, when it was the last.
    fn step(&mut self) -> Step<Option<Id>> {
        let [opcode] = self.fixed()?;
        match opcode {
            0x80 => {
                let [protocol] = self.fixed()?;
                if protocol > NEWEST_PROTOCOL {
                    return Err(format!("protocol {protocol} is not known"));
                }
            }
            0x95 => drop(self.fixed::<8>()?), // FRAME: a hint for readers of streams
            b'.' => return self.pop().map(Some),

            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop_or_mark()?,
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }

            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let value = i32::from_le_bytes(self.fixed()?);
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let [value] = self.fixed()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.fixed()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => self.long(|machine| Ok(machine.fixed::<1>()?[0].into()))?,
            0x8b => self.long(Self::length4)?,
            b'G' => {
                let value = f64::from_be_bytes(self.fixed()?);
                self.push(Value::Float(value));
            }

            // Strings of Python 2 (T, U) are texts to us, as with `encoding="utf-8"`.
            b'X' | b'T' => self.text(Self::length4)?,
            0x8c | b'U' => self.text(Self::length1)?,
            0x8d => self.text(Self::length8)?,
            b'B' => self.binary(Self::length4)?,
            b'C' => self.binary(Self::length1)?,
            0x8e | 0x96 => self.binary(Self::length8)?,

            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..opcode {
                    items.insert(0, self.pop()?);
                }
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(pairs(&items)?));
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            0x8f => self.push(Value::Opaque("set".into())),
            0x90 => {
                self.pop_mark()?;
                self.top()?;
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Opaque("frozenset".into()));
            }

            b'q' => {
                let [index] = self.fixed()?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.fixed()?);
                self.remember(index.into())?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let [index] = self.fixed()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.fixed()?);
                self.recall(index.into())?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(format!("{module}.{name}").into()));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name]) else {
                    return Err("a name that is no text".to_owned());
                };
                let global = Value::Global(format!("{module}.{name}").into());
                self.push(global);
            }
            b'R' | 0x81 => {
                // A call, and the construction of an object, both of a callable and its arguments.
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let value = self.call(callable, arguments, REBUILD_DEPTH);
                // The one way to take more memory than a multiple of the pickle's length.
                self.copied += match &value {
                    Value::Dict(items) => items.len(),
                    Value::Tuple(items) => items.len(),
                    _ => 0,
                };
                if self.copied > self.bytes.len() {
                    return Err("it copies its own values again and again".to_owned());
                }
                self.push(value);
            }
            0x92 => {
                let (_keywords, _arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                let value = Value::Opaque(self.name(class));
                self.push(value);
            }
            b'b' => {
                // The state of an object, such as the versions that an OrderedDict of weights bears.
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id);
                self.push(storage);
            }
            other => return Err(format!("instruction {other:#04x} is none that torch writes")),
        }
        Ok(None)
    }

    // Bytes.

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or("it ends in mid-instruction")?;
        self.at += count;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Step<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    fn length1(&mut self) -> Step<usize> {
        Ok(self.fixed::<1>()?[0].into())
    }

    fn length4(&mut self) -> Step<usize> {
        Ok(u32::from_le_bytes(self.fixed()?) as usize)
    }

    fn length8(&mut self) -> Step<usize> {
        usize::try_from(u64::from_le_bytes(self.fixed()?)).map_err(|_| "a length past all memory".to_owned())
    }

    /// The rest of a line, without its end.
    fn line(&mut self) -> Step<String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("a line without an end")?;
        let line = self.take(end + 1)?;
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    fn text(&mut self, length: impl Fn(&mut Self) -> Step<usize>) -> Step<()> {
        let count = length(self)?;
        let text = String::from_utf8_lossy(self.take(count)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn binary(&mut self, length: impl Fn(&mut Self) -> Step<usize>) -> Step<()> {
        let count = length(self)?;
        let bytes = self.take(count)?.to_vec();
        self.push(Value::Bytes(bytes));
        Ok(())
    }

    /// An integer of any length, two's complement, little-endian. One past 64 bits is opaque.
    fn long(&mut self, length: impl Fn(&mut Self) -> Step<usize>) -> Step<()> {
        let count = length(self)?;
        let bytes = self.take(count)?;
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xFF } else { 0 };
        let value = if count <= 8 {
            Value::Int(i64::from_le_bytes(std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(sign))))
        } else {
            Value::Opaque("integer of more than 64 bits".into())
        };
        self.push(value);
        Ok(())
    }

    // The stack and the memo.

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// The height below which nothing may be taken before the mark is.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Id> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_or_mark(&mut self) -> Step<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    /// All that was pushed since the last mark.
    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, index: u64) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Step<()> {
        let id = *self.memo.get(&index).ok_or_else(|| format!("nothing is remembered as {index}"))?;
        self.stack.push(id);
        Ok(())
    }

    // Values.

    /// Adds to the list on top; what is opaque stays so.
    fn append(&mut self, items: &[Id]) -> Step<()> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend(items),
            Value::Opaque(_) => {}
            _ => return Err("an item for what is no list".to_owned()),
        }
        Ok(())
    }

    /// Adds to the dict on top; what is opaque stays so.
    fn set(&mut self, items: &[Id]) -> Step<()> {
        let (dict, items) = (self.top()?, pairs(items)?);
        match &mut self.values[dict] {
            Value::Dict(dict) => dict.extend(items),
            Value::Opaque(_) => {}
            _ => return Err("a key for what is no dict".to_owned()),
        }
        Ok(())
    }

    /// What a value is called in a message.
    fn name(&self, id: Id) -> Rc<str> {
        match &self.values[id] {
            Value::Global(name) | Value::Opaque(name) => name.clone(),
            _ => "an object".into(),
        }
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match &self.values[id] {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn int(&self, id: Id) -> Option<i64> {
        match self.values[id] {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    /// Sizes or strides.
    fn ints(&self, id: Id) -> Option<Vec<i64>> {
        self.tuple(id).filter(|items| items.len() <= MOST_DIMENSIONS)?.iter().map(|&id| self.int(id)).collect()
    }

    /// What a call gives: a tensor or a container where the function is one of the few known; else an opaque value.
    fn call(&self, callable: Id, arguments: Id, depth: usize) -> Value {
        let opaque = || Value::Opaque(self.name(callable));
        let (Value::Global(name), Some(arguments)) = (&self.values[callable], self.tuple(arguments)) else {
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
                Some(self.values[data].clone()).filter(|value| matches!(value, Value::Tensor(_)))
            }
            // A tensor of a class of its own, or with attributes: (function, class, its arguments, state).
            ("torch._tensor._rebuild_from_type_v2", &[function, _, inner, ..]) if depth > 0 => {
                Some(self.call(function, inner, depth - 1))
            }
            _ => None,
        };
        known.unwrap_or_else(opaque)
    }

    /// The dict of a list of pairs.
    fn items(&self, list: Id) -> Option<Value> {
        let Value::List(items) = &self.values[list] else { return None };
        let pair = |&item: &Id| match self.values[item] {
            Value::Tuple(ref pair) | Value::List(ref pair) => Some((*pair.first()?, *pair.get(1)?)),
            _ => None,
        };
        items.iter().map(pair).collect::<Option<_>>().map(Value::Dict)
    }

    fn tensor(&self, storage: Id, offset: Id, size: Id, stride: Id, element: Option<Id>) -> Option<Value> {
        let Value::Storage(name, of_storage) = &self.values[storage] else { return None };
        let element = match element {
            Some(id) => element_named(self.name(id).strip_prefix("torch.")?),
            None => of_storage.clone()?,
        };
        let (offset, size, stride) = (self.int(offset)?, self.ints(size)?, self.ints(stride)?);
        (size.len() == stride.len())
            .then(|| Value::Tensor(Box::new(TensorRef { storage: name.clone(), element, offset, size, stride })))
    }

    /// The storage of a persistent id: `("storage", class, name, device, elements)`.
    fn storage(&self, id: Id) -> Value {
        let unknown = Value::Opaque("persistent id".into());
        let Some(&[kind, class, name, ..]) = self.tuple(id) else { return unknown };
        match (&self.values[kind], &self.values[class], &self.values[name]) {
            (Value::Text(kind), Value::Global(class), Value::Text(name))
                if kind == "storage" && name.len() <= LONGEST_STORAGE_NAME =>
            {
                Value::Storage(name.as_str().into(), element_of_storage(class))
            }
            _ => unknown,
        }
    }
}

/// Keys and values in turn as pairs.
fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("a key without a value".to_owned())
    }
}

/// The element of a storage class, `torch.FloatStorage` or `torch.cuda.FloatStorage`; none for the untyped one.
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

/// The kind of a torch dtype, `float32`; its name where there is none here.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn root(pickle: &[u8]) -> Value {
        unpickle(pickle).unwrap().root().clone()
    }

    #[test]
    fn plain_values_come_out_as_they_are() {
        assert_eq!(root(b"\x80\x02N."), Value::None);
        assert_eq!(root(b"\x80\x02J\xff\xff\xff\xff."), Value::Int(-1));
        assert_eq!(root(b"\x80\x02\x8a\x02\x00\x80."), Value::Int(-32768));
        assert_eq!(root(b"\x80\x02\x8a\x00."), Value::Int(0));
        assert_eq!(root(b"\x80\x02G\x3f\xf8\x00\x00\x00\x00\x00\x00."), Value::Float(1.5));
        assert_eq!(root(b"\x80\x04\x8c\x02ab."), Value::Text("ab".to_owned()));
        assert_eq!(root(b"\x80\x03C\x01\xff."), Value::Bytes(vec![255]));
        // {"a": [True, (1, 2)]}, with a memo.
        let pickle = unpickle(b"\x80\x02}q\x00X\x01\x00\x00\x00a]q\x01(\x88K\x01K\x02\x86es.").unwrap();
        let Value::Dict(entries) = pickle.root() else { panic!("no dict") };
        let [(key, list)] = entries.as_slice() else { panic!("not one entry") };
        assert_eq!(pickle.value(*key), &Value::Text("a".to_owned()));
        let Value::List(items) = pickle.value(*list) else { panic!("no list") };
        assert_eq!(pickle.value(items[0]), &Value::Bool(true));
        assert!(matches!(pickle.value(items[1]), Value::Tuple(items) if items.len() == 2));
    }

    #[test]
    fn calls_become_opaque_values() {
        let opaque = |name: &str| Value::Opaque(name.into());
        assert_eq!(root(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R."), opaque("posix.system"));
        assert_eq!(
            root(b"\x80\x02cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00aK\x01sb."),
            opaque("argparse.Namespace")
        );
        assert_eq!(root(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01x\x85R."), opaque("builtins.eval"));
        // What an opaque value gives when it is called stays opaque.
        assert_eq!(root(b"\x80\x02ca\nb\n)R)R."), opaque("a.b"));
    }

    #[test]
    fn a_tensor_is_a_reference() {
        let pickle = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nHalfStorage\n\
            X\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x06tQK\x02K\x02K\x01\x86K\x01K\x02\x86\x89ccollections\nOrderedDict\n)RtR.";
        let Value::Tensor(tensor) = root(pickle) else { panic!("no tensor") };
        let expected =
            TensorRef { storage: "7".into(), element: Ok(Kind::Half), offset: 2, size: vec![2, 1], stride: vec![1, 2] };
        assert_eq!(*tensor, expected);
    }

    #[test]
    fn damage_is_an_error_with_its_place() {
        for pickle in [
            b"".as_slice(),
            b"\x80",
            b"\x80\x09.",
            b"\x80\x02.",
            b"\x80\x02(.",
            b"\x80\x02t.",
            b"\x80\x02h\x05.",
            b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"\x80\x02X\xff\xff\xff\x7f.",
            b"\x80\x02(K\x01d.",
            b"\x80\x02K\x01K\x02a.",
            b"\x80\x02K\x01K\x02\x93.",
            b"cos\nsystem",
            b"I1\n.",
        ] {
            assert!(unpickle(pickle).is_err(), "{pickle:?}");
        }
        assert_eq!(unpickle(b"\x80\x02K\x01K\x02a.").unwrap_err().at, 6);
    }

    #[test]
    fn depth_and_cycles_cost_nothing() {
        let mut deep = b"\x80\x02N".to_vec();
        deep.extend(std::iter::repeat_n(0x85, 1_000_000)); // a tuple in a tuple in a tuple …
        deep.push(b'.');
        assert!(matches!(root(&deep), Value::Tuple(_)));
        let mut deep = b"\x80\x02".to_vec();
        deep.extend(std::iter::repeat_n(b'(', 1_000_000));
        assert!(unpickle(&deep).is_err());
        assert!(matches!(root(b"\x80\x02]q\x00h\x00a."), Value::List(_)));
    }

    #[test]
    fn memory_stays_a_multiple_of_the_length() {
        // A tuple of 1,000 items, copied by a call of four bytes as often as one likes.
        let mut pickle = b"\x80\x02ctorch\nSize\nq\x00(".to_vec();
        pickle.extend(std::iter::repeat_n(b'N', 1_000));
        pickle.extend(b"t\x85q\x01");
        pickle.extend(b"h\x00h\x01R".repeat(100_000));
        pickle.push(b'.');
        assert!(unpickle(&pickle).unwrap_err().problem.contains("again and again"));
    }

    #[test]
    fn any_change_of_one_byte_is_read_or_refused() {
        let pickle = b"\x80\x02}q\x00(X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\nq\x01((X\x07\x00\x00\x00storage\
            ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00K\x02\x85K\x01\x85\x89ccollections\n\
            OrderedDict\n)RtRX\x01\x00\x00\x00bh\x01N\x86R\x8a\x01\x05G\x3f\xf0\x00\x00\x00\x00\x00\x00u.";
        for at in 0..pickle.len() {
            for value in 0..=255 {
                let mut changed = pickle.to_vec();
                changed[at] = value;
                let _ = unpickle(&changed);
            }
            let _ = unpickle(&pickle[..at]);
        }
    }
}
