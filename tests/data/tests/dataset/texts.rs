//! Several texts of a sample against the columns of its record, weights of tokens, and datasets with reports alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dataset::format::record::Record;
use dataset::loader::masking::{CLS, MASK, PAD};
use dataset::loader::{
    EpochLength, LoaderBuilder, MixturePart, StudyOptions, TextOptions, TextSource, TokenWeights, Weights,
};
use dataset::tokenizer::ReportTokenizer;
use dataset::transform::Transform;
use dataset::{Batch, Dataset, Loader};
use helpers::{folder, ingest, phantom_of, tests_folder};

/// Synthetic datasets with reports and tokenizers of their own; the third has no images.
fn paths() -> &'static [PathBuf; 3] {
    static SHARED: OnceLock<(tempfile::TempDir, [PathBuf; 3])> = OnceLock::new();
    let (_, paths) = SHARED.get_or_init(|| {
        let folder = folder();
        let made = |source: &str, name: &str, more: &[&str]| {
            let out = folder.path().join(name);
            let raw = folder.path().join(source);
            let raw = if raw.exists() { raw } else { phantom_of(source, folder.path(), 24) };
            ingest(source, &raw, &out, more);
            out
        };
        let paths =
            [made("mimic-cxr", "images", &[]), made("openi", "both", &[]), made("openi", "reports", &["--no-images"])];
        (folder, paths)
    });
    paths
}

fn open(path: &Path) -> Arc<Dataset> {
    Arc::new(Dataset::open(path).expect("a dataset"))
}

fn options(tokens: usize, mask_ratio: f64) -> TextOptions {
    TextOptions { tokens, mask_ratio }
}

fn section(name: &str) -> TextSource {
    TextSource::Section(name.to_owned())
}

/// Token ids as a row of a batch has them: cut, and padded.
fn padded(ids: &[i32], tokens: usize) -> Vec<i64> {
    let mut row: Vec<i64> = ids.iter().take(tokens).map(|&id| i64::from(id)).collect();
    row.resize(tokens, PAD);
    row
}

/// The last section of a name; empty where there is none.
fn stored_ids(record: &Record, name: &str) -> Vec<i32> {
    record.texts.iter().rfind(|text| text.name == name).map(|text| text.token_ids.clone()).unwrap_or_default()
}

/// The rows of a text: before masking, after masking, attention.
fn rows(batch: &Batch, number: usize, at: usize) -> [Vec<i64>; 3] {
    let text = batch.text(number).expect("a text");
    let of = |ids: &[i64]| {
        assert_eq!(ids.len(), batch.len() * text.tokens);
        ids[at * text.tokens..(at + 1) * text.tokens].to_vec()
    };
    [of(text.target_ids), of(text.token_ids), of(text.attention_mask)]
}

/// All texts of some batches, to compare.
fn all(loader: &mut Loader, batches: u64) -> Vec<Vec<[Vec<i64>; 3]>> {
    let of = |batch: Batch| {
        (0..batch.len())
            .flat_map(|at| (0..batch.texts()).map(move |number| (number, at)))
            .map(|(number, at)| rows(&batch, number, at))
            .collect()
    };
    (0..batches).map(|_| of(loader.next_batch().expect("a batch"))).collect()
}

/// Sentences by another rule that gives the same for synthetic reports: cut after a point and at blank lines, numbers of items
/// with what follows.
fn naive_sentences(report: &str) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    let mut open = String::new();
    for line in report.trim().lines() {
        let is_blank = line.trim().is_empty();
        for word in line.split_whitespace().chain(is_blank.then_some("")) {
            open = if open.is_empty() || is_blank { format!("{open}{word}") } else { format!("{open} {word}") };
            if (is_blank || word.ends_with(['.', '?', '!'])) && open.chars().any(char::is_alphabetic) {
                sentences.push(std::mem::take(&mut open));
            }
        }
    }
    sentences.extend((!open.is_empty()).then_some(open));
    sentences
}

