//! Only the documented header values are in the output of `ingest`: a marker is put into every place of a header, and
//! searched for in all bytes of the output.

use std::fs;
use std::path::{Path, PathBuf};

use arrow_array::{Array, ArrayRef, BinaryArray, ListArray, StringArray, StructArray};
use dataset::Dataset;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use helpers::{SMALL, args, contents, folder, phantom};
use ingest::sources;

/// The marker, which must not be in the output.
const MARK: &str = "QZVXJQMARK";

/// The marker as text, as UTF-16 of both orders, in base64 at each of its three alignments, and as hexadecimal digits.
fn disguises() -> Vec<(&'static str, Vec<u8>)> {
    let wide = |order: fn(u16) -> [u8; 2]| MARK.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let mut all = vec![
        ("text", MARK.as_bytes().to_vec()),
        ("lower case", MARK.to_lowercase().into_bytes()),
        ("UTF-16 LE", wide(u16::to_le_bytes)),
        ("UTF-16 BE", wide(u16::to_be_bytes)),
        ("hexadecimal", dataset::store::files::hex(MARK.as_bytes()).into_bytes()),
    ];
    for skip in 0..3 {
        all.push(("base64", base64(&MARK.as_bytes()[skip..])));
    }
    all
}

/// Base64 of the complete groups of three bytes.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = |triple: &[u8]| {
        let value = u32::from(triple[0]) << 16 | u32::from(triple[1]) << 8 | u32::from(triple[2]);
        [18, 12, 6, 0].map(|shift| LETTERS[(value >> shift & 63) as usize])
    };
    bytes.chunks_exact(3).flat_map(letters).collect()
}

fn assert_clean(place: &str, bytes: &[u8]) {
    for (disguise, wanted) in disguises() {
        let found = bytes.windows(wanted.len()).position(|window| window == wanted);
        assert!(found.is_none(), "{place} contains the marker as {disguise}, at byte {}", found.unwrap_or(0));
    }
}

/// Every value of a column, compressed or not, as bytes.
fn values(array: &ArrayRef, into: &mut Vec<u8>) {
    let any = array.as_any();
    if let Some(texts) = any.downcast_ref::<StringArray>() {
        into.extend(texts.iter().flatten().flat_map(str::bytes));
    } else if let Some(blobs) = any.downcast_ref::<BinaryArray>() {
        into.extend(blobs.iter().flatten().flatten());
    } else if let Some(list) = any.downcast_ref::<ListArray>() {
        values(list.values(), into);
    } else if let Some(fields) = any.downcast_ref::<StructArray>() {
        fields.columns().iter().for_each(|column| values(column, into));
    }
}

/// Ingests and searches the output, including the messages. Returns the number of records.
fn ingested_clean(source: &str, raw: &Path, out: &Path) -> usize {
    let mut arguments = args![source, raw, out, "--max-reject-rate", "1"].to_vec();
    arguments.extend(SMALL.iter().map(Into::into));
    let output = helpers::run("ingest", &arguments);
    assert!(output.status.success(), "{}", helpers::text(&output.stderr));
    assert_clean("stdout", &output.stdout);
    assert_clean("stderr", &output.stderr);
    let inspected = helpers::run("dataset", args!["inspect", out]);
    assert_clean("dataset inspect", &[inspected.stdout, inspected.stderr].concat());
    for (name, bytes) in contents(out) {
        assert_clean(&name, &bytes);
        assert_clean("a file name", name.as_bytes());
    }
    let dataset = Dataset::open(out).expect("a dataset");
    for info in &dataset.manifest().shards {
        let shard = dataset::format::shard::Shard::open(&dataset::Storage::folder(out), info).expect("a shard");
        let names: Vec<&str> = shard.schema().fields().iter().map(|field| field.name().as_str()).collect();
        let mut seen = 0;
        for batch in shard.columns(&names).expect("columns") {
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                let mut bytes = Vec::new();
                values(column, &mut bytes);
                assert_clean(field.name(), &bytes);
                seen += bytes.len();
            }
        }
        assert!(seen > 1000, "{seen} bytes searched");
    }
    for batch in dataset::format::table::read_table(&out.join("rejects.parquet")).expect("rejects") {
        let mut bytes = Vec::new();
        batch.columns().iter().for_each(|column| values(column, &mut bytes));
        assert_clean("rejects", &bytes);
    }
    dataset.len()
}

fn dicom_files(raw: &Path) -> Vec<PathBuf> {
    contents(raw).into_keys().filter(|name| name.ends_with(".dcm")).map(|name| raw.join(name)).collect()
}

