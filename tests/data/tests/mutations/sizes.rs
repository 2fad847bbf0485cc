//! Files that claim to be larger than they are.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use dataset::format::image_codec::GrayPixels;
use dataset::format::manifest::Manifest;
use dataset::format::record::{ImageEncoding, NamedMask, Record};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use helpers::{contents, folder, phantom, real_data};
use ingest::sources::shared::table;

use crate::cases::{ALONE, measured, watch_panics};
use crate::files::decode;

/// A small file that claims a large size must be refused before memory is allocated.
fn refused(name: &str, bytes: &[u8], words: &str, limit: usize) {
    let mut printed = None;
    let raster = bytes.starts_with(&[0xff, 0xd8]) || bytes.starts_with(b"\x89PNG");
    let peak = measured(|| printed = if raster { decode(bytes).err() } else { ingest::dicom::read(bytes).err() });
    let printed = printed.unwrap_or_else(|| panic!("{name} is believed"));
    assert!(printed.contains(words), "{name}: {printed}");
    assert!(peak <= limit, "{name}: {} MiB", peak >> 20);
}

/// Writes bytes `offset` behind the first place of `mark`.
#[track_caller]
fn patch(bytes: &mut [u8], mark: &[u8], offset: usize, patch: &[u8]) {
    let at = bytes.windows(mark.len()).position(|window| window == mark).expect("the mark") + offset;
    bytes[at..at + patch.len()].copy_from_slice(patch);
}

#[test]
fn sizes_in_headers_are_checked_before_memory_is_allocated() {
    const SMALL: usize = 32 << 20;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    watch_panics();
    let temporary = folder();
    let radiographs = contents(&phantom(temporary.path(), 1));
    let is_explicit = |bytes: &[u8]| bytes.windows(20).any(|window| window == b"1.2.840.10008.1.2.1\0");
    let (name, radiograph) = radiographs
        .iter()
        .find(|(name, bytes)| name.ends_with(".dcm") && is_explicit(bytes))
        .expect("an explicit radiograph");
    let path = temporary.path().join("mimic-cxr").join(name);
    let write = |object: &dicom_object::DefaultDicomObject| {
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).expect("written");
        bytes
    };
    let huge = |path: &Path| {
        let mut object = dicom_object::open_file(path).expect("a DICOM file");
        for tag in [tags::ROWS, tags::COLUMNS] {
            object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(60_000u16)));
        }
        write(&object)
    };
    refused("native", &huge(&path), "60000×60000 pixels: more than a radiograph has", SMALL);

    // A length field, in the data set and in the meta group.
    let mut long = radiograph.clone();
    patch(&mut long, &[0x28, 0x00, 0x10, 0x00], 0, &[0x28, 0x00, 0x10, 0x00, b'U', b'N', 0, 0, 0xf0, 0xff, 0xff, 0x7f]);
    refused("long value", &long, "claims more bytes than the file holds", SMALL);
    let mut long = radiograph.clone();
    patch(&mut long, &[0x02, 0x00, 0x01, 0x00, b'O', b'B'], 8, &[0xf0, 0xff, 0xff, 0x7f]);
    refused("long value in the meta group", &long, "claims more bytes than the file holds", SMALL);

    // Sequences within sequences, each of undefined length.
    let group = u32::from_le_bytes([radiograph[140], radiograph[141], radiograph[142], radiograph[143]]) as usize;
    let mut deep = radiograph[..144 + group].to_vec();
    for _ in 0..200_000 {
        deep.extend([0x08, 0x00, 0x40, 0x11, b'S', b'Q', 0, 0, 0xff, 0xff, 0xff, 0xff]);
        deep.extend([0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff]);
    }
    refused("nested sequences", &deep, "levels of sequences", SMALL);

    // A deflated data set that inflates to 260 MiB.
    let mut deflated = radiograph[..144 + group].to_vec();
    let at = deflated.windows(20).position(|w| w == b"1.2.840.10008.1.2.1\0").expect("a syntax");
    deflated.splice(at - 2..at + 20, [22u8, 0].into_iter().chain(*b"1.2.840.10008.1.2.1.99"));
    deflated[140..144].copy_from_slice(&(group as u32 + 2).to_le_bytes());
    let mut encoder = flate2::write::DeflateEncoder::new(deflated, flate2::Compression::fast());
    encoder.write_all(&[0x09, 0x00, 0x10, 0x10, b'O', b'B', 0, 0, 0, 0, 0, 0x20]).expect("deflated");
    for _ in 0..260 {
        encoder.write_all(&vec![0; 1 << 20]).expect("deflated");
    }
    let bomb = encoder.finish().expect("deflated");
    refused("deflated", &bomb, "the deflated data set is larger than 256 MiB", 1 << 30);

    // Rasters.
    let gray = GrayPixels { width: 40, height: 30, pixels: vec![7; 1200] };
    let mut png = gray.clone().encode(ImageEncoding::Png).expect("a PNG");
    let side = 60_000u32.to_be_bytes();
    png[16..20].copy_from_slice(&side);
    png[20..24].copy_from_slice(&side);
    let mut check = flate2::Crc::new();
    check.update(&png[12..29]);
    png[29..33].copy_from_slice(&check.sum().to_be_bytes());
    refused("PNG", &png, "60000×60000 pixels: more than a radiograph has", SMALL);
    let side = 60_000u16.to_be_bytes();
    let mut jpeg = gray.encode(ImageEncoding::Jpeg).expect("a JPEG");
    patch(&mut jpeg, &[0xff, 0xc0], 5, &[side, side].concat());
    refused("JPEG", &jpeg, "60000×60000 pixels: more than a radiograph has", SMALL);

    // Compressed pixels with another size than the header states.
    let Some(data) = real_data() else { return };
    let real = |name: &str| data.join("dicom").join(name);
    refused("RLE", &huge(&real("MR_small_RLE.dcm")), "60000×60000 pixels: more than a radiograph has", SMALL);
    for (name, mark, offset, claim) in [
        ("SC_rgb_small_odd_jpeg.dcm", &[0xff, 0xc0][..], 5, [side, side].concat()),
        ("JPGLosslessP14SV1_1s_1f_8b.dcm", &[0xff, 0xc3], 5, [side, side].concat()),
        ("NM1_JPLY.dcm", &[0xff, 0xc1], 5, [side, side].concat()),
        ("JPEG2000.dcm", &[0xff, 0x4f, 0xff, 0x51], 8, [60_000u32.to_be_bytes(); 2].concat()),
        ("HTJ2K_08_RGB.dcm", &[0xff, 0x4f, 0xff, 0x51], 8, [60_000u32.to_be_bytes(); 2].concat()),
    ] {
        let mut bytes = fs::read(real(name)).expect("a file");
        patch(&mut bytes, mark, offset, &claim);
        refused(name, &bytes, "the compressed pixels are 60000×60000", SMALL);
    }
    // An RLE header that counts four billion segments.
    let mut segments = fs::read(real("MR_small_RLE.dcm")).expect("a file");
    let count = [&2u32.to_le_bytes()[..], &64u32.to_le_bytes()].concat();
    patch(&mut segments, &count, 0, &[0xff, 0xff, 0xff, 0xff]);
    refused("segments", &segments, "4294967295 segments", SMALL);
    let mut tiles = fs::read(real("JPEG2000.dcm")).expect("a file");
    patch(&mut tiles, &[0xff, 0x4f, 0xff, 0x51], 24, &[1u32.to_be_bytes(); 2].concat());
    refused("tiles", &tiles, "tiles: more than a radiograph may have", SMALL);
}

