//! Studies as samples, against a naive grouping of the records: views, priors, labels, reports, masks and boxes; ranks, threads,
//! resumption and mixtures; unreadable rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use dataset::format::record::{BoundingBox, ImageEncoding, NamedMask, Record};
use dataset::loader::{
    EpochLength, LoaderBuilder, MixturePart, OnError, StudyOptions, TextOptions, ViewChoice, Weights, count_studies,
};
use dataset::random::Stream;
use dataset::transform::geometry::IGNORED;
use dataset::transform::{Crop, Transform};
use dataset::{Batch, Dataset, Label, Loader, LoaderState, Split, Subset};
use helpers::{args, fails, flip_bit, folder, ingest, made_record, ok, phantom, write_dataset};

const ROWS: usize = 120;
const SIZE: (u16, u16) = (16, 10);
const TOKENS: usize = 12;
const PIXELS: usize = 8 * 8;

const VIEWS: [Option<&str>; 9] = [
    None,
    Some("PA"),
    Some("AP"),
    Some("LATERAL"),
    Some("LL"),
    Some("FRONTAL"),
    Some("LAO"),
    Some("AP_SUPINE"),
    Some("PA"),
];

/// The place of a view in a study, and its code.
fn rank(view: Option<&str>) -> (usize, i64) {
    match view {
        Some("PA") => (0, 1),
        Some("AP" | "AP_SUPINE") => (1, 2),
        Some("FRONTAL") => (2, 3),
        Some("LATERAL" | "LL") => (3, 4),
        Some(_) => (4, 5),
        None => (5, 0),
    }
}

/// Nine patients with up to four studies each; two patients have studies of the same name. Rows of a study are apart.
fn record(number: usize) -> Record {
    let mut random = Stream::new(&[number as u64, 7]);
    let (patient, study) = (random.below(9), random.below(4));
    let mut of_study = Stream::new(&[patient, study]);
    let (day, hour, order) = (7 + of_study.below(3), 4 + of_study.below(2), of_study.below(3) as u32);
    let time = format!("2110-03-0{day}T0{hour}:00:{:02}", number % 50);
    let (study_datetime, study_order) = match of_study.below(6) {
        0 => (None, None),
        1 => (None, Some(order)),
        2 => (Some(format!("2110-03-0{day}")), None),
        3 => (Some(time), None),
        4 => (Some(time).filter(|_| number.is_multiple_of(2)), Some(order)),
        _ => (Some(time), Some(order)),
    };
    let view = VIEWS[random.below(VIEWS.len() as u64) as usize].map(str::to_owned);
    let mut record = Record {
        patient_id: format!("p{patient}"),
        study_id: format!("s{study}"),
        view,
        study_datetime,
        study_order,
        ..made_record(number, SIZE, 3)
    };
    if !number.is_multiple_of(3) {
        (record.report, record.token_ids) = (None, Vec::new());
    }
    if number.is_multiple_of(2) {
        record.masks = vec![NamedMask { name: "mask".to_owned(), png: mask(number) }];
        let [x, y, width, height] = [1.0 + (number % 5) as f32, 2.0, 4.0, 5.0];
        record.boxes =
            vec![BoundingBox { label: format!("box {number}"), x, y, width, height, ..BoundingBox::default() }];
    }
    record
}

/// A 1-bit PNG with stripes.
fn mask(number: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, SIZE.0.into(), SIZE.1.into());
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let bits = vec![number as u8 | 0x11; usize::from(SIZE.0) / 8 * usize::from(SIZE.1)];
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&bits)).expect("a PNG");
    file
}

fn write(folder: &Path, first: usize, count: usize) -> Arc<Dataset> {
    let records: Vec<Record> = (first..first + count).map(record).collect();
    let shards: Vec<Vec<Record>> = records.chunks(50).map(<[Record]>::to_vec).collect();
    write_dataset(folder, &["A", "B", "C"], ImageEncoding::Raw, &shards);
    Arc::new(Dataset::open(folder).expect("a dataset"))
}

/// Two datasets for all tests that only read them.
fn shared() -> [Arc<Dataset>; 2] {
    static SHARED: OnceLock<(tempfile::TempDir, [Arc<Dataset>; 2])> = OnceLock::new();
    let (_, datasets) = SHARED.get_or_init(|| {
        let folder = folder();
        let datasets = [("a", 0, ROWS), ("b", 1000, 60)].map(|(name, first, count)| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).expect("a folder");
            write(&path, first, count)
        });
        (folder, datasets)
    });
    datasets.clone()
}