#[test]
fn texts_are_those_of_the_columns_each_with_its_own_length_and_masks() {
    let dataset = open(&paths()[0]);
    let tokenizer = ReportTokenizer::of(&dataset).expect("readable").expect("a tokenizer");
    let builder = Loader::builder(&dataset).transform(Transform::evaluate(8)).batch_size(10).seed(3);
    let texts = vec![
        (TextSource::Report, options(24, 0.5)),
        (section("findings"), options(16, 0.0)),
        (section("impression"), options(12, 0.4)),
        (TextSource::Sentences(2), options(48, 0.0)),
        (TextSource::Sentences(1), options(48, 1.0)),
        (section("no such section"), options(5, 0.5)),
    ];
    let mut loader = builder.clone().texts(texts.clone()).build().expect("a loader");
    let mut alone = builder.clone().text(options(24, 0.5)).build().expect("a loader");
    let (mut found, mut drawn, mut masked) = ([0; 2], BTreeMap::<u32, BTreeSet<Vec<i64>>>::new(), [0; 2]);
    for _ in 0..4 * loader.batches() {
        let (batch, one) = (loader.next_batch().expect("a batch"), alone.next_batch().expect("a batch"));
        assert_eq!((batch.texts(), one.texts(), batch.rows()), (6, 1, one.rows()));
        // The first text is the only one of a loader with one.
        assert_eq!(
            (batch.token_ids(), batch.target_ids(), batch.attention_mask(), batch.with_report()),
            (one.token_ids(), one.target_ids(), one.attention_mask(), one.with_report())
        );
        assert!(batch.token_weights().is_empty());
        for at in 0..batch.len() {
            let record = dataset.record(batch.rows()[at] as usize).expect("a record");
            for (number, name) in [(1, "findings"), (2, "impression")] {
                let ids = stored_ids(&record, name);
                let [target, seen, attention] = rows(&batch, number, at);
                assert_eq!(target, padded(&ids, texts[number].1.tokens), "{name}");
                assert!(attention.iter().zip(&target).all(|(&attended, &id)| attended == i64::from(id != PAD)));
                let differing = seen.iter().zip(&target).filter(|(seen, target)| seen != target);
                let differing: Vec<_> = differing.collect();
                assert!(differing.iter().all(|(seen, _)| **seen == MASK) && (number == 2 || differing.is_empty()));
                masked[0] += differing.len() * usize::from(number == 2);
                masked[1] += target.iter().filter(|id| **id > MASK).count() * usize::from(number == 2);
                found[number - 1] += usize::from(!ids.is_empty());
            }
            let sentences = naive_sentences(record.report.as_deref().unwrap_or_default());
            let [target, seen, _] = rows(&batch, 3, at);
            assert_eq!(target, seen);
            let candidates =
                (0..sentences.len()).flat_map(|first| (first + 1..sentences.len()).map(move |second| [first, second]));
            let joined = |[first, second]: [usize; 2]| format!("{} {}", sentences[first], sentences[second]);
            let whole = sentences.first().cloned().filter(|_| sentences.len() == 1);
            let mut texts = candidates.map(joined).chain(whole);
            let is_one = texts.any(|text| padded(&tokenizer.token_ids(&text, 48).expect("ids"), 48) == target);
            assert!(is_one || sentences.is_empty(), "{sentences:?}");
            drawn.entry(batch.rows()[at]).or_default().insert(target);
            // Everything but the ends is masked.
            let [target, seen, _] = rows(&batch, 4, at);
            let length = target.iter().filter(|id| **id != PAD).count();
            assert_eq!(target[0], if sentences.is_empty() { PAD } else { CLS });
            assert!((1..length.min(47)).all(|position| seen[position] == MASK), "{seen:?}");
            let [target, seen, attention] = rows(&batch, 5, at);
            assert_eq!([target, seen, attention], [vec![PAD; 5], vec![PAD; 5], vec![0; 5]]);
        }
    }
    assert!(found.iter().all(|count| *count > 40), "{found:?}");
    assert!(drawn.values().filter(|texts| texts.len() > 1).count() > dataset.len() / 2, "others in each epoch");
    let share = masked[0] as f64 / masked[1] as f64;
    assert!((0.3..0.5).contains(&share), "{share}");

    // Any number of threads.
    let expected = all(&mut builder.clone().texts(texts.clone()).threads(1).build().expect("a loader"), 8);
    for threads in [2, 5] {
        let mut many = builder.clone().texts(texts.clone()).threads(threads).build().expect("a loader");
        assert!(all(&mut many, 8) == expected, "{threads} threads");
    }
}