#[test]
fn a_table_that_unpacks_to_too_many_bytes_is_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let temporary = folder();
    let path = temporary.path().join("metadata.csv.gz");
    let gzip = |line: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"Path,Sex\n").expect("gzip");
        let block = line.repeat((1 << 20) / line.len());
        for _ in 0..32 {
            encoder.write_all(&block).expect("gzip");
        }
        encoder.finish().expect("gzip")
    };
    for (line, words) in
        [(&b"a,\n"[..], "larger than a table may be"), (b"a\n", "rows differ"), (b"x", "a row is longer than 8 MiB")]
    {
        fs::write(&path, gzip(line)).expect("written");
        let mut printed = String::new();
        let peak = measured(|| {
            printed = table::Table::read(temporary.path(), &path, &["Path"]).err().expect("refused").to_string();
        });
        assert!(printed.contains(words), "{printed}");
        assert!(peak < 2 << 30, "{} MiB", peak >> 20);
    }
}

/// Images, masks and pages of a dataset that claim to be larger than its columns say: `verify`, a record and a loader refuse them
/// with shard and row, before memory is allocated for them.
#[test]
fn sizes_in_shards_are_checked_before_memory_is_allocated() {
    const SMALL: usize = 96 << 20;
    const SIDE: u32 = 16_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    watch_panics();
    let temporary = folder();
    let gray = || GrayPixels { width: 10, height: 14, pixels: vec![7; 140] };
    // A PNG with another size in its header.
    let enlarged = |mut png: Vec<u8>| {
        png[16..20].copy_from_slice(&SIDE.to_be_bytes());
        png[20..24].copy_from_slice(&SIDE.to_be_bytes());
        let mut check = flate2::Crc::new();
        check.update(&png[12..29]);
        png[29..33].copy_from_slice(&check.sum().to_be_bytes());
        png
    };
    let mut jpeg = gray().encode(ImageEncoding::Jpeg).expect("a JPEG");
    patch(&mut jpeg, &[0xff, 0xc0], 5, &[(SIDE as u16).to_be_bytes(); 2].concat());
    let mut mask = Vec::new();
    let mut encoder = png::Encoder::new(&mut mask, 10, 14);
    encoder.set_depth(png::BitDepth::One);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&[0; 28])).expect("a PNG");
    let mask = vec![NamedMask { name: "mask".to_owned(), png: enlarged(mask) }];
    let png = enlarged(gray().encode(ImageEncoding::Png).expect("a PNG"));
    let claimed = "image of 16000×16000, its columns say 14×10";
    let cases: [(&str, ImageEncoding, &str, Record); 5] = [
        ("png", ImageEncoding::Png, claimed, Record { image: png, ..Record::default() }),
        ("jpeg", ImageEncoding::Jpeg, claimed, Record { image: jpeg, ..Record::default() }),
        (
            "mask",
            ImageEncoding::Raw,
            "its mask has another size (16000 × 16000)",
            Record { image: vec![7; 140], masks: mask, ..Record::default() },
        ),
        // Pages that are a few kilobytes before they are decompressed.
        (
            "pixels",
            ImageEncoding::Raw,
            "states 256000004 bytes after decompression, not 144 at most",
            Record { image: vec![7; 256_000_000], ..Record::default() },
        ),
        (
            "report",
            ImageEncoding::Raw,
            "bytes after decompression, more than the 268435456 allowed",
            Record { image: vec![7; 140], report: Some("a".repeat(280_000_000)), ..Record::default() },
        ),
    ];
    for (name, encoding, expected, hostile) in cases {
        let out = temporary.path().join(name);
        let mut made = helpers::made_record(0, (10, 14), 1);
        if encoding != ImageEncoding::Raw {
            made.image = gray().encode(encoding).expect("encoded");
        }
        let hostile = Record { record_id: "made/1".to_owned(), source_height: 14, source_width: 10, ..hostile };
        let hostile = Record { height: 14, width: 10, labels: vec![None], ..hostile };
        helpers::write_dataset(&out, &["A"], encoding, &[vec![made]]);
        let storage = dataset::Storage::folder(&out);
        let mut manifest = Manifest::load(&storage).expect("a manifest");
        manifest.image.compression = "zstd".to_owned();
        manifest.masks = vec!["mask".to_owned()];
        manifest.save(&storage).expect("saved");
        helpers::rewrite_records(&out, 0, |records| records.push(hostile));
        let mut manifest = Manifest::load(&storage).expect("a manifest");
        (manifest.shards[0].rows, manifest.totals.records) = (2, 2);
        manifest.save(&storage).expect("saved");
        assert!(fs::metadata(out.join("shards/part-00000.parquet")).expect("a shard").len() < 1 << 20, "{name}");
        let row = if name == "report" { "rows 0 to 1: `report` cannot be decoded" } else { "row 1: " };
        let check = |what: &str, printed: &str, peak: usize| {
            let is_named = printed.contains("shards/part-00000.parquet") && printed.contains(row);
            assert!(is_named && printed.contains(expected), "{name}, {what}: {printed}");
            assert!(peak <= SMALL, "{name}, {what}: {} MiB", peak >> 20);
        };
        let mut printed = String::new();
        let peak = measured(|| {
            printed = dataset::commands::verify::verify(&out, &|_| Ok(())).expect("a manifest").concat();
        });
        check("verify", &printed, peak);
        let peak = measured(|| {
            let dataset = Arc::new(dataset::Dataset::open(&out).expect("a manifest"));
            let loader = dataset::Loader::builder(&dataset).masks(true).batch_size(2).threads(1);
            let loader = loader.transform(dataset::transform::Transform::evaluate(16));
            let made = loader.build().expect("a loader").next_batch();
            printed = made.err().map_or_else(|| "a batch".to_owned(), |error| error.to_string());
            if name == "report" {
                assert_eq!(printed, "a batch", "a loader reads no reports");
                printed = dataset.record(0).expect_err("refused").to_string();
            }
        });
        check("loader", &printed, peak);
    }
}