fn with_settings(builder: LoaderBuilder, transform: Transform) -> LoaderBuilder {
    builder.transform(transform).text(TextOptions { tokens: TOKENS, mask_ratio: 0.5 }).masks(true).boxes(true)
}

/// The rows of each study in the order of its views, in the order of the first of the chosen rows.
fn naive_studies(records: &[Record], rows: &[u32]) -> Vec<Vec<u32>> {
    let name = |row: u32| (&records[row as usize].patient_id, &records[row as usize].study_id);
    let mut studies: Vec<Vec<u32>> = Vec::new();
    for &row in rows {
        match studies.iter_mut().find(|study| name(study[0]) == name(row)) {
            Some(study) => study.push(row),
            None => studies.push(vec![row]),
        }
    }
    for study in &mut studies {
        study.sort_by_key(|&row| (rank(records[row as usize].view.as_deref()).0, row));
    }
    studies
}

/// The latest earlier study of the patient of a study.
fn naive_prior(records: &[Record], studies: &[Vec<u32>], at: usize) -> Option<usize> {
    let of = |study: usize| studies[study].iter().map(|&row| &records[row as usize]);
    let filled = |time: &str, rest: &str| if time.len() == 10 { format!("{time}{rest}") } else { time.to_owned() };
    let ends = |study: usize, by_order: bool| -> Option<(String, String)> {
        let times = |rest: &str| -> Vec<String> {
            let time = |record: &Record| {
                let (order, datetime) = (record.study_order, record.study_datetime.as_ref());
                if by_order {
                    order.map(|order| format!("{order:05}"))
                } else {
                    datetime.map(|time| filled(time, rest))
                }
            };
            of(study).filter_map(time).collect()
        };
        Some((times("T00:00:00").into_iter().min()?, times("T23:59:59").into_iter().max()?))
    };
    let by_order = ends(at, false).is_none();
    let (start, _) = ends(at, by_order)?;
    let mut latest: Option<(String, usize)> = None;
    for other in 0..studies.len() {
        let is_of_patient =
            of(other).next().map(|record| &record.patient_id) == of(at).next().map(|record| &record.patient_id);
        let Some((_, end)) = ends(other, by_order).filter(|_| is_of_patient && other != at) else { continue };
        if end < start && latest.as_ref().is_none_or(|(known, _)| end > *known) {
            latest = Some((end, other));
        }
    }
    latest.map(|(_, study)| study)
}

/// What a loader of records gives of a row: pixels, mask, boxes, tokens.
type Loaded = (Vec<f32>, Vec<u8>, Vec<(String, [f32; 4])>, Vec<i64>);

/// Each record of an epoch of a loader of records.
fn of_records(builder: LoaderBuilder, epoch: u64) -> BTreeMap<u32, Loaded> {
    let mut loader =
        builder.batch_size(ROWS).resume(LoaderState { epoch, ..LoaderState::default() }).build().expect("a loader");
    let batch = loader.next_batch().expect("a batch");
    let at = |at: usize| {
        let boxes = batch.boxes().iter().filter(|placed| placed.record == at);
        let boxes = boxes.map(|b| (b.label.to_string(), [b.x, b.y, b.width, b.height])).collect();
        let (pixels, mask) = (&batch.images()[at * PIXELS..][..PIXELS], &batch.masks()[at * PIXELS..][..PIXELS]);
        (batch.rows()[at], (pixels.to_vec(), mask.to_vec(), boxes, tokens(&batch, at)))
    };
    (0..batch.len()).map(at).collect()
}

fn tokens(batch: &Batch, at: usize) -> Vec<i64> {
    let of = |ids: &[i64]| ids[at * TOKENS..(at + 1) * TOKENS].to_vec();
    [batch.token_ids(), batch.target_ids(), batch.attention_mask()].map(of).concat()
}

/// The labels of several records as a tensor has them.
fn naive_labels(records: &[Record], rows: &[u32]) -> Vec<f32> {
    let of = |finding: usize| {
        let all: Vec<_> = rows.iter().map(|&row| records[row as usize].labels[finding]).collect();
        let first =
            [Label::Positive, Label::Uncertain, Label::Negative].into_iter().find(|label| all.contains(&Some(*label)));
        Label::tensor_value(first)
    };
    (0..3).map(of).collect()
}

