//! Mixtures of datasets: shares, each dataset's own order, ranks, resumption; differing findings, encodings and tokenizers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dataset::format::image_codec::GrayPixels;
use dataset::format::record::{ImageEncoding, Record};
use dataset::loader::{EpochLength, LoaderBuilder, MixturePart, OnError, TextOptions, Weights};
use dataset::tokenizer::ReportTokenizer;
use dataset::transform::Transform;
use dataset::{Batch, Dataset, Label, Loader, LoaderState};
use helpers::{args, fails, flip_bit, folder, ingest, made_record, ok, phantom_of, write_dataset};
use proptest::prelude::*;

/// Number of records, findings, image size and encoding of a dataset.
type Made = (usize, &'static [&'static str], (u16, u16), ImageEncoding);

/// The datasets; the second has no reports.
const MADE: [Made; 4] = [
    (31, &["A", "B", "C"], (12, 10), ImageEncoding::Raw),
    (17, &["B", "D"], (20, 14), ImageEncoding::Png),
    (9, &["A", "B", "C"], (9, 9), ImageEncoding::Raw),
    (23, &[], (12, 10), ImageEncoding::Jpeg),
];

fn made(number: usize) -> Vec<Vec<Record>> {
    let (records, findings, size, encoding) = MADE[number];
    let record = |row: usize| {
        let mut record = made_record(row + 1000 * number, size, findings.len());
        if encoding != ImageEncoding::Raw {
            let (width, height) = (size.0.into(), size.1.into());
            let image = GrayPixels { width, height, pixels: std::mem::take(&mut record.image) };
            record.image = image.encode(encoding).expect("encoded");
        }
        if number == 1 {
            record.token_ids.clear();
        }
        record
    };
    (0..records).map(record).collect::<Vec<_>>().chunks(8).map(<[Record]>::to_vec).collect()
}

/// The datasets, for all tests that only read them.
fn datasets() -> Vec<Arc<Dataset>> {
    static SHARED: OnceLock<(tempfile::TempDir, Vec<Arc<Dataset>>)> = OnceLock::new();
    let (_, datasets) = SHARED.get_or_init(|| {
        let folder = folder();
        let open = |number: usize| {
            let path = folder.path().join(number.to_string());
            write_dataset(&path, MADE[number].1, MADE[number].3, &made(number));
            Arc::new(Dataset::open(&path).expect("a dataset"))
        };
        let datasets = (0..MADE.len()).map(open).collect();
        (folder, datasets)
    });
    datasets.clone()
}

fn with_settings(builder: LoaderBuilder) -> LoaderBuilder {
    builder.transform(Transform::pretrain(8)).text(TextOptions { tokens: 16, mask_ratio: 0.5 })
}

fn mixture(datasets: &[Arc<Dataset>], weights: &Weights, epoch: EpochLength) -> LoaderBuilder {
    with_settings(Loader::mixture(datasets.iter().map(MixturePart::new).collect(), weights.clone(), epoch))
}

/// One record of a batch: dataset, row, pixels, token ids with their masks.
type Loaded = (u16, u32, Vec<u32>, Vec<i64>);

fn records(batch: &Batch) -> Vec<Loaded> {
    let (pixels, tokens) = (batch.size() * batch.size(), batch.tokens());
    let record = |at: usize| {
        let bits = batch.images()[at * pixels..(at + 1) * pixels].iter().map(|level| level.to_bits()).collect();
        let of = |ids: &[i64]| ids[at * tokens..(at + 1) * tokens].to_vec();
        let ids = [batch.token_ids(), batch.target_ids(), batch.attention_mask()].map(of).concat();
        (batch.sources()[at], batch.rows()[at], bits, ids)
    };
    (0..batch.len()).map(record).collect()
}

fn take(loader: &mut Loader, batches: usize) -> Vec<Vec<Loaded>> {
    (0..batches).map(|_| records(&loader.next_batch().expect("a batch"))).collect()
}

fn saved(loader: &Loader) -> LoaderState {
    serde_json::from_str(&serde_json::to_string(&loader.state()).expect("JSON")).expect("JSON")
}

