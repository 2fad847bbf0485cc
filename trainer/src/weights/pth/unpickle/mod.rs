//! A reader of pickles that runs no code.
//!
//! A pickle is a program for a stack machine with instructions that call arbitrary functions. This reader executes the
//! instructions that build plain values, and knows the few functions by which torch rebuilds a tensor ([`value`]). The result
//! of any other call is an opaque value with the name of the function.
//!
//! Values are kept in one list and refer to each other by index, so depth and cycles need no recursion: the memory is a small
//! multiple of the pickle's length.
//!
//! Format: `pickletools.py` of CPython (protocols 2 to 5), `torch/serialization.py` and `torch/_utils.py`.

mod value;

use std::collections::HashMap;

use value::{REBUILD_DEPTH, Values};

pub(super) use value::{Id, TensorRef, Value};

/// The newest protocol.
const NEWEST_PROTOCOL: u8 = 5;

/// A damaged pickle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pickle is damaged at byte {at}: {problem}")]
pub struct UnpickleError {
    /// Offset of the instruction in bytes.
    pub at: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Values,
    root: Id,
}

impl Pickle {
    /// The value that was pickled.
    pub(super) fn root(&self) -> &Value {
        &self.values[self.root]
    }

    /// The value with an index.
    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }
}

/// Reads a pickle.
pub(super) fn unpickle(bytes: &[u8]) -> Result<Pickle, UnpickleError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        values: Values::default(),
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
    values: Values,
    stack: Vec<Id>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Number of items that calls have copied from one container to another.
    copied: usize,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// Executes one instruction; returns the value of the pickle if it was the last one.
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

            // Strings of Python 2 (T, U) are read as texts, as with `encoding="utf-8"`.
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
                self.store(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.fixed()?);
                self.store(index.into())?;
            }
            0x94 => self.store(self.memo.len() as u64)?,
            b'h' => {
                let [index] = self.fixed()?;
                self.load(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.fixed()?);
                self.load(index.into())?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(format!("{module}.{name}").into()));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name]) else {
                    return Err("a name that is not a text".to_owned());
                };
                let global = Value::Global(format!("{module}.{name}").into());
                self.push(global);
            }
            b'R' | 0x81 => {
                // A call, or the construction of an object: a callable and its arguments.
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let value = self.values.call(callable, arguments, REBUILD_DEPTH);
                // Only copies by calls could take more memory than a multiple of the pickle's length.
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
                let value = Value::Opaque(self.values.name(class));
                self.push(value);
            }
            b'b' => {
                // The state of an object, such as the versions of an OrderedDict of weights, is not used.
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.values.storage(id);
                self.push(storage);
            }
            other => return Err(format!("torch does not write instruction {other:#04x}")),
        }
        Ok(None)
    }

    // Bytes.

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or("it ends within an instruction")?;
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
        usize::try_from(u64::from_le_bytes(self.fixed()?)).map_err(|_| "a length that no memory has".to_owned())
    }

    /// Reads up to the end of the line, which is left out.
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

    /// Reads an integer of any length, two's complement, little-endian; one of more than 64 bits becomes opaque.
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
        let id = self.values.add(value);
        self.stack.push(id);
    }

    /// The height of the stack at the last mark; items below it cannot be popped before the mark.
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

    /// Pops the items since the last mark.
    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn store(&mut self, index: u64) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn load(&mut self, index: u64) -> Step<()> {
        let id = *self.memo.get(&index).ok_or_else(|| format!("there is no memo entry {index}"))?;
        self.stack.push(id);
        Ok(())
    }

    // Values.

    /// Appends to the list on top of the stack; an opaque value does not change.
    fn append(&mut self, items: &[Id]) -> Step<()> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend(items),
            Value::Opaque(_) => {}
            _ => return Err("an item for a value that is not a list".to_owned()),
        }
        Ok(())
    }

    /// Adds to the dict on top of the stack; an opaque value does not change.
    fn set(&mut self, items: &[Id]) -> Step<()> {
        let (dict, items) = (self.top()?, pairs(items)?);
        match &mut self.values[dict] {
            Value::Dict(dict) => dict.extend(items),
            Value::Opaque(_) => {}
            _ => return Err("a key for a value that is not a dict".to_owned()),
        }
        Ok(())
    }
}

/// Alternating keys and values as pairs.
fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("a key without a value".to_owned())
    }
}

#[cfg(test)]
mod tests;