#[test]
fn a_sample_is_what_a_naive_grouping_of_the_records_gives() {
    let [dataset, _] = shared();
    let records: Vec<Record> = (0..ROWS).map(|row| dataset.record(row).expect("a record")).collect();
    let chosen: Vec<u32> = (0..ROWS as u32).map(|row| (row * 7 + 3) % ROWS as u32).filter(|row| row % 6 != 1).collect();
    let studies = naive_studies(&records, &chosen);
    assert_eq!(count_studies(&dataset, &chosen).expect("a number"), studies.len());
    let priors: Vec<Option<usize>> = (0..studies.len()).map(|at| naive_prior(&records, &studies, at)).collect();
    assert!(
        priors.iter().flatten().count() > 8 && priors.iter().filter(|prior| prior.is_none()).count() > 8,
        "{priors:?}"
    );
    assert!(studies.iter().any(|study| study.len() > 3) && studies.iter().any(|study| study.len() == 1));

    for (views, prior, choose) in [
        (1, 0, ViewChoice::First),
        (2, 1, ViewChoice::First),
        (3, 2, ViewChoice::First),
        (1, 1, ViewChoice::Random),
        (2, 2, ViewChoice::Random),
    ] {
        let (slots, epoch) = (views + prior, 1);
        let builder = with_settings(Loader::builder(&dataset).rows(chosen.clone()), Transform::finetune(8)).seed(3);
        let options = StudyOptions { views, choose, prior };
        let mut loader = builder
            .clone()
            .studies(options)
            .shuffle(false)
            .batch_size(7)
            .resume(LoaderState { epoch, ..LoaderState::default() })
            .build()
            .expect("a loader");
        assert_eq!((loader.records(), loader.batches()), (studies.len(), studies.len().div_ceil(7) as u64));
        // Own views have the random numbers of a loader of records.
        let alone = of_records(builder, epoch);
        let mut at = 0;
        for _ in 0..loader.batches() {
            let batch = loader.next_batch().expect("a batch");
            assert_eq!(batch.slots(), slots);
            assert_eq!(batch.images().len(), batch.len() * slots * PIXELS);
            assert_eq!(batch.masks().len(), batch.len() * slots * PIXELS);
            for sample in 0..batch.len() {
                let study = &studies[at];
                assert_eq!(batch.rows()[sample], study[0]);
                assert_eq!(batch.has_image()[sample], 1);
                let labels = batch.labels()[sample * 3..][..3].iter().map(|label| label.to_bits());
                assert!(labels.eq(naive_labels(&records, study).iter().map(|label| label.to_bits())));
                let with_report = study.iter().find(|&&row| records[row as usize].token_ids.len() > 1);
                assert_eq!(tokens(&batch, sample), alone[with_report.unwrap_or(&study[0])].3);

                let of = |slots: std::ops::Range<usize>| -> Vec<u32> {
                    let rows = &batch.view_rows()[sample * (views + prior)..][slots];
                    rows.iter().filter(|row| **row >= 0).map(|&row| row as u32).collect()
                };
                let none = Vec::new();
                let before = priors[at].map_or(&none, |prior| &studies[prior]);
                for (found, all, most) in [(of(0..views), study, views), (of(views..slots), before, prior)] {
                    assert_eq!(found.len(), all.len().min(most));
                    match choose {
                        ViewChoice::First => assert_eq!(found, all[..found.len()]),
                        // Different ones, in the order of the views.
                        ViewChoice::Random => {
                            let places: Vec<_> =
                                found.iter().map(|row| all.iter().position(|other| other == row)).collect();
                            assert!(
                                places.iter().all(Option::is_some) && places.is_sorted_by(|a, b| a < b),
                                "{places:?}"
                            );
                        }
                    }
                }
                for slot in 0..slots {
                    let image = sample * slots + slot;
                    let pixels = &batch.images()[image * PIXELS..][..PIXELS];
                    let mask = &batch.masks()[image * PIXELS..][..PIXELS];
                    let boxes = batch.boxes().iter().filter(|placed| (placed.record, placed.slot) == (sample, slot));
                    let boxes: Vec<_> = boxes.map(|b| (b.label.to_string(), [b.x, b.y, b.width, b.height])).collect();
                    let Ok(row) = u32::try_from(batch.view_rows()[image]) else {
                        assert_eq!((batch.view_mask()[image], batch.view_codes()[image], boxes.len()), (0, 0, 0));
                        assert!(pixels.iter().all(|pixel| *pixel == 0.0) && mask.iter().all(|class| *class == IGNORED));
                        continue;
                    };
                    let code = rank(records[row as usize].view.as_deref()).1;
                    assert_eq!((batch.view_mask()[image], batch.view_codes()[image]), (1, code));
                    let own = &alone[&row];
                    if slot < views {
                        assert!((pixels, mask, &boxes) == (&own.0[..], &own.1[..], &own.2), "row {row}");
                    } else {
                        assert!(pixels != &own.0[..], "the study before has random numbers of its own");
                    }
                }
                at += 1;
            }
        }
        assert_eq!(at, studies.len());
    }
}

