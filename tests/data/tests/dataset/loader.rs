//! The loader: its guarantees for any setting, faults, and many epochs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use dataset::format::image_codec::GrayPixels;
use dataset::format::record::{BoundingBox, ImageEncoding, NamedMask, Record};
use dataset::loader::masking::PAD;
use dataset::loader::{HostBuffer, LoaderBuilder, OnError, TextOptions};
use dataset::transform::geometry::IGNORED;
use dataset::transform::{ASPECT, Crop, Transform};
use dataset::{Batch, Dataset, Loader, LoaderState, PlacedBox};
use helpers::{args, binary, flip_bit, folder, made_record, ok, text, write_dataset};
use proptest::prelude::*;

const ROWS: usize = 97;

/// Records in shards of 40, with images of 12 × 10 pixels.
fn records() -> Vec<Vec<Record>> {
    let all: Vec<Record> = (0..ROWS).map(|row| made_record(row, (12, 10), 3)).collect();
    all.chunks(40).map(<[Record]>::to_vec).collect()
}

fn write(folder: &Path) -> Arc<Dataset> {
    write_dataset(folder, &["A", "B", "C"], ImageEncoding::Raw, &records());
    Arc::new(Dataset::open(folder).expect("a dataset"))
}

/// One dataset for all tests that only read it.
fn shared() -> Arc<Dataset> {
    static SHARED: OnceLock<(tempfile::TempDir, Arc<Dataset>)> = OnceLock::new();
    let (_, dataset) = SHARED.get_or_init(|| {
        let folder = folder();
        let dataset = write(folder.path());
        (folder, dataset)
    });
    dataset.clone()
}

fn builder(dataset: &Arc<Dataset>) -> LoaderBuilder {
    Loader::builder(dataset).transform(Transform::pretrain(8)).text(TextOptions { tokens: 16, mask_ratio: 0.5 })
}

/// The contents of a batch, to compare.
#[derive(Clone, Debug, PartialEq)]
struct Contents {
    rows: Vec<u32>,
    images: Vec<u32>,
    tokens: Vec<i64>,
    labels: Vec<u32>,
}

fn contents(batch: &Batch) -> Contents {
    assert_eq!(batch.images().len(), batch.len() * batch.size() * batch.size());
    assert_eq!(batch.labels().len(), batch.len() * 3);
    let attended = batch.attention_mask().iter().zip(batch.target_ids());
    assert!(
        attended.into_iter().all(|(&attended, &target)| attended == i64::from(target != PAD)),
        "padding is attended to"
    );
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    Contents {
        rows: batch.rows().to_vec(),
        images: bits(batch.images()),
        tokens: [batch.token_ids(), batch.target_ids(), batch.attention_mask()].concat(),
        labels: bits(batch.labels()),
    }
}

fn take(loader: &mut Loader, batches: usize) -> Vec<Contents> {
    (0..batches).map(|_| contents(&loader.next_batch().expect("a batch"))).collect()
}