/// Puts the marker into every attribute of a header except the pixels.
fn mark(path: &Path) -> Vec<u8> {
    let mut object = dicom_object::open_file(path).expect("a DICOM file");
    let texts = |object: &mut InMemDicomObject| {
        for tag in [
            tags::PATIENT_NAME,
            tags::PATIENT_ID,
            tags::OTHER_PATIENT_NAMES,
            tags::PATIENT_BIRTH_NAME,
            tags::PATIENT_ADDRESS,
            tags::PATIENT_COMMENTS,
            tags::IMAGE_COMMENTS,
            tags::STUDY_DESCRIPTION,
            tags::SERIES_DESCRIPTION,
            tags::INSTITUTION_NAME,
            tags::REFERRING_PHYSICIAN_NAME,
            tags::OPERATORS_NAME,
            tags::STATION_NAME,
            tags::ACCESSION_NUMBER,
            tags::STUDY_ID,
            tags::DEVICE_SERIAL_NUMBER,
            tags::PROTOCOL_NAME,
            tags::WINDOW_CENTER_WIDTH_EXPLANATION,
            tags::BODY_PART_EXAMINED,
            tags::MODALITY,
            tags::VIEW_POSITION,
        ] {
            object.put(DataElement::new(tag, VR::LO, PrimitiveValue::from(MARK)));
        }
        object.put(DataElement::new(Tag(0x0009, 0x0010), VR::LO, PrimitiveValue::from(MARK)));
        object.put(DataElement::new(Tag(0x0009, 0x1001), VR::UT, PrimitiveValue::from(MARK)));
        object.put(DataElement::new(Tag(0x0009, 0x1002), VR::OB, PrimitiveValue::from(MARK.as_bytes())));
    };
    texts(&mut object);
    let mut nested = InMemDicomObject::new_empty();
    texts(&mut nested);
    let mut outer = InMemDicomObject::new_empty();
    texts(&mut outer);
    outer.put(DataElement::new(tags::REFERENCED_STUDY_SEQUENCE, VR::SQ, DataSetSequence::from(vec![nested])));
    object.put(DataElement::new(tags::REQUEST_ATTRIBUTES_SEQUENCE, VR::SQ, DataSetSequence::from(vec![outer])));
    // An overlay of one row, whose bits are the marker.
    let number = |element, value: u16| DataElement::new(Tag(0x6000, element), VR::US, PrimitiveValue::from(value));
    for (element, value) in [(0x0010, 1), (0x0011, 80), (0x0100, 1), (0x0102, 0)] {
        object.put(number(element, value));
    }
    object.put(DataElement::new(Tag(0x6000, 0x0022), VR::LO, PrimitiveValue::from(MARK)));
    object.put(DataElement::new(Tag(0x6000, 0x3000), VR::OW, PrimitiveValue::from(MARK.as_bytes())));
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).expect("written");
    bytes[..MARK.len()].copy_from_slice(MARK.as_bytes());
    bytes
}

#[test]
fn no_header_value_leaves_a_dicom_file() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 20);
    let radiographs = dicom_files(&raw);
    for path in &radiographs {
        fs::write(path, mark(path)).expect("written");
    }
    assert!(
        fs::read(&radiographs[0]).expect("a file").windows(MARK.len()).filter(|w| *w == MARK.as_bytes()).count() > 50
    );
    assert_eq!(ingested_clean("mimic-cxr", &raw, &temporary.path().join("whole")), radiographs.len());

    // Damaged files: errors of the parser must not quote the content.
    let found = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what).expect("found");
    for (at, path) in radiographs.iter().enumerate() {
        let mut bytes = fs::read(path).expect("a file");
        let first = found(&bytes[132..], MARK.as_bytes()) + 132;
        match at % 8 {
            // Truncated within a marked text, and behind it.
            0 => bytes.truncate(first + 4),
            1 => bytes.truncate(first + MARK.len() + 3),
            // The marker in place of an element's header, the magic code, the transfer syntax.
            2 => drop(bytes.splice(first..first, MARK.bytes())),
            3 => bytes[128..138].copy_from_slice(MARK.as_bytes()),
            4 => {
                let at = found(&bytes, b"1.2.840.10008.1.2");
                bytes[at..at + MARK.len()].copy_from_slice(MARK.as_bytes());
            }
            // A text in place of a number, a date or a window.
            5 | 6 => {
                let mut object = dicom_object::open_file(path).expect("a DICOM file");
                let tag = if at % 8 == 5 { tags::ROWS } else { tags::BITS_ALLOCATED };
                object.put(DataElement::new(tag, VR::LO, PrimitiveValue::from(MARK)));
                bytes.clear();
                object.write_all(&mut bytes).expect("written");
            }
            _ => {
                let mut object = dicom_object::open_file(path).expect("a DICOM file");
                for tag in [tags::PHOTOMETRIC_INTERPRETATION, tags::WINDOW_WIDTH, tags::VOILUT_FUNCTION] {
                    object.put(DataElement::new(tag, VR::CS, PrimitiveValue::from(MARK)));
                }
                bytes.clear();
                object.write_all(&mut bytes).expect("written");
            }
        }
        fs::write(path, bytes).expect("written");
    }
    let kept = ingested_clean("mimic-cxr", &raw, &temporary.path().join("damaged"));
    assert!(kept < radiographs.len() * 3 / 4, "{kept} of {} damaged files were ingested", radiographs.len());
    assert!(helpers::rejects(&temporary.path().join("damaged")).len() > radiographs.len() / 4);

    // The error of the library, before the command formats it.
    for path in &radiographs {
        let bytes = fs::read(path).expect("a file");
        for error in [ingest::dicom::read(&bytes).err(), ingest::dicom::read_radiograph(&bytes, Vec::new()).err()] {
            assert_clean("an error", error.unwrap_or_default().as_bytes());
        }
    }
    let plan = ingest::run::plan::Source::plan(&sources::MimicCxr::default(), &raw).expect("a plan");
    assert!(plan.records.iter().all(|record| !format!("{record:?}").contains(MARK)));
}

