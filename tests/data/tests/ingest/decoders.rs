//! All decoders agree: one gradient in every transfer syntax, depth, sign and photometric interpretation.

use std::fs;

use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject, from_reader};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use helpers::{files_with, tests_folder};
use ingest::image::intensity::Intensity;
use ingest::image::pipeline::{self, Scratch};
use ingest::image::resize::Resize;
use std::io::Write;

/// Explicit VR big endian, which is retired and still found.
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

const WIDTH: i64 = 33;
const HEIGHT: i64 = 20;

/// The stored values of the files in `tests/corpus/decoders`, as its `make.py` says.
fn gradient(bits: u32, signed: bool) -> Vec<i64> {
    let value = |x: i64, y: i64| {
        let pattern = (x * ((1 << bits) - 1) / (WIDTH - 1) + 3 * y) % (1 << bits);
        pattern - if signed { 1 << (bits - 1) } else { 0 }
    };
    (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| value(x, y))).collect()
}

/// A file in another uncompressed transfer syntax.
fn rewritten(bytes: &[u8], syntax: &str) -> Vec<u8> {
    let object: InMemDicomObject = from_reader(bytes).expect("a DICOM file").into_inner();
    let meta = |syntax: &str| {
        FileMetaTableBuilder::new()
            .transfer_syntax(syntax)
            .media_storage_sop_class_uid(uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION)
            .media_storage_sop_instance_uid("2.25.1")
            .build()
            .expect("a meta table")
    };
    let mut written = Vec::new();
    if syntax != uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN {
        object.with_exact_meta(meta(syntax)).write_all(&mut written).expect("written");
        return written;
    }
    // The data set of an explicit file, deflated behind the meta table.
    object.clone().with_exact_meta(meta(uids::EXPLICIT_VR_LITTLE_ENDIAN)).write_all(&mut written).expect("written");
    let length = |bytes: &[u8]| 144 + u32::from_le_bytes(bytes[140..144].try_into().expect("a length")) as usize;
    let data_set = written[length(&written)..].to_vec();
    let mut whole = Vec::new();
    let empty = InMemDicomObject::new_empty().with_exact_meta(meta(syntax));
    whole.extend([0; 128]);
    whole.extend(b"DICM");
    empty.write_meta(&mut whole).expect("written");
    let mut deflated = DeflateEncoder::new(&mut whole, Compression::default());
    deflated.write_all(&data_set).expect("deflated");
    deflated.finish().expect("deflated");
    whole
}

#[test]
fn every_transfer_syntax_gives_the_same_bytes() {
    let folder = tests_folder().join("corpus/decoders");
    let mut checked = 0;
    for bits in [8, 10, 12, 14, 16] {
        for sign in ["u", "s"] {
            let stem = format!("{bits}-{sign}");
            let read = |name: &str| fs::read(folder.join(name)).expect("a file");
            let plain = read(&format!("{stem}-plain.dcm"));
            let mut files: Vec<(String, Vec<u8>)> = files_with(&folder, ".dcm")
                .into_iter()
                .filter(|name| name.starts_with(&format!("{stem}-")))
                .map(|name| (name.clone(), read(&name)))
                .collect();
            assert_eq!(files.len(), 6);
            for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, BIG_ENDIAN, uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN] {
                files.push((format!("{stem} {syntax}"), rewritten(&plain, syntax)));
            }
            for photometric in ["MONOCHROME2", "MONOCHROME1"] {
                let mut first: Option<(Vec<u8>, Vec<u8>)> = None;
                for (name, bytes) in &files {
                    // Both names have the same length, so a compressed file needs no other change.
                    let bytes = match bytes.windows(11).position(|word| word == b"MONOCHROME2") {
                        Some(at) => [&bytes[..at], photometric.as_bytes(), &bytes[at + 11..]].concat(),
                        None if photometric == "MONOCHROME2" => bytes.clone(),
                        // The word is deflated.
                        None => {
                            let at = plain.windows(11).position(|word| word == b"MONOCHROME2").expect("the word");
                            let inverted = [&plain[..at], photometric.as_bytes(), &plain[at + 11..]].concat();
                            rewritten(&inverted, uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
                        }
                    };
                    let dicom = ingest::dicom::read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert_eq!(dicom.inverted, photometric == "MONOCHROME1", "{name}");
                    assert_eq!(dicom.pixels.stored().expect("gray values"), gradient(bits, sign == "s"), "{name}");
                    let stored = |size| {
                        let mut scratch = Scratch::default();
                        let stored = pipeline::store(&bytes, Intensity::Voi, size, Resize::Shorter, &mut scratch);
                        stored.expect("an image").image.pixels
                    };
                    let found = (stored(20), stored(9));
                    assert_eq!(&found, first.get_or_insert_with(|| found.clone()), "{name}, {photometric}");
                    checked += 1;
                }
                // The whole range is shown, dark to bright or the other way round.
                let (whole, _) = first.expect("files");
                let (dark, bright) = if photometric == "MONOCHROME2" { (0, 32) } else { (32, 0) };
                assert_eq!((whole[dark], whole[bright]), (0, 255), "{stem} {photometric}");
            }
        }
    }
    assert_eq!(checked, 5 * 2 * 9 * 2);
    // The files are in the syntaxes that their names say.
    let syntax = |name: &str| {
        let object = dicom_object::open_file(folder.join(name)).expect("a DICOM file");
        assert!(object.element(tags::PIXEL_DATA).is_ok());
        object.meta().transfer_syntax().trim_end_matches('\0').to_owned()
    };
    for (name, uid) in [
        ("plain", uids::EXPLICIT_VR_LITTLE_ENDIAN),
        ("rle", uids::RLE_LOSSLESS),
        ("jpeg-lossless", uids::JPEG_LOSSLESS),
        ("jpeg-lossless-sv1", uids::JPEG_LOSSLESS_SV1),
        ("jpeg-ls", uids::JPEGLS_LOSSLESS),
        ("jpeg-2000", uids::JPEG2000_LOSSLESS),
    ] {
        for depth in ["8-s", "12-u", "16-s"] {
            assert_eq!(syntax(&format!("{depth}-{name}.dcm")), uid);
        }
    }
}