#[test]
fn images_of_prior_studies_are_those_of_their_rows_and_crops_follow_the_slots() {
    let [dataset, _] = shared();
    let alone = of_records(with_settings(Loader::builder(&dataset), Transform::evaluate(8)), 0);
    let small = Transform { crop: Crop::Stretch, ..Transform::evaluate(4) };
    let builder = with_settings(Loader::builder(&dataset), Transform::evaluate(8));
    let expected_crops = {
        let mut loader = builder.clone().crops(vec![(small.clone(), 2)]).batch_size(ROWS).build().expect("a loader");
        let batch = loader.next_batch().expect("a batch");
        let crops = batch.crops(0).chunks(2 * 16).map(<[f32]>::to_vec).collect::<Vec<_>>();
        batch.rows().iter().copied().zip(crops).collect::<BTreeMap<u32, Vec<f32>>>()
    };
    let options = StudyOptions { views: 2, choose: ViewChoice::Random, prior: 1 };
    let mut loader =
        builder.studies(options).crops(vec![(small, 2)]).batch_size(9).threads(2).build().expect("a loader");
    let (mut priors, mut empty) = (0, 0);
    // The memory of a batch is used again: an empty slot is cleared.
    for _ in 0..6 * loader.batches() {
        let batch = loader.next_batch().expect("a batch");
        let images = batch.images().chunks(PIXELS).zip(batch.masks().chunks(PIXELS)).zip(batch.crops(0).chunks(2 * 16));
        assert_eq!(images.len(), batch.len() * 3);
        for (((pixels, mask), crops), (at, &row)) in images.zip(batch.view_rows().iter().enumerate()) {
            if let Ok(row) = u32::try_from(row) {
                assert!(
                    (pixels, mask) == (&alone[&row].0[..], &alone[&row].1[..]) && crops == expected_crops[&row],
                    "{row}"
                );
                priors += usize::from(at % 3 == 2);
            } else {
                assert!(
                    pixels.iter().chain(crops).all(|pixel| *pixel == 0.0) && mask.iter().all(|class| *class == IGNORED)
                );
                empty += 1;
            }
        }
    }
    assert!(priors > 40 && empty > 100, "{priors}, {empty}");
}

/// A sample of a batch: dataset, first row, rows of its slots, bits of its images, labels, tokens, masks.
type Sample = (u16, u32, Vec<i64>, Vec<u32>, Vec<u32>, Vec<i64>, Vec<u8>);

fn samples(batch: &Batch) -> Vec<Sample> {
    let (slots, findings) = (batch.slots(), batch.labels().len() / batch.len().max(1));
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    let sample = |at: usize| {
        let images = at * slots * PIXELS..(at + 1) * slots * PIXELS;
        (
            batch.sources()[at],
            batch.rows()[at],
            batch.view_rows()[at * slots..(at + 1) * slots].to_vec(),
            bits(&batch.images()[images.clone()]),
            bits(&batch.labels()[at * findings..(at + 1) * findings]),
            tokens(batch, at),
            batch.masks()[images].to_vec(),
        )
    };
    (0..batch.len()).map(sample).collect()
}

fn take(loader: &mut Loader, batches: usize) -> Vec<Vec<Sample>> {
    (0..batches).map(|_| samples(&loader.next_batch().expect("a batch"))).collect()
}

fn options() -> StudyOptions {
    StudyOptions { views: 2, choose: ViewChoice::Random, prior: 1 }
}