#[test]
fn sections_of_another_tokenizer_or_an_old_dataset_are_tokenized_when_they_are_loaded() {
    let datasets = [open(&paths()[0]), open(&paths()[1])];
    let tokenizer = ReportTokenizer::of(&datasets[0]).expect("readable").expect("a tokenizer");
    let texts = vec![(section("findings"), options(20, 0.0)), (TextSource::Report, options(30, 0.3))];
    let parts = datasets.iter().map(MixturePart::new).collect();
    let builder =
        Loader::mixture(parts, Weights::default(), EpochLength::Sum).transform(Transform::evaluate(8)).texts(texts);
    let mut loader = builder.batch_size(16).build().expect("a loader");
    assert_eq!(loader.tokenized(), [1]);
    let mut found = [0; 2];
    for _ in 0..loader.batches() {
        let batch = loader.next_batch().expect("a batch");
        for (at, (&source, &row)) in batch.sources().iter().zip(batch.rows()).enumerate() {
            let record = datasets[usize::from(source)].record(row as usize).expect("a record");
            let text = record.texts.iter().rfind(|text| text.name == "findings").map(|text| text.text.as_str());
            let ids = text.map_or_else(Vec::new, |text| tokenizer.token_ids(text, 30).expect("ids"));
            assert_eq!(rows(&batch, 0, at)[0], padded(&ids, 20));
            found[usize::from(source)] += usize::from(!ids.is_empty());
        }
    }
    assert!(found.iter().all(|count| *count > 10), "{found:?}");

    // Version 1 has no column `texts`, but the columns `findings` and `impression`.
    let old = open(&tests_folder().join("corpus/formats/version-1"));
    let tokenizer = ReportTokenizer::of(&old).expect("readable").expect("a tokenizer");
    let builder = Loader::builder(&old).transform(Transform::evaluate(8)).shuffle(false).batch_size(30);
    let mut loader = builder.texts(vec![(section("impression"), options(20, 0.0))]).build().expect("a loader");
    let batch = loader.next_batch().expect("a batch");
    let mut found = 0;
    for at in 0..batch.len() {
        let impression = old.record(at).expect("a record").impression.unwrap_or_default();
        let ids = if impression.is_empty() { Vec::new() } else { tokenizer.token_ids(&impression, 20).expect("ids") };
        assert_eq!(rows(&batch, 0, at)[0], padded(&ids, 20));
        found += usize::from(!ids.is_empty());
    }
    assert!(found > 10, "{found}");
}