/// The part of a batch that a rank of so many gets: its records from number `rank` on, each `world`th.
fn part(batch: &Contents, rank: usize, world: usize) -> Contents {
    fn each<T: Copy>(values: &[T], size: usize, (rank, world): (usize, usize)) -> Vec<T> {
        values.chunks(size).skip(rank).step_by(world).flatten().copied().collect()
    }
    let records = batch.rows.len();
    let of_rank = (rank, world);
    // Token ids, targets and the mask of a whole batch follow each other.
    let tokens = batch.tokens.chunks(records * 16).flat_map(|kind| each(kind, 16, of_rank)).collect();
    Contents {
        rows: each(&batch.rows, 1, of_rank),
        images: each(&batch.images, 64, of_rank),
        tokens,
        labels: each(&batch.labels, 3, of_rank),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// An epoch has every row once; ranks, threads, prefetching and resumption do not change batches.
    #[test]
    fn an_epoch_is_a_permutation_for_any_threads_ranks_and_resumption(
        rows in 1..ROWS,
        batch_size in 1..40_usize,
        seed in any::<u64>(),
        world in 1..5_usize,
        threads in 1..5_usize,
        prefetch in 1..9_usize,
        drop_last in any::<bool>(),
        shuffle in any::<bool>(),
        stop in 0..10_usize,
    ) {
        let world = world.min(batch_size);
        let drop_last = drop_last && rows >= batch_size;
        let dataset = shared();
        // Other rows than the first, and not in the order of the dataset.
        let chosen: Vec<u32> = (0..rows as u32).map(|row| (row * 5 + 3) % ROWS as u32).collect();
        let builder = builder(&dataset).rows(chosen.clone()).batch_size(batch_size).seed(seed)
            .drop_last(drop_last).shuffle(shuffle);
        let mut one = builder.clone().threads(1).build().expect("a loader");
        let batches = one.batches() as usize;
        prop_assert_eq!(batches, if drop_last { rows / batch_size } else { rows.div_ceil(batch_size) });
        let expected = take(&mut one, 2 * batches);

        for epoch in expected.chunks(batches) {
            let seen: Vec<u32> = epoch.iter().flat_map(|batch| batch.rows.clone()).collect();
            let distinct: BTreeSet<u32> = seen.iter().copied().collect();
            prop_assert_eq!(distinct.len(), seen.len());
            prop_assert_eq!(seen.len(), one.records());
            if !drop_last {
                prop_assert_eq!(distinct, chosen.iter().copied().collect::<BTreeSet<_>>());
            }
            if !shuffle && !drop_last {
                prop_assert_eq!(&seen, &chosen);
            }
        }

        let mut many = builder.clone().threads(threads).prefetch(prefetch).build().expect("a loader");
        prop_assert_eq!(&take(&mut many, 2 * batches), &expected);

        // The parts of the ranks, taken alternately, are the global batch.
        let mut ranks: Vec<Loader> = (0..world)
            .map(|rank| builder.clone().threads(1).distributed(rank, world).build().expect("a loader"))
            .collect();
        for batch in expected.iter().take(batches) {
            for (rank, loader) in ranks.iter_mut().enumerate() {
                prop_assert_eq!(take(loader, 1).remove(0), part(batch, rank, world));
            }
        }

        // Stopped after some batches, continued by so many ranks, stopped and continued again.
        let stop = stop.min(2 * batches - 1);
        let saved = |loader: &Loader| -> LoaderState {
            serde_json::from_str(&serde_json::to_string(&loader.state()).expect("JSON")).expect("JSON")
        };
        let mut first = builder.clone().threads(threads).build().expect("a loader");
        take(&mut first, stop / 2);
        let stale = saved(&first);
        let mut states: Vec<LoaderState> = Vec::new();
        for rank in 0..world {
            let second = builder.clone().threads(1).distributed(rank, world).resume(stale.clone());
            let mut second = second.build().expect("a loader");
            let parts: Vec<Contents> =
                expected[stop / 2..stop].iter().map(|batch| part(batch, rank, world)).collect();
            prop_assert_eq!(take(&mut second, stop - stop / 2), parts);
            states.push(saved(&second));
        }
        prop_assert!(states.iter().all(|state| *state == states[0]), "{:?}", states);
        let mut third = builder.clone().threads(threads).resume(states[0].clone()).build().expect("a loader");
        prop_assert_eq!(&take(&mut third, 2 * batches - stop)[..], &expected[stop..]);
        // The older state still continues from its own place, whatever was read since.
        let mut again = builder.clone().threads(1).resume(stale).build().expect("a loader");
        prop_assert_eq!(&take(&mut again, 2 * batches - stop / 2)[..], &expected[stop / 2..]);
    }
}

#[test]
fn a_state_of_another_order_is_refused() {
    let dataset = shared();
    let mut loader = builder(&dataset).batch_size(8).build().expect("a loader");
    take(&mut loader, 2);
    let state = loader.state();
    assert!(builder(&dataset).batch_size(8).resume(state.clone()).distributed(1, 2).threads(3).build().is_ok());
    for other in [
        builder(&dataset).batch_size(9),
        builder(&dataset).batch_size(8).seed(1),
        builder(&dataset).batch_size(8).shuffle(false),
        builder(&dataset).batch_size(8).rows((0..50).collect()),
    ] {
        let error = other.resume(state.clone()).build().err().expect("refused").to_string();
        assert!(error.contains("belongs to other records, or another batch size, seed or policy"), "{error}");
    }
}

#[test]
fn the_iterator_ends_with_each_epoch_and_continues_with_the_next() {
    let dataset = shared();
    let mut loader = builder(&dataset).batch_size(40).build().expect("a loader");
    for epoch in 0..3 {
        let sizes: Vec<(u64, u64, usize)> = loader
            .by_ref()
            .map(|batch| batch.map(|batch| (batch.epoch, batch.number, batch.len())).expect("a batch"))
            .collect();
        assert_eq!(sizes, [(epoch, 0, 40), (epoch, 1, 40), (epoch, 2, 17)]);
    }
}

/// Damages the stored length of the image of each of some rows of a shard.
fn damage(path: &Path, rows: &[usize]) {
    let bytes = fs::read(path).expect("a shard");
    let file = fs::OpenOptions::new().write(true).open(path).expect("a shard");
    for &row in rows {
        let pixels = made_record(row, (12, 10), 3).image;
        let at = bytes.windows(pixels.len()).position(|window| window == pixels).expect("stored as it is");
        file.write_all_at(&[7], at as u64 - 4).expect("written");
    }
}

#[test]
fn an_unreadable_record_is_an_error_or_is_skipped_and_counted() {
    let folder = folder();
    let whole: Vec<Contents> = take(&mut builder(&shared()).batch_size(10).build().expect("a loader"), 10);
    let dataset = write(folder.path());
    damage(&folder.path().join("shards/part-00001.parquet"), &[41, 77]);

    // By default the batch is an error with shard and row, and the next batch follows.
    let mut loader = builder(&dataset).batch_size(10).threads(2).build().expect("a loader");
    let mut printed = BTreeSet::new();
    for expected in &whole {
        match loader.next_batch() {
            Ok(batch) => assert_eq!(&contents(&batch), expected),
            Err(error) => {
                assert!(expected.rows.contains(&41) || expected.rows.contains(&77));
                printed.insert(error.to_string());
            }
        }
    }
    let together = whole.iter().any(|batch| batch.rows.contains(&41) && batch.rows.contains(&77));
    assert_eq!(printed.len(), if together { 1 } else { 2 }, "{printed:?}");
    for error in &printed {
        let named = [1, 37].map(|row| format!("shards/part-00001.parquet, row {row}: "));
        assert!(named.iter().any(|start| error.starts_with(start.as_str())), "{error}");
    }

    // With `OnError::Skip` they are left out; all others are unchanged.
    let skipping = builder(&dataset).batch_size(10).on_error(OnError::Skip);
    let mut loader = skipping.clone().build().expect("a loader");
    let mut skipped = Vec::new();
    for expected in &whole {
        let batch = loader.next_batch().expect("a batch");
        skipped.extend(batch.skipped().iter().map(ToString::to_string));
        let rows: Vec<u32> = expected.rows.iter().copied().filter(|row| ![41, 77].contains(row)).collect();
        assert_eq!(batch.rows(), rows);
        let pixels: Vec<u32> = (expected.images.chunks(64).zip(&expected.rows))
            .filter(|(_, row)| ![41, 77].contains(*row))
            .flat_map(|(pixels, _)| pixels.to_vec())
            .collect();
        assert_eq!(contents(&batch).images, pixels);
        assert_eq!(batch.token_ids().len(), batch.len() * batch.tokens());
    }
    assert_eq!((loader.skipped(), skipped.len()), (2, 2), "{skipped:?}");

    // A missing shard: 40 of 97 records.
    fs::remove_file(folder.path().join("shards/part-00000.parquet")).expect("removed");
    let dataset = Arc::new(Dataset::open(folder.path()).expect("a dataset"));
    let mut loader = builder(&dataset).batch_size(10).on_error(OnError::Skip).build().expect("a loader");
    let seen: usize = (0..10).map(|_| loader.next_batch().expect("a batch").len()).sum();
    assert_eq!((seen, loader.skipped()), (55, 42));
}

/// Contents, boxes and masks of a batch.
type Everything = (Contents, Vec<PlacedBox>, Vec<u8>);

/// A flipped bit in a shard changes no batch: it gives an error, or is not read.
#[test]
fn no_batch_has_flipped_bits() {
    let folder = folder();
    let (mut failed, tried) = (0, 120);
    for encoding in [ImageEncoding::Raw, ImageEncoding::Png] {
        let shards: Vec<Vec<Record>> = (0..3)
            .map(|shard| {
                let marked = (shard * 2..shard * 2 + 2).map(marked);
                let mut records: Vec<Record> =
                    marked.chain((10..16).map(|row| made_record(shard * 10 + row, (12, 10), 3))).collect();
                for record in records.iter_mut().filter(|_| encoding != ImageEncoding::Raw) {
                    let (width, height) = (record.width.into(), record.height.into());
                    let image = GrayPixels { width, height, pixels: std::mem::take(&mut record.image) };
                    record.image = image.encode(encoding).expect("encoded");
                }
                records
            })
            .collect();
        write_dataset(folder.path(), &["A", "B", "C"], encoding, &shards);
        let epoch = || -> Vec<Result<Everything, String>> {
            let dataset = Arc::new(Dataset::open(folder.path()).expect("a manifest"));
            let loader = builder(&dataset).batch_size(8).boxes(true).masks(true).threads(2).build().expect("a loader");
            let all = |batch: Batch| (contents(&batch), batch.boxes().to_vec(), batch.masks().to_vec());
            loader.map(|batch| batch.map(all).map_err(|error| error.to_string())).collect()
        };
        let expected = epoch();
        assert!(expected.iter().all(Result::is_ok));
        let mut random = dataset::random::Stream::new(&[5]);
        for _ in 0..tried / 2 {
            let path = folder.path().join(format!("shards/part-0000{}.parquet", random.below(3)));
            let length = fs::metadata(&path).expect("a shard").len();
            let (at, bit) = (random.below(length) as usize, random.below(8) as u32);
            flip_bit(&path, at, bit);
            let found = epoch();
            failed += usize::from(found.iter().any(Result::is_err));
            for (found, expected) in found.iter().zip(&expected) {
                match found {
                    Ok(_) => assert!(found == expected, "{}, byte {at}, bit {bit}", path.display()),
                    Err(error) => assert!(error.starts_with("shards/part-0000"), "{error}"),
                }
            }
            flip_bit(&path, at, bit);
        }
    }
    assert!(failed > tried / 4, "{failed} of {tried}");
}

/// A change of a record, and words of the error that it causes.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Record));

/// On a GPU, an id outside of the vocabulary would be an assertion without a record.
#[test]
fn invalid_values_are_refused_with_their_row() {
    let boxed = |x: f32| {
        vec![BoundingBox { label: "A".to_owned(), x, y: 1.0, width: 2.0, height: 2.0, ..BoundingBox::default() }]
    };
    let changes: [Change<'_>; 4] = [
        ("token id 100, but the vocabulary has 100 pieces", &|record| record.token_ids[3] = 100),
        ("token id -1, but the vocabulary has 100 pieces", &|record| record.token_ids[3] = -1),
        ("a box at NaN", &|record| record.boxes = boxed(f32::NAN)),
        ("its mask is not a 1-bit gray PNG", &|record| record.masks = vec![named_mask("mask", vec![1; 40])]),
    ];
    let check = |folder: &Path, expected: &str| {
        let dataset = Arc::new(Dataset::open(folder).expect("a dataset"));
        let builder = builder(&dataset).batch_size(97).boxes(true).masks(true);
        let refused = builder.clone().build().expect("a loader").next_batch().err().expect("refused").to_string();
        assert!(refused.starts_with(&format!("shards/part-00001.parquet, row 7: {expected}")), "{refused}");
        let mut skipping = builder.on_error(OnError::Skip).build().expect("a loader");
        assert_eq!(skipping.next_batch().expect("a batch").len(), 96);
    };
    for (expected, change) in changes {
        let folder = folder();
        let mut shards = records();
        change(&mut shards[1][7]);
        write_dataset(folder.path(), &["A", "B", "C"], ImageEncoding::Raw, &shards);
        check(folder.path(), expected);
    }
    let coded = folder();
    write_dataset(coded.path(), &["A", "B", "C"], ImageEncoding::Raw, &records());
    helpers::set_label_code(coded.path(), 1, 7, 1, 2);
    check(coded.path(), "label code 2");
    // A report that is longer than the row is cut.
    let folder = folder();
    let mut shards = records();
    shards[0][0].token_ids = vec![5; 90];
    write_dataset(folder.path(), &["A", "B", "C"], ImageEncoding::Raw, &shards);
    let dataset = Arc::new(Dataset::open(folder.path()).expect("a dataset"));
    assert_eq!(take(&mut builder(&dataset).batch_size(97).build().expect("a loader"), 1)[0].rows.len(), 97);
}

#[test]
fn a_panic_in_a_loader_thread_is_an_error() {
    let dataset = shared();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let mut loader = builder(&dataset)
        .batch_size(10)
        .threads(2)
        .memory(move |floats| {
            let asked = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            assert_ne!(asked, 1, "the second allocation fails");
            Box::new(vec![0.0; floats])
        })
        .build()
        .expect("a loader");
    let failed = (0..20).filter(|_| loader.next_batch().is_err()).count();
    assert_eq!(failed, 1);
}

#[test]
fn a_shard_replaced_while_it_is_read_gives_its_old_bytes_or_an_error() {
    let folder = folder();
    let dataset = write(folder.path());
    let expected = take(&mut builder(&dataset).batch_size(10).build().expect("a loader"), 30);
    let shard = folder.path().join("shards/part-00001.parquet");

    // Another shard renamed over it: open files keep what they opened.
    let mut loader = builder(&dataset).batch_size(10).prefetch(1).build().expect("a loader");
    assert_eq!(take(&mut loader, 3), expected[..3]);
    let other = folder.path().join("other");
    fs::copy(folder.path().join("shards/part-00002.parquet"), &other).expect("copied");
    fs::rename(&other, &shard).expect("renamed");
    assert_eq!(take(&mut loader, 12), expected[3..15]);
    drop(loader);

    // A dataset that is opened now reports it.
    let reopened = Arc::new(Dataset::open(folder.path()).expect("a dataset"));
    let mut loader = builder(&reopened).batch_size(97).build().expect("a loader");
    let error = loader.next_batch().err().expect("an error from the manifest").to_string();
    assert!(error.contains("part-00001") && error.contains("the manifest says"), "{error}");
    drop(loader);

    // Truncated while it is open: an error with the row; the process continues.
    let dataset = write(folder.path());
    let mut loader = builder(&dataset).batch_size(10).prefetch(1).build().expect("a loader");
    assert_eq!(take(&mut loader, 10), expected[..10]);
    fs::OpenOptions::new().write(true).open(&shard).and_then(|file| file.set_len(2000)).expect("cut");
    let errors: Vec<String> =
        (0..20).filter_map(|_| loader.next_batch().err().map(|error| error.to_string())).collect();
    assert!(!errors.is_empty());
    assert!(errors.iter().all(|error| error.starts_with("shards/part-00001.parquet, row ")), "{errors:?}");
}

#[test]
fn concurrent_readers_of_a_dataset_get_the_same_batches() {
    let folder = folder();
    let dataset = write(folder.path());
    let expected = take(&mut builder(&dataset).batch_size(7).build().expect("a loader"), 28);
    std::thread::scope(|scope| {
        for reader in 0..8 {
            // Half of them share the opened dataset, half open it again; a command verifies it meanwhile.
            let (own, expected, folder) = (dataset.clone(), &expected, folder.path());
            scope.spawn(move || {
                let dataset = if reader % 2 == 0 { own } else { Arc::new(Dataset::open(folder).expect("a dataset")) };
                let mut loader = builder(&dataset).batch_size(7).threads(2).build().expect("a loader");
                assert_eq!(&take(&mut loader, 28), expected);
            });
        }
        ok("dataset", helpers::args!["verify", folder.path()]);
    });
}

/// A record that is several times in an epoch is augmented differently each time, and equally for any number of threads.
#[test]
fn copies_of_a_record_are_augmented_differently() {
    let dataset = shared();
    let rows = vec![3, 8, 3, 3, 20];
    let epoch = |threads: usize| {
        let loader = builder(&dataset).rows(rows.clone()).batch_size(5).threads(threads).seed(4).build();
        loader.expect("a loader").next_batch().map(|batch| contents(&batch)).expect("a batch")
    };
    let batch = epoch(1);
    assert_eq!(batch, epoch(3));
    let pixels: Vec<&[u32]> = batch.images.chunks(batch.images.len() / 5).collect();
    let copies: BTreeSet<&[u32]> = (0..5).filter(|&at| batch.rows[at] == 3).map(|at| pixels[at]).collect();
    assert_eq!(copies.len(), 3);
    // The first copy equals the record without copies.
    let mut alone = builder(&dataset).rows(vec![3]).seed(4).build().expect("a loader");
    let alone = contents(&alone.next_batch().expect("a batch"));
    assert!(copies.contains(alone.images.as_slice()));
}

#[test]
fn a_state_of_another_dataset_is_refused() {
    let dataset = shared();
    let state = builder(&dataset).build().expect("a loader").state();
    let temporary = folder();
    let others: Vec<Record> = (ROWS..2 * ROWS).map(|row| made_record(row, (12, 10), 3)).collect();
    write_dataset(temporary.path(), &["A", "B", "C"], ImageEncoding::Raw, &[others]);
    let other = Arc::new(Dataset::open(temporary.path()).expect("a dataset"));
    let refused = builder(&other).resume(state).build().err().expect("refused").to_string();
    assert!(refused.contains("belongs to other records"), "{refused}");
}

/// A bright rectangle on black, as pixels, as a mask and as a box.
fn marked(row: usize) -> Record {
    let (width, height) = (90u16, 120u16);
    let [x, y, w, h] = [20 + row as u16, 30, 40, 50];
    let inside = |at: usize| {
        let (px, py) = (at as u16 % width, at as u16 / width);
        (x..x + w).contains(&px) && (y..y + h).contains(&py)
    };
    let pixels: Vec<u8> = (0..usize::from(width) * usize::from(height)).map(|at| u8::from(inside(at)) * 255).collect();
    let mut mask = Vec::new();
    let mut encoder = png::Encoder::new(&mut mask, width.into(), height.into());
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let bits: Vec<u8> = pixels
        .chunks(width.into())
        .flat_map(|row| {
            let byte = |eight: &[u8]| eight.iter().enumerate().map(|(bit, &p)| (p >> 7) << (7 - bit)).sum::<u8>();
            row.chunks(8).map(byte).collect::<Vec<_>>()
        })
        .collect();
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&bits)).expect("a PNG");
    let boxed = BoundingBox {
        label: "A".to_owned(),
        x: x.into(),
        y: y.into(),
        width: w.into(),
        height: h.into(),
        ..BoundingBox::default()
    };
    Record {
        image: pixels,
        masks: if row == 3 { Vec::new() } else { vec![named_mask("mask", mask)] },
        boxes: if row == 1 { vec![boxed.clone(), BoundingBox { label: "B".to_owned(), ..boxed }] } else { vec![boxed] },
        ..made_record(row, (width, height), 3)
    }
}