/// So many batches of several ranks, put together as the global batches.
fn together(
    builder: &LoaderBuilder,
    state: &LoaderState,
    world: usize,
    threads: usize,
    batches: usize,
) -> Vec<Vec<Loaded>> {
    let rank = |rank| {
        let builder = builder.clone().distributed(rank, world).threads(threads).resume(state.clone());
        take(&mut builder.build().expect("a loader"), batches)
    };
    let ranks: Vec<Vec<Vec<Loaded>>> = (0..world).map(rank).collect();
    let batch = |number: usize| {
        let records: usize = ranks.iter().map(|rank| rank[number].len()).sum();
        (0..records).map(|at| ranks[at % world][number][at / world].clone()).collect()
    };
    (0..batches).map(batch).collect()
}

/// The first records that a loader of one dataset alone gives, epoch after epoch.
fn alone(dataset: &Arc<Dataset>, seed: u64, shuffle: bool, count: usize) -> Vec<Loaded> {
    let builder = with_settings(Loader::builder(dataset)).seed(seed).shuffle(shuffle).batch_size(1);
    let mut loader = builder.build().expect("a loader");
    take(&mut loader, count).concat()
}

/// The records of one dataset among batches, numbered as in a loader of it alone.
fn of_dataset(batches: &[Vec<Loaded>], source: usize) -> Vec<Loaded> {
    let own = batches.iter().flatten().filter(|record| usize::from(record.0) == source);
    own.map(|(_, row, pixels, ids)| (0, *row, pixels.clone(), ids.clone())).collect()
}