#[test]
fn a_surname_in_view_position_is_left_out_and_counted() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 6);
    let flat = temporary.path().join("flat");
    fs::create_dir(&flat).expect("a folder");
    let radiographs = dicom_files(&raw);
    for (at, path) in radiographs.iter().enumerate() {
        let mut object = dicom_object::open_file(path).expect("a DICOM file");
        // The first file keeps its view; a code of several words is valid too.
        let view = ["PA", "XTABLE LATERAL", MARK, "SMITH AP"][at.min(3)];
        object.put(DataElement::new(tags::VIEW_POSITION, VR::CS, PrimitiveValue::from(view)));
        object.write_to_file(flat.join(format!("{at}.dcm"))).expect("written");
    }
    assert!(radiographs.len() > 3);
    let out = temporary.path().join("set");
    // No table has the views here, so they come from the headers.
    assert_eq!(ingested_clean("folder", &flat, &out), radiographs.len());
    let views = Dataset::open(&out).expect("a dataset").texts("view").expect("a column");
    let known: Vec<&str> = views.iter().flatten().map(String::as_str).collect();
    assert_eq!(known, ["PA", "XTABLE LATERAL"]);
    let output = helpers::run("ingest", args!["folder", &flat, temporary.path().join("more"), "--size", "64"]);
    let printed = helpers::text(&output.stdout);
    let counted = format!("views: {} records without one, since the ViewPosition", radiographs.len() - 2);
    assert!(printed.contains(&counted), "{printed}");
}

#[test]
fn no_comment_leaves_a_png_or_jpeg() {
    let temporary = folder();
    let raw = temporary.path().join("mimic-cxr");
    let images = raw.join("images");
    fs::create_dir_all(&images).expect("a folder");
    let pixels = (0..80 * 64).map(|at| (at * 7 % 251) as u8).collect();
    let gray = dataset::format::image_codec::GrayPixels { width: 80, height: 64, pixels };
    let mut png = gray.clone().encode(dataset::format::record::ImageEncoding::Png).expect("a PNG");
    // Text chunks, right behind the header chunk.
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let body = [kind.as_slice(), data].concat();
        let mut check = flate2::Crc::new();
        check.update(&body);
        [&(data.len() as u32).to_be_bytes()[..], &body, &check.sum().to_be_bytes()].concat()
    };
    let text = format!("Comment\0{MARK}");
    let international = format!("Author\0\0\0\0\0{MARK}");
    let chunks =
        [chunk(b"tEXt", text.as_bytes()), chunk(b"iTXt", international.as_bytes()), chunk(b"eXIf", MARK.as_bytes())];
    png.splice(33..33, chunks.concat());
    png.extend(MARK.bytes());
    fs::write(images.join("a.png"), &png).expect("written");
    fs::write(images.join("cut.png"), &png[..png.len() / 2]).expect("written");
    // A comment and an EXIF segment, right behind the start of the image.
    let mut jpeg = gray.encode(dataset::format::record::ImageEncoding::Jpeg).expect("a JPEG");
    let segment =
        |marker: u8, data: &[u8]| [&[0xff, marker], &(data.len() as u16 + 2).to_be_bytes()[..], data].concat();
    let exif = format!("Exif\0\0MM\0*\0\0\0\x08\0\0{MARK}");
    jpeg.splice(2..2, [segment(0xfe, MARK.as_bytes()), segment(0xe1, exif.as_bytes())].concat());
    jpeg.extend(MARK.bytes());
    fs::write(images.join("b.jpg"), &jpeg).expect("written");
    fs::write(images.join("cut.jpg"), &jpeg[..200]).expect("written");
    let rows = ["a.png", "b.jpg", "cut.png", "cut.jpg"].map(|name| format!("1,0,No Finding,PA,X-ray,{name},images\n"));
    let table = format!("patientid,offset,finding,view,modality,filename,folder\n{}", rows.concat());
    fs::write(raw.join("metadata.csv"), table).expect("written");
    assert_eq!(ingested_clean("covid", &raw, &temporary.path().join("set")), 2);
}
