use super::*;
use tch::Kind;

fn root(pickle: &[u8]) -> Value {
    unpickle(pickle).unwrap().root().clone()
}

#[test]
fn plain_values_are_read() {
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
    assert_eq!(root(b"\x80\x02cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00aK\x01sb."), opaque("argparse.Namespace"));
    assert_eq!(root(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01x\x85R."), opaque("builtins.eval"));
    // The result of calling an opaque value is opaque, too.
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
fn damage_is_an_error_with_its_offset() {
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
fn depth_and_cycles_are_no_problem() {
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
    // A tuple of 1,000 items, copied again and again by calls of four bytes.
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