fn any_weights() -> impl Strategy<Value = Weights> {
    prop_oneof![
        (0.5..8.0).prop_map(Weights::Temperature),
        proptest::collection::vec(0.5..2.0, 4).prop_map(Weights::Shares)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Ranks, threads and resumption do not change a mixture; its shares are exact; each dataset keeps its own order, also
    /// when the weights change at a checkpoint.
    #[test]
    fn a_mixture_is_the_same_for_any_ranks_threads_and_resumption(
        first in 0..3_usize,
        count in 2..=4_usize,
        weights in [any_weights(), any_weights()],
        length in prop_oneof![Just(EpochLength::Sum), Just(EpochLength::Once(1)), (40..90_u64).prop_map(EpochLength::Records)],
        batch_size in 1..24_usize,
        seed in any::<u64>(),
        worlds in [1..5_usize, 1..5_usize],
        threads in 1..5_usize,
        drop_last in any::<bool>(),
        shuffle in any::<bool>(),
        stops in [0..9_usize, 0..9_usize],
    ) {
        let datasets: Vec<Arc<Dataset>> = datasets().into_iter().cycle().skip(first).take(count).collect();
        // An epoch of one dataset may be shorter than a batch.
        let drop_last = drop_last && !matches!(length, EpochLength::Once(_));
        let sizes: Vec<f64> = datasets.iter().map(|dataset| dataset.len() as f64).collect();
        let weights = weights.map(|weights| match weights {
            Weights::Shares(shares) => Weights::Shares(shares[..count].to_vec()),
            by_records @ Weights::Temperature(_) => by_records,
        });
        let builders = weights.each_ref().map(|weights| {
            mixture(&datasets, weights, length).batch_size(batch_size).seed(seed).drop_last(drop_last).shuffle(shuffle)
        });
        let mut undisturbed = builders[0].clone().threads(1).build().expect("a loader");
        let (batches, epoch_records) = (undisturbed.batches() as usize, undisturbed.records());
        let expected = take(&mut undisturbed, 2 * batches);

        // An epoch has each dataset's share to within one record.
        let raw: Vec<f64> = match &weights[0] {
            Weights::Shares(shares) => shares.clone(),
            Weights::Temperature(temperature) => sizes.iter().map(|size| size.powf(1.0 / temperature)).collect(),
        };
        let sum: f64 = raw.iter().sum();
        for epoch in expected.chunks(batches) {
            let records: usize = epoch.iter().map(Vec::len).sum();
            prop_assert_eq!(records, epoch_records);
            for (source, weight) in raw.iter().enumerate() {
                let found = of_dataset(epoch, source).len() as f64;
                let share = weight / sum * records as f64;
                prop_assert!((found - share).abs() < 1.0, "dataset {}: {} of {}, its share is {}", source, found, records, share);
            }
            if let (EpochLength::Once(part), false) = (length, drop_last) {
                let rows: BTreeSet<u32> = of_dataset(epoch, part).iter().map(|record| record.1).collect();
                prop_assert_eq!((rows.len(), of_dataset(epoch, part).len()), (datasets[part].len(), rows.len()));
            }
        }

        // Each dataset's records are those of a loader of it alone, pixel by pixel; no record comes twice before all came.
        for (source, dataset) in datasets.iter().enumerate() {
            let own = of_dataset(&expected, source);
            prop_assert_eq!(&own, &alone(dataset, seed, shuffle, own.len()));
            for pass in own.chunks(dataset.len()) {
                let rows: BTreeSet<u32> = pass.iter().map(|record| record.1).collect();
                prop_assert_eq!(rows.len(), pass.len());
            }
        }

        let worlds = worlds.map(|world| world.min(batch_size));
        let start = LoaderState::default();
        prop_assert_eq!(&together(&builders[0], &start, worlds[0], threads, batches), &expected[..batches]);

        // Stopped twice, in mid-epoch, and continued with other ranks and threads.
        let stop = stops[0].min(batches);
        let mut one = builders[0].clone().threads(threads).build().expect("a loader");
        take(&mut one, stop);
        let middle = saved(&one);
        let again = stops[1].min(2 * batches - stop);
        prop_assert_eq!(
            &together(&builders[0], &middle, worlds[1], 1, again)[..], &expected[stop..stop + again]
        );
        let mut two = builders[0].clone().distributed(0, worlds[1]).threads(threads).resume(middle.clone()).build().expect("a loader");
        take(&mut two, again);
        let rest = 2 * batches - stop - again;
        prop_assert_eq!(&together(&builders[0], &saved(&two), worlds[0], 1, rest)[..], &expected[stop + again..]);

        // Other weights from a checkpoint on: each dataset continues where it was, twice.
        let mut other = builders[1].clone().threads(threads).resume(middle.clone()).build().expect("a loader");
        let changed = take(&mut other, 6);
        let both = [&expected[..stop], &changed[..]].concat();
        for (source, dataset) in datasets.iter().enumerate() {
            let own = of_dataset(&both, source);
            prop_assert_eq!(&own, &alone(dataset, seed, shuffle, own.len()));
        }
        let mut interrupted = builders[1].clone().threads(1).resume(middle).build().expect("a loader");
        take(&mut interrupted, 3);
        prop_assert_eq!(&together(&builders[1], &saved(&interrupted), worlds[1], threads, 3)[..], &changed[3..]);
    }
}

#[test]
fn records_of_one_batch_come_from_datasets_with_other_findings_encodings_and_without_reports() {
    let datasets = datasets();
    let mut loader =
        mixture(&datasets, &Weights::default(), EpochLength::Sum).batch_size(80).build().expect("a loader");
    assert_eq!(loader.findings(), ["A", "B", "C", "D"]);
    let batch = loader.next_batch().expect("a batch");
    let findings = loader.findings().to_vec();
    assert_eq!(batch.labels().len(), batch.len() * findings.len());
    let mut with_report = Vec::new();
    for (at, (&source, &row)) in batch.sources().iter().zip(batch.rows()).enumerate() {
        let dataset = &datasets[usize::from(source)];
        let record = dataset.record(row as usize).expect("a record");
        for (finding, &value) in findings.iter().zip(&batch.labels()[at * 4..at * 4 + 4]) {
            let column = dataset.findings().iter().position(|name| name == finding);
            assert_eq!(Label::from_tensor_value(value), column.and_then(|column| record.labels[column]), "{finding}");
        }
        if record.token_ids.len() > 1 {
            with_report.push(at);
        }
    }
    assert_eq!(batch.with_report(), with_report);
    assert!(with_report.len() == 63 && batch.len() == 80, "17 without a report");
}

#[test]
fn a_state_of_a_mixture_is_small_and_checked() {
    let datasets = datasets();
    let builder = mixture(&datasets[..2], &Weights::Shares(vec![7.0, 3.0]), EpochLength::Sum).batch_size(8);
    let mut loader = builder.clone().build().expect("a loader");
    take(&mut loader, 10);
    let state = loader.state();
    assert_eq!((state.epoch, state.batch, state.drawn.iter().sum::<u64>()), (1, 4, 80));
    assert!(serde_json::to_string(&state).expect("JSON").len() < 100);
    let refused =
        |builder: LoaderBuilder, state: LoaderState| builder.resume(state).build().err().expect("refused").to_string();
    let alone = with_settings(Loader::builder(&datasets[0])).batch_size(8);
    assert!(refused(alone.clone(), LoaderState { order: 0, ..state.clone() }).contains("that of a mixture"));
    assert!(refused(alone, state.clone()).contains("belongs to other records"));
    assert!(refused(builder.clone().seed(1), state.clone()).contains("belongs to other records"));
    let short = LoaderState { drawn: vec![3], ..state.clone() };
    assert!(refused(builder.clone(), short).contains("counts the records of 1 datasets"));
    let huge = LoaderState { drawn: vec![u64::MAX, 0], ..state.clone() };
    assert!(refused(builder.clone(), huge).contains("counts the records"));
    let most = LoaderState { drawn: vec![1 << 60, 0], ..state.clone() };
    assert!(builder.clone().resume(most).build().is_ok());
    // A shorter epoch by other weights: what is left of it is over.
    let shorter = mixture(&datasets[..2], &Weights::default(), EpochLength::Records(16)).batch_size(8);
    let loader = shorter.resume(state.clone()).build().expect("a loader");
    assert_eq!(loader.state(), LoaderState { epoch: 2, batch: 0, ..state });
    let misplaced = builder.rows(vec![0]).build().err().expect("refused").to_string();
    assert!(misplaced.contains("rows are chosen for each dataset"), "{misplaced}");
}

/// A dataset that occurs twice in a mixture has another order and another augmentation the second time.
#[test]
fn a_dataset_given_twice_is_not_loaded_twice_alike() {
    let dataset = datasets().remove(0);
    let twice = [dataset.clone(), dataset];
    let mut loader = mixture(&twice, &Weights::default(), EpochLength::Sum).batch_size(62).build().expect("a loader");
    let batches = take(&mut loader, 1);
    let [first, second] = [0, 1].map(|source| of_dataset(&batches, source));
    let rows = |records: &[Loaded]| records.iter().map(|record| record.1).collect::<Vec<_>>();
    assert_ne!(rows(&first), rows(&second));
    let same = first.iter().filter(|record| second.contains(record)).count();
    assert_eq!(same, 0);
}

#[test]
fn an_unreadable_record_names_its_dataset() {
    let folder = folder();
    let path = |number: usize| folder.path().join(["first", "second"][number]);
    for number in 0..2 {
        write_dataset(&path(number), MADE[0].1, MADE[0].3, &made(0));
    }
    let shard = path(1).join("shards/part-00000.parquet");
    let pixels = &made(0)[0][3].image;
    let bytes = std::fs::read(&shard).expect("a shard");
    let at = bytes.windows(pixels.len()).position(|window| window == pixels).expect("stored as it is");
    flip_bit(&shard, at, 1);
    let datasets = [0, 1].map(|number| Arc::new(Dataset::open(path(number)).expect("a dataset")));
    let builder = mixture(&datasets, &Weights::default(), EpochLength::Sum).batch_size(62);
    let error = builder.clone().build().expect("a loader").next_batch().err().expect("refused").to_string();
    assert!(error.starts_with(&format!("{}: shards/part-00000.parquet, row 3", path(1).display())), "{error}");
    let mut skipping = builder.on_error(OnError::Skip).build().expect("a loader");
    let batch = skipping.next_batch().expect("a batch");
    assert_eq!((batch.len(), batch.skipped().len(), batch.sources().len()), (61, 1, 61));
}

/// Two synthetic datasets with reports and tokenizers of their own.
fn two_tokenizers(folder: &Path) -> [PathBuf; 2] {
    ["mimic-cxr", "openi"].map(|source| {
        let raw = phantom_of(source, folder, 24);
        let out = folder.join(format!("{source}-set"));
        ingest(source, &raw, &out, &[]);
        out
    })
}

#[test]
fn reports_of_another_tokenizer_are_tokenized_again() {
    const TOKENS: usize = 40;
    let folder = folder();
    let paths = two_tokenizers(folder.path());
    let datasets = paths.each_ref().map(|path| Arc::new(Dataset::open(path).expect("a dataset")));
    let [own, other] =
        datasets.each_ref().map(|dataset| ReportTokenizer::of(dataset).expect("readable").expect("a tokenizer"));
    assert_ne!(own.sha256(), other.sha256());
    let shared = folder.path().join("shared.json");
    let train = |paths: &[&PathBuf], out: &Path| {
        let mut words = args!["tokenizer", "--out", out, "--vocabulary", "400"].to_vec();
        words.extend(paths.iter().map(|path| path.as_os_str().to_owned()));
        ok("ingest", words)
    };
    let message = train(&[&paths[0], &paths[1]], &shared);
    assert!(message.contains("400 pieces") && message.contains("of 2 datasets"), "{message}");
    let reversed = folder.path().join("reversed.json");
    train(&[&paths[1], &paths[0]], &reversed);
    assert_eq!(std::fs::read(&shared).expect("written"), std::fs::read(&reversed).expect("written"));
    // Of one dataset it is the one that `ingest` trained.
    let again = folder.path().join("again.json");
    train(&[&paths[0]], &again);
    assert_eq!(std::fs::read(&again).expect("written"), std::fs::read(paths[0].join("tokenizer.json")).expect("there"));
    let refused = fails("ingest", 2, args!["tokenizer", &paths[0], "--out", &again]);
    assert!(refused.contains("again.json exists"), "{refused}");

    let given = Arc::new(ReportTokenizer::load(&shared).expect("a tokenizer"));
    let cases = [(None, own, vec![1]), (Some(given.clone()), given.as_ref().clone(), vec![0, 1])];
    for (option, expected, tokenized) in cases {
        let parts = datasets.iter().map(MixturePart::new).collect();
        let mut builder = Loader::mixture(parts, Weights::default(), EpochLength::Sum)
            .transform(Transform::evaluate(16))
            .text(TextOptions { tokens: TOKENS, mask_ratio: 0.5 })
            .batch_size(16);
        if let Some(tokenizer) = option {
            builder = builder.tokenizer(tokenizer);
        }
        let loader = builder.build().expect("a loader");
        assert_eq!(loader.tokenized(), tokenized);
        let mut reports = [0, 0];
        for batch in loader {
            let batch = batch.expect("a batch");
            for (at, (&source, &row)) in batch.sources().iter().zip(batch.rows()).enumerate() {
                let record = datasets[usize::from(source)].record(row as usize).expect("a record");
                let report = record.report.unwrap_or_default();
                let mut ids: Vec<i64> = Vec::new();
                if !report.is_empty() {
                    ids.extend(expected.token_ids(&report, TOKENS).expect("encoded").iter().map(|&id| i64::from(id)));
                    reports[usize::from(source)] += 1;
                }
                ids.resize(TOKENS, 0);
                assert_eq!(batch.target_ids()[at * TOKENS..(at + 1) * TOKENS], ids);
            }
        }
        assert!(reports.iter().all(|&count| count > 10), "{reports:?}");
    }
}

#[test]
fn bench_measures_mixtures_and_refuses_impossible_ones() {
    let folder = folder();
    let paths = [0, 2].map(|number| {
        let path = folder.path().join(format!("set-{number}"));
        write_dataset(&path, MADE[number].1, MADE[number].3, &made(number));
        path
    });
    let weighted = |weights: [&str; 2]| [0, 1].map(|at| format!("{}{}", paths[at].display(), weights[at]));
    let run = |data: [String; 2], more: &[&str]| {
        let mut words = args!["bench", "--size", "16", "--batch-size", "20", "--seconds", "0.3"].to_vec();
        words.extend(data.iter().map(Into::into));
        words.extend(more.iter().map(Into::into));
        words
    };
    let message = ok("dataset", run(weighted(["=0.75", "=0.25"]), &["--epoch-records", "200"]));
    let share = |at: usize| {
        let line = message.lines().find(|line| line.ends_with(&paths[at].display().to_string())).expect("a line");
        line.split('%').next().and_then(|share| share.parse::<f64>().ok()).expect("a share")
    };
    assert!((share(0) - 75.0).abs() < 10.0 && (share(0) + share(1) - 100.0).abs() < 0.11, "{message}");
    for (data, more, code, words) in [
        (["=1", ""], &[][..], 2, "give a weight for each dataset"),
        (["=1", "=0"], &[], 2, "with a weight above 0"),
        (["", ""], &["--epoch-of", "elsewhere"], 2, "not one of the datasets"),
        (["", ""], &["--transform", "none"], 2, "reads the images of one dataset"),
        (["=1", "=1e-9"], &[], 1, "dataset 2 of the mixture would get no record"),
        (["", ""], &["--tokenizer", "missing.json"], 1, "missing.json"),
    ] {
        let message = fails("dataset", code, run(weighted(data), more));
        assert!(message.contains(words), "{message}");
    }
}