fn named_mask(name: &str, png: Vec<u8>) -> NamedMask {
    NamedMask { name: name.to_owned(), png }
}

#[test]
fn masks_and_boxes_are_cropped_and_flipped_with_the_pixels() {
    let folder = folder();
    write_dataset(folder.path(), &["A", "B", "C"], ImageEncoding::Raw, &[(0..4).map(marked).collect()]);
    let dataset = Arc::new(Dataset::open(folder.path()).expect("a dataset"));
    let size = 64;
    let crops = [
        Crop::RandomResized { scale: (0.3, 1.0), aspect: ASPECT },
        Crop::Center { shorter: 80 },
        Crop::Center { shorter: 40 },
        Crop::Random { shorter: 80 },
        Crop::Pad,
        Crop::Stretch,
    ];
    for crop in crops {
        let transform = Transform { crop, mean: 0.0, std: 1.0, ..Transform::finetune(size) };
        let mut loader =
            Loader::builder(&dataset).transform(transform).batch_size(4).masks(true).boxes(true).build().expect("one");
        let mut flips = BTreeSet::new();
        for _ in 0..12 {
            let batch = loader.next_batch().expect("a batch");
            for (record, (pixels, mask)) in
                batch.images().chunks(64 * 64).zip(batch.masks().chunks(64 * 64)).enumerate()
            {
                let boxes: Vec<_> = batch.boxes().iter().filter(|found| found.record == record).collect();
                if batch.rows()[record] == 3 {
                    assert!(mask.iter().all(|&class| class == IGNORED), "a record without a mask");
                    continue;
                }
                let labels: Vec<&str> = boxes.iter().map(|found| &*found.label).collect();
                assert_eq!(labels, if batch.rows()[record] == 1 { &["A", "B"][..] } else { &["A"] }, "{crop:?}");
                let place = |found: &PlacedBox| [found.x, found.y, found.width, found.height];
                let found = boxes[0];
                assert!(boxes.iter().all(|other| place(other) == place(found)), "{boxes:?}");
                let mut differing = 0;
                for (at, (&level, &class)) in pixels.iter().zip(mask).enumerate() {
                    let (x, y) = ((at % 64) as f32 + 0.5, (at / 64) as f32 + 0.5);
                    // Away from the edges of the rectangle all three must agree.
                    let outside = [found.x - x, x - found.x - found.width, found.y - y, y - found.y - found.height]
                        .into_iter()
                        .fold(f32::NEG_INFINITY, f32::max);
                    if outside.abs() > 1.5 {
                        let inside = outside < 0.0;
                        assert_eq!(level > 0.5, inside, "{crop:?} at {x}, {y}: {found:?}");
                        assert!(class == IGNORED && !inside || (class == 1) == inside, "{crop:?} at {x}, {y}");
                    }
                    differing += usize::from(class != IGNORED && (level > 0.5) != (class == 1));
                }
                assert!(differing < 64, "{differing} pixels on the edges");
                flips.insert((found.x * 4.0) as i64 + i64::from(batch.rows()[record]) * 1000);
            }
        }
        assert!(flips.len() >= 6, "{crop:?}: each of three records is flipped and not flipped");
    }
}