#[test]
fn tokens_have_the_weights_of_a_table_and_wrong_tables_are_refused() {
    let dataset = open(&paths()[0]);
    let pieces = ReportTokenizer::of(&dataset).expect("readable").expect("a tokenizer").pieces();
    let weights: BTreeMap<String, f32> =
        (0..pieces.len()).step_by(3).map(|id| (pieces[id].clone(), id as f32 / 8.0)).collect();
    let file = folder();
    let path = file.path().join("weights.json");
    std::fs::write(&path, serde_json::to_string(&weights).expect("JSON")).expect("written");
    let table = TokenWeights::load(&path).expect("a table");
    assert_eq!(table, TokenWeights::new(weights.clone()).expect("a table"));
    let builder = Loader::builder(&dataset).transform(Transform::evaluate(8)).batch_size(20);
    let with = |texts: Vec<(TextSource, TextOptions)>| builder.clone().texts(texts).token_weights(table.clone());
    let texts = vec![(TextSource::Report, options(40, 0.5)), (TextSource::Sentences(2), options(10, 0.5))];
    let batch = with(texts).build().expect("a loader").next_batch().expect("a batch");
    let mut weighted = 0;
    for number in 0..2 {
        let text = batch.text(number).expect("a text");
        assert_eq!(text.token_weights.len(), batch.len() * text.tokens);
        for (&weight, &id) in text.token_weights.iter().zip(text.target_ids) {
            let expected = weights.get(&pieces[id as usize]).copied().unwrap_or(1.0);
            assert_eq!(weight, if id == PAD { 0.0 } else { expected });
            weighted += usize::from(weight != 1.0 && weight != 0.0);
        }
    }
    assert!(weighted > 100, "{weighted}");
    assert_eq!(batch.token_weights(), batch.text(0).expect("a text").token_weights);

    let refused = |builder: LoaderBuilder| builder.build().err().expect("refused").to_string();
    let unknown = TokenWeights::new([("no-such-piece".to_owned(), 2.0)]).expect("a table");
    let message = refused(builder.clone().text(options(8, 0.5)).token_weights(unknown));
    assert!(message.contains("`no-such-piece` is no token of the tokenizer"), "{message}");
    assert!(refused(with(Vec::new())).contains("texts, which are not loaded"));
    assert!(refused(with(vec![(section("Findings"), options(8, 0.5))])).contains("a name in lower case"));
    assert!(refused(with(vec![(TextSource::Sentences(0), options(8, 0.5))])).contains("at least 1"));
    for (text, words) in
        [("{\"a\": -1}", "`a` has the weight -1"), ("{\"a\": true}", "weights.json"), ("[1]", "weights.json")]
    {
        std::fs::write(&path, text).expect("written");
        let message = TokenWeights::load(&path).expect_err("refused").to_string();
        assert!(message.contains(words) && message.contains("weights.json"), "{message}");
    }
}

#[test]
fn reports_without_images_join_a_mixture() {
    let datasets = [open(&paths()[0]), open(&paths()[2])];
    let mixture = |numbers: &[usize]| {
        let parts = numbers.iter().map(|&number| MixturePart::new(&datasets[number])).collect();
        Loader::mixture(parts, Weights::default(), EpochLength::Sum).transform(Transform::pretrain(8)).batch_size(9)
    };
    let tokenizer = ReportTokenizer::of(&datasets[0]).expect("readable").expect("a tokenizer");
    for studies in [None, Some(StudyOptions::default())] {
        let mut builder = mixture(&[0, 1]).text(options(30, 0.4)).masks(true).boxes(true);
        if let Some(studies) = studies {
            builder = builder.studies(studies);
        }
        let mut loader = builder.clone().threads(3).build().expect("a loader");
        assert_eq!(loader.without_images(), [1]);
        let images = studies.map_or(1, |studies| studies.slots()) * 64;
        let (mut of_text, mut reports) = (0, 0);
        // Twice, since memory is used again.
        for _ in 0..2 * loader.batches() {
            let batch = loader.next_batch().expect("a batch");
            for (at, &source) in batch.sources().iter().enumerate() {
                let pixels = &batch.images()[at * images..(at + 1) * images];
                assert_eq!(batch.has_image()[at], u8::from(source == 0));
                assert_eq!(pixels.iter().any(|pixel| *pixel != 0.0), source == 0);
                if source == 1 {
                    assert!(batch.masks()[at * images..(at + 1) * images].iter().all(|class| *class == 255));
                    let record = datasets[1].record(batch.rows()[at] as usize).expect("a record");
                    let report = record.report.unwrap_or_default();
                    let ids =
                        if report.is_empty() { Vec::new() } else { tokenizer.token_ids(&report, 30).expect("ids") };
                    assert_eq!(rows(&batch, 0, at)[0], padded(&ids, 30));
                    (of_text, reports) = (of_text + 1, reports + usize::from(!ids.is_empty()));
                }
            }
        }
        assert!(of_text > 40 && reports > 30, "{of_text}, {reports}");
    }
    let refused = |builder: LoaderBuilder| builder.build().err().expect("refused").to_string();
    let message = refused(mixture(&[0, 1]));
    assert!(
        message.contains("reports: ") && message.contains("--no-images") && message.contains("load reports, too"),
        "{message}"
    );
    assert!(refused(mixture(&[1]).text(options(8, 0.5))).contains("these datasets have no images"));
    assert!(refused(Loader::builder(&datasets[1]).text(options(8, 0.5))).contains("this dataset has no images"));
}