/// So many batches of several ranks from a state on, put together as the global batches, and the state after them.
fn together(
    builder: &LoaderBuilder,
    state: &LoaderState,
    world: usize,
    batches: usize,
) -> (Vec<Vec<Sample>>, LoaderState) {
    let ranks: Vec<(Vec<Vec<Sample>>, LoaderState)> = (0..world)
        .map(|rank| {
            let mut loader = builder.clone().distributed(rank, world).resume(state.clone()).build().expect("a loader");
            (take(&mut loader, batches), loader.state())
        })
        .collect();
    let batch = |number: usize| {
        let count: usize = ranks.iter().map(|(batches, _)| batches[number].len()).sum();
        (0..count).map(|at| ranks[at % world].0[number][at / world].clone()).collect()
    };
    ((0..batches).map(batch).collect(), ranks[0].1.clone())
}

#[test]
fn studies_are_the_same_for_any_threads_ranks_and_resumption() {
    let [first, second] = shared();
    let mixed = Loader::mixture(
        [&first, &second, &first].map(MixturePart::new).to_vec(),
        Weights::Shares(vec![3.0, 2.0, 1.0]),
        EpochLength::Records(50),
    );
    for builder in [Loader::builder(&first), mixed] {
        let builder = with_settings(builder, Transform::pretrain(8)).studies(options()).batch_size(7).seed(11);
        let mut one = builder.clone().threads(1).build().expect("a loader");
        let batches = 2 * one.batches() as usize;
        let expected = take(&mut one, batches);
        for threads in [2, 5] {
            let mut many = builder.clone().threads(threads).build().expect("a loader");
            assert!(take(&mut many, batches) == expected, "{threads} threads");
        }
        let access = builder.clone().random_access().expect("random access");
        assert!(samples(&access.batch(1, 1).expect("a batch")) == expected[batches / 2 + 1]);

        // Stopped in mid-epoch twice, and continued with other ranks.
        let (mut state, mut found) = (LoaderState::default(), Vec::new());
        for (world, count) in [(1, 3), (2, 4), (3, batches - 7)] {
            let (more, after) = together(&builder, &state, world, count);
            found.extend(more);
            state = serde_json::from_str(&serde_json::to_string(&after).expect("JSON")).expect("JSON");
        }
        assert!(found == expected);
        // A state of records is none of studies.
        let of_records = with_settings(Loader::builder(&first), Transform::pretrain(8)).batch_size(7).seed(11);
        assert!(of_records.resume(state).build().is_err());
    }
}

#[test]
fn an_epoch_has_each_study_once_and_a_mixture_the_studies_of_each_dataset_in_their_own_order() {
    let datasets = shared();
    let alone = datasets.each_ref().map(|dataset| {
        let builder = with_settings(Loader::builder(dataset), Transform::pretrain(8)).studies(options()).seed(4);
        let mut loader = builder.batch_size(5).build().expect("a loader");
        let (count, batches) = (loader.records(), loader.batches() as usize);
        let all: Vec<Sample> = take(&mut loader, 3 * batches).concat();
        for epoch in all.chunks(count) {
            assert_eq!(epoch.iter().map(|sample| sample.1).collect::<BTreeSet<_>>().len(), count);
        }
        // With one slot, other views come in other epochs.
        let seen: BTreeSet<i64> =
            all.iter().flat_map(|sample| sample.2[..2].to_vec()).filter(|&row| row >= 0).collect();
        assert!(seen.len() > count * 3 / 2, "{} of {count} studies", seen.len());
        (count, all)
    });
    let mixture =
        Loader::mixture(datasets.iter().map(MixturePart::new).collect(), Weights::default(), EpochLength::Sum);
    let mut loader = with_settings(mixture, Transform::pretrain(8))
        .studies(options())
        .seed(4)
        .batch_size(6)
        .build()
        .expect("a loader");
    assert_eq!(loader.records(), alone[0].0 + alone[1].0);
    let batches = 2 * loader.batches() as usize;
    let mixed = take(&mut loader, batches).concat();
    for (source, (_, expected)) in (0..).zip(&alone) {
        let own = mixed.iter().filter(|sample| sample.0 == source).cloned();
        let own: Vec<Sample> =
            own.map(|(_, row, rows, pixels, labels, ids, masks)| (0, row, rows, pixels, labels, ids, masks)).collect();
        assert!(own == expected[..own.len()], "dataset {source}");
    }
}