#[test]
fn invalid_settings_are_refused() {
    let dataset = shared();
    let refused = |builder: LoaderBuilder| builder.build().err().expect("refused").to_string();
    assert!(refused(builder(&dataset).batch_size(0)).contains("above 0"));
    assert!(refused(builder(&dataset).distributed(2, 2)).contains("rank below world"));
    assert!(refused(builder(&dataset).batch_size(2).distributed(0, 3)).contains("world_size at most batch_size"));
    assert!(refused(builder(&dataset).rows(vec![])).contains("no record to load"));
    assert!(refused(builder(&dataset).rows(vec![97])).contains("row 97 of 97"));
    assert!(refused(builder(&dataset).batch_size(98).drop_last(true)).contains("fewer records than one batch"));

    let folder = folder();
    let bare = Record { image: Vec::new(), height: 0, width: 0, ..made_record(0, (4, 4), 1) };
    write_dataset(folder.path(), &["A"], ImageEncoding::Raw, &[vec![bare]]);
    let dataset = Arc::new(Dataset::open(folder.path()).expect("a dataset"));
    assert!(refused(Loader::builder(&dataset)).contains("--no-images"));
}

#[test]
fn a_montage_shows_the_batches_and_a_closed_pipe_is_no_failure() {
    let folder = folder();
    let raw = helpers::phantom_of("rsna", folder.path(), 14);
    let out = folder.path().join("set");
    helpers::ingest("rsna", &raw, &out, &["--tokenizer", "none"]);
    let draw_tiles = |name: &str, (columns, lines): (u32, u32), more: &[&str]| {
        let path = folder.path().join(name);
        let mut arguments = helpers::args!["inspect", &out, "--montage", &path].to_vec();
        arguments.extend(more.iter().map(Into::into));
        ok("dataset", arguments);
        let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(&path).expect("written")));
        let mut reader = decoder.read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("it fits")];
        reader.next_frame(&mut pixels).expect("whole");
        assert_eq!((reader.info().width, reader.info().height), (columns * 192, lines * 192));
        pixels
    };
    let draw = |name: &str, more: &[&str]| draw_tiles(name, (6, 2), &[&["--count", "8"], more].concat());
    let stored = draw("stored.png", &[]);
    let shown = draw("shown.png", &["--transform", "finetune", "--size", "96"]);
    assert_ne!(stored, shown);
    assert_eq!(shown, draw("again.png", &["--transform", "finetune", "--size", "96"]));
    // In each of two lines: the image, the darkest, the brightest, one that is drawn.
    let list = r#"[{"kind": "brightness", "factor": [0, 2]}]"#;
    let options = ["--count", "2", "--transform", "evaluate", "--augment", list];
    let lines = draw_tiles("augmented.png", (4, 2), &options);
    let mean = |tile: usize| {
        let row = |y: usize| &lines[(y * 4 + tile) * 192..][..192];
        (0..192).map(|y| row(y).iter().map(|&level| u64::from(level)).sum::<u64>()).sum::<u64>() / (192 * 192)
    };
    assert!(mean(1) < 20 && mean(1) < mean(0) && mean(0) < mean(2), "{} {} {}", mean(1), mean(0), mean(2));

    let mut child = helpers::command("dataset")
        .args(helpers::args!["inspect", &out])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", helpers::text(&output.stderr));
}