#[test]
fn a_prior_study_is_of_the_same_subset() {
    let folder = folder();
    let (raw, out) = (phantom(folder.path(), 60), folder.path().join("set"));
    ingest("mimic-cxr", &raw, &out, &[]);
    ok("dataset", args!["split", &out, "--name", "by-image", "--unit", "image"]);
    let dataset = Arc::new(Dataset::open(&out).expect("a dataset"));
    let split = Split::load(&dataset, "by-image").expect("a split");
    let mut with_prior = 0;
    for subset in [Subset::Train, Subset::Validate, Subset::Test] {
        let chosen: BTreeSet<i64> = split.rows(subset, None).into_iter().map(i64::from).collect();
        let builder = Loader::builder(&dataset).subset(&split, subset).transform(Transform::evaluate(8));
        let mut loader = builder.studies(options()).batch_size(8).build().expect("a loader");
        for _ in 0..loader.batches() {
            let batch = loader.next_batch().expect("a batch");
            assert!(batch.view_rows().iter().all(|row| *row < 0 || chosen.contains(row)));
            for (slots, row) in batch.view_rows().chunks(3).zip(batch.rows()).filter(|(slots, _)| slots[2] >= 0) {
                let [before, now] =
                    [slots[2] as usize, *row as usize].map(|row| dataset.record(row).expect("a record"));
                assert_eq!(before.patient_id, now.patient_id);
                assert!(before.study_datetime < now.study_datetime && before.study_id != now.study_id);
                with_prior += 1;
            }
        }
    }
    assert!(with_prior > 3, "{with_prior}");

    let printed = ok(
        "dataset",
        args!["bench", &out, "--studies", "--views", "2", "--prior", "1", "--size", "16", "--seconds", "0.2"],
    );
    assert!(printed.contains(" images/s") && printed.contains(" studies/s, 1."), "{printed}");
    let refused = fails("dataset", 2, args!["bench", &out, "--views", "2"]);
    assert!(refused.contains("--studies"), "{refused}");
}

#[test]
fn a_study_with_an_unreadable_row_is_left_out_whole() {
    let folder = folder();
    let dataset = write(folder.path(), 0, 60);
    let builder = |dataset: &Arc<Dataset>| {
        let options = StudyOptions { views: 2, prior: 1, ..StudyOptions::default() };
        with_settings(Loader::builder(dataset), Transform::pretrain(8)).studies(options).batch_size(4)
    };
    let whole = take(&mut builder(&dataset).build().expect("a loader"), 5).concat();
    let sample = whole.iter().find(|sample| sample.2[1] >= 0).expect("a study with two views");
    let damaged = sample.2[1];
    let shard = folder.path().join(format!("shards/part-0000{}.parquet", damaged / 50));
    let pixels = record(damaged as usize).image;
    let bytes = std::fs::read(&shard).expect("a shard");
    flip_bit(&shard, bytes.windows(pixels.len()).position(|window| window == pixels).expect("stored as it is"), 1);

    let dataset = Arc::new(Dataset::open(folder.path()).expect("a dataset"));
    let mut skipping = builder(&dataset).on_error(OnError::Skip).build().expect("a loader");
    let expected: Vec<&Sample> = whole.iter().filter(|sample| !sample.2.contains(&damaged)).collect();
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let batch = skipping.next_batch().expect("a batch");
        errors.extend(batch.skipped().iter().map(ToString::to_string));
        assert!(batch.boxes().iter().all(|placed| placed.record < batch.len()));
        assert_eq!(batch.view_mask().len(), batch.len() * 3);
        found.extend(samples(&batch));
    }
    assert!(found.iter().eq(expected));
    let start = format!("shards/part-0000{}.parquet, row {}: ", damaged / 50, damaged % 50);
    assert!(!errors.is_empty() && errors.iter().all(|error| error.starts_with(&start)), "{errors:?}");
    assert_eq!(found.len() + errors.len(), whole.len());

    let mut stopping = builder(&dataset).build().expect("a loader");
    let refused = (0..5).find_map(|_| stopping.next_batch().err()).expect("refused").to_string();
    assert!(refused.starts_with(&start), "{refused}");
}

#[test]
fn impossible_studies_are_refused() {
    let [dataset, _] = shared();
    let refused = |builder: LoaderBuilder, options: StudyOptions| {
        builder.studies(options).build().err().expect("refused").to_string()
    };
    let default = StudyOptions::default();
    let twice = Loader::builder(&dataset).rows(vec![3, 4, 3]);
    assert!(refused(twice, default).contains("row 3 was chosen twice"));
    let none = refused(Loader::builder(&dataset), StudyOptions { views: 0, ..default });
    assert!(none.contains("at least one view"), "{none}");
    let many = refused(Loader::builder(&dataset), StudyOptions { prior: usize::MAX, ..default });
    assert!(many.contains("at most 64 in all"), "{many}");
}