#[test]
fn threads_and_prefetch_are_bounded() {
    let dataset = shared();
    let message = |builder: LoaderBuilder| builder.build().map(drop).unwrap_err().to_string();
    let threads = message(builder(&dataset).threads(1_000_000));
    assert!(threads.contains("1000000 threads") && threads.contains("the limits are 1024"), "{threads}");
    let ahead = message(builder(&dataset).prefetch(usize::MAX));
    assert!(ahead.contains("the limits are 1024 and 65536"), "{ahead}");
}

#[test]
fn the_training_loop_example_runs() {
    let folder = folder();
    write(folder.path());
    ok("dataset", args!["split", folder.path(), "--name", "main"]);
    let example = std::process::Command::new(binary("examples/train_loop")).arg(folder.path()).arg("main").output();
    let output = example.expect("the example starts");
    let (message, failed) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{failed}");
    let steps = message.lines().filter(|line| line.contains("images of 64×64")).count();
    assert_eq!(steps, message.lines().count() - 1, "{message}");
    assert!(
        steps > 5 && message.lines().last().is_some_and(|state| state.contains("\"epoch\":1,\"batch\":0")),
        "{message}"
    );
}

#[test]
fn too_small_a_memory_is_refused_and_a_larger_one_is_used() {
    let dataset = shared();
    let given = |size: fn(usize) -> usize| {
        let memory = move |floats| Box::new(vec![0.0_f32; size(floats)]) as Box<dyn HostBuffer>;
        let mut loader = builder(&dataset).batch_size(10).threads(1).memory(memory).build().expect("a loader");
        loader.next_batch().map(|batch| contents(&batch)).map_err(|error| error.to_string())
    };
    let message = given(|floats| floats - 1).expect_err("refused");
    assert!(message.contains("the memory has 639 floats, 640 are needed"), "{message}");
    assert_eq!(given(|floats| floats + 7).expect("a batch"), given(|floats| floats).expect("a batch"));
}

#[test]
fn the_first_batch_beyond_an_epoch_or_beyond_all_numbers_is_refused() {
    let dataset = shared();
    let resumed = |epoch, batch| {
        let state = LoaderState { epoch, batch, ..LoaderState::default() };
        builder(&dataset).batch_size(ROWS).resume(state).build().map(drop).map_err(|error| error.to_string())
    };
    assert_eq!((resumed(3, 0), resumed(u64::MAX / 2 - 1, 0)), (Ok(()), Ok(())));
    for refused in [resumed(0, 1), resumed(u64::MAX / 2, 0)] {
        let message = refused.expect_err("refused");
        assert!(message.contains("but an epoch has 1 batches"), "{message}");
    }
}
