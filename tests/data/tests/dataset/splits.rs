//! `dataset split`: its guarantees for any dataset, on the real tables, with the published lists; and a
//! split that was changed by hand.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dataset::random::Stream;
use dataset::split::certificate::Certificate;
use dataset::split::index_table::{Entry, IndexTable};
use dataset::split::published_lists::Overlap;
use dataset::split::warnings::{NEAREST_POSITIVES, PREVALENCE_BOUND, SplitWarning};
use dataset::split::{Member, SplitOptions, Unit, certificate_path, draw};
use dataset::{Dataset, Ratio, Split, Storage, Subset};
use helpers::splits::{certificate, refused_changes, write_large_patients};
use helpers::{args, contents, fails, folder, ingest, ok, phantom, phantom_of, read_text, real_data};
use proptest::prelude::*;

const FINDINGS: usize = 4;

/// One image of a made-up dataset: patient, study of the patient, positives by finding.
#[derive(Clone, Debug)]
struct Image {
    patient: usize,
    study: usize,
    positives: [bool; FINDINGS],
}

/// Patients with up to six images; the findings go from frequent to rare.
fn images() -> impl Strategy<Value = Vec<Image>> {
    let rates = [0.5, 0.2, 0.05, 0.01];
    let positives = rates.map(proptest::bool::weighted);
    let image = (0..3_usize, positives);
    let patients = proptest::collection::vec(proptest::collection::vec(image, 1..=6), 1..120);
    patients.prop_map(|patients| {
        let of_patient = |(patient, images): (usize, Vec<(usize, [bool; FINDINGS])>)| {
            images.into_iter().map(move |(study, positives)| Image { patient, study, positives })
        };
        patients.into_iter().enumerate().flat_map(of_patient).collect()
    })
}

/// Splits made-up images in some order of rows; returns the members in the order of identifiers.
fn split(images: &[Image], order: &[usize], options: &SplitOptions) -> (Vec<Member>, Certificate) {
    let texts: Vec<[String; 3]> = (order.iter())
        .map(|&at| [format!("made/{at:04}"), format!("p{}", images[at].patient), format!("study {}", images[at].study)])
        .collect();
    let entries = order.iter().zip(&texts).map(|(&at, [record, patient, study])| Entry {
        record,
        patient,
        study,
        positives: (0..FINDINGS).filter(|&finding| images[at].positives[finding]).collect(),
        labeled: true,
    });
    let index_table = IndexTable::new(FINDINGS, entries.collect());
    let findings: Vec<String> = (0..FINDINGS).map(|finding| format!("finding {finding}")).collect();
    let (split, certificate) = draw::draw(&index_table, &findings, Vec::new(), "main", options).expect("a split");
    let mut members = split.members;
    members.sort_by(|a, b| a.record_id.cmp(&b.record_id));
    (members, certificate)
}

/// Number of the group that an image must stay with.
fn group(images: &[Image], at: usize, unit: Unit) -> (usize, usize) {
    match unit {
        Unit::Patient => (images[at].patient, 0),
        Unit::Study => (images[at].patient, images[at].study),
        Unit::Image => (at, 0),
    }
}

/// A ratio in percent.
fn percent(number: f64) -> Ratio {
    Ratio::from_percent(number).expect("a ratio")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_split_holds_what_its_certificate_states(
        images in images(),
        ratios in proptest::collection::btree_set(1..=400_u32, 1..5),
        unit in prop_oneof![Just(Unit::Patient), Just(Unit::Study), Just(Unit::Image)],
        seed in any::<u64>(),
    ) {
        let ratios: Vec<Ratio> = ratios.into_iter().map(|quarters| percent(f64::from(quarters) / 4.0)).collect();
        let options = SplitOptions { ratios: ratios.clone(), unit, seed, ..SplitOptions::default() };
        let straight: Vec<usize> = (0..images.len()).collect();
        let (members, certificate) = split(&images, &straight, &options);

        // Every record is there once; a record without a ratio is not in train or beyond the largest ratio.
        prop_assert_eq!(members.len(), images.len());
        let held = |subset| members.iter().filter(|member| member.subset == Some(subset)).count() as u64;
        for (part, subset) in certificate.parts.iter().zip(Subset::ALL) {
            prop_assert_eq!((part.name.as_str(), part.records), (subset.name(), held(subset)));
        }
        prop_assert_eq!(Subset::ALL.map(held).iter().sum::<u64>(), images.len() as u64);
        for member in &members {
            let in_train = member.subset == Some(Subset::Train);
            prop_assert!(member.ratio.is_none_or(|ratio| in_train && ratios.contains(&ratio)));
            prop_assert!(member.ratio.is_some() || !in_train || ratios.last() < Some(&Ratio::ALL));
            prop_assert!(member.ratios.is_none());
        }

        // Sets nest.
        let set = |ratio: Ratio| -> BTreeSet<usize> { straight.iter().copied().filter(|&at| members[at].is_at(ratio)).collect() };
        for two in ratios.windows(2) {
            prop_assert!(set(two[0]).is_subset(&set(two[1])));
        }

        // No group in two subsets, none torn by a ratio.
        let mut place_of = HashMap::new();
        for (at, member) in members.iter().enumerate() {
            let place = (member.subset, member.ratio);
            prop_assert_eq!(*place_of.entry(group(&images, at, unit)).or_insert(place), place);
        }
        if unit == Unit::Patient {
            prop_assert_eq!((certificate.shared_patients, certificate.torn_patients), (0, 0));
        }

        // Rare findings stay: the set of each ratio has every finding of train, and each subset every finding of three groups.
        let positive = |inside: &dyn Fn(&Member) -> bool, finding: usize| {
            straight.iter().any(|&at| inside(&members[at]) && images[at].positives[finding])
        };
        for finding in 0..FINDINGS {
            if positive(&|member| member.subset == Some(Subset::Train), finding) {
                for &ratio in &ratios {
                    prop_assert!(positive(&|member| member.is_at(ratio), finding), "finding {} at {}%", finding, ratio);
                }
            }
            let mut alone: HashMap<(usize, usize), bool> = HashMap::new();
            for at in 0..images.len() {
                let own = (0..FINDINGS).all(|other| images[at].positives[other] <= (other == finding));
                *alone.entry(group(&images, at, unit)).or_insert(true) &= own;
            }
            let holders: HashSet<_> = (0..images.len())
                .filter(|&at| images[at].positives[finding])
                .map(|at| group(&images, at, unit))
                .filter(|group| alone[group])
                .collect();
            if holders.len() >= 3 {
                for subset in Subset::ALL {
                    prop_assert!(positive(&|member| member.subset == Some(subset), finding), "finding {} in {:?}", finding, subset);
                }
            }
        }

        // Same seed, same split, whatever the order of rows.
        let mut shuffled = straight.clone();
        Stream::new(&[seed, 1]).shuffle(&mut shuffled);
        let (again, other) = split(&images, &shuffled, &options);
        prop_assert_eq!(&again, &members);
        prop_assert_eq!(other, certificate);
    }
}

/// If few records make the sets of two ratios equal, each ratio can still be loaded.
#[test]
fn every_ratio_has_records_in_a_small_dataset() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 8);
    let out = temporary.path().join("set");
    ok("ingest", args!["mimic-cxr", &raw, &out, "--size", "32", "--vocab-size", "400"]);
    let printed = ok("dataset", args!["split", &out, "--name", "main", "--ratios", "1,2,3,100"]);
    let dataset = Dataset::open(&out).expect("a dataset");
    let split = load(&dataset, "main");
    assert_eq!(split.ratios, [1.0, 2.0, 3.0, 100.0].map(percent));
    let rows = |ratio| split.rows(Subset::Train, Some(percent(ratio)));
    assert!(rows(1.0) == rows(2.0) && rows(2.0) == rows(3.0), "{printed}");
    assert!(split.check_ratio(percent(2.0)).is_ok() && split.check_ratio(percent(5.0)).is_err());
}

#[test]
fn the_order_of_shards_does_not_change_the_split() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 60);
    let made = |name: &str, rows: &str| {
        let out = temporary.path().join(name);
        let sizes = ["--size", "32", "--vocab-size", "400", "--rows-per-shard", rows].map(Into::into);
        ok("ingest", [args!["mimic-cxr", &raw, &out].to_vec(), sizes.to_vec()].concat());
        ok("dataset", args!["split", &out, "--name", "main", "--ratios", "5,20,50", "--seed", "3"]);
        contents(&out.join("splits"))
    };
    let (one, other) = (made("a", "7"), made("b", "1000"));
    assert_eq!(one.keys().collect::<Vec<_>>(), ["main.json", "main.parquet"]);
    assert_eq!(one, other);
}

/// A dataset of the real tables of a source, without images.
fn real_tables(temporary: &Path, source: &str, files: &[(&str, &str)]) -> Option<(PathBuf, PathBuf)> {
    let labels = real_data()?.join("labels");
    let (raw, out) = (temporary.join("raw"), temporary.join("set"));
    fs::create_dir(&raw).expect("a folder");
    for (from, to) in files {
        fs::copy(labels.join(from), raw.join(to)).expect("copied");
    }
    ok("ingest", args![source, &raw, &out, "--no-images"]);
    Some((out, labels.join("mrm-splits")))
}

/// Loads a split as the trainer does, and prints how long it took.
fn load(dataset: &Dataset, name: &str) -> Split {
    let started = Instant::now();
    let split = Split::load(dataset, name).expect("a split");
    println!("{name}: {} records loaded and measured in {:.0?}", dataset.len(), started.elapsed());
    split
}

/// The first words of a published list.
fn published(lists: &Path, name: &str) -> BTreeSet<String> {
    let text = read_text(&lists.join(format!("{name}.txt.gz")));
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Image identifiers of some rows.
fn image_ids(dataset: &Dataset, rows: &[u32]) -> BTreeSet<String> {
    let ids = dataset.texts("image_id").expect("identifiers");
    rows.iter().filter_map(|&row| ids[row as usize].clone()).collect()
}

fn overlap(one: &str, other: &str, images: u64, patients: u64) -> Overlap {
    Overlap { one: one.to_owned(), other: other.to_owned(), images, patients }
}

/// Largest difference of a prevalence between training patients drawn at random, as many as hold `wanted` records, and the
/// whole training subset.
fn random_deviation(dataset: &Dataset, split: &Split, wanted: usize, seed: u64) -> f64 {
    let index_table = IndexTable::load(dataset).expect("a index_table");
    let train = split.rows(Subset::Train, None);
    let mut of_patient: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    train.iter().for_each(|&row| of_patient.entry(index_table.patients[row as usize]).or_default().push(row as usize));
    let mut patients: Vec<Vec<usize>> = of_patient.into_values().collect();
    Stream::new(&[seed]).shuffle(&mut patients);
    let drawn: Vec<usize> = patients.into_iter().flatten().take(wanted).collect();
    let prevalence = |rows: &mut dyn Iterator<Item = usize>| {
        let (mut positives, mut count) = (vec![0.0; index_table.findings()], 0.0);
        for row in rows {
            count += 1.0;
            index_table.positives(row).iter().for_each(|&finding| positives[finding] += 1.0);
        }
        positives.into_iter().map(|positives| positives / count).collect::<Vec<f64>>()
    };
    let (few, all) = (prevalence(&mut drawn.into_iter()), prevalence(&mut train.iter().map(|&row| row as usize)));
    few.iter().zip(&all).map(|(few, all)| (few - all).abs()).fold(0.0, f64::max)
}

/// Draws a split of a real table, which must be even.
fn draws_evenly(data: &Path) -> Dataset {
    let printed = ok("dataset", args!["split", data, "--name", "main"]);
    assert!(printed.contains("patients in more than one subset: 0"), "{printed}");
    let dataset = Dataset::open(data).expect("a dataset");
    let (split, message) = (load(&dataset, "main"), certificate(data, "main"));
    assert_eq!((message.shared_patients, message.torn_patients, message.nested), (0, 0, true));
    assert!(message.warnings.is_empty() && !printed.contains("warning"), "{printed}");
    let records: Vec<u64> = message.parts.iter().map(|part| part.records).collect();
    let all = dataset.len() as f64;
    for (got, share) in records.iter().zip([0.7, 0.1, 0.2, 0.007, 0.07, 0.7]) {
        assert!((*got as f64 - share * all).abs() <= 1.0, "{records:?}");
    }
    for part in &message.parts {
        assert!(part.findings.iter().all(|count| count.positives > 0), "{part:?}");
    }
    let deviation = message.ratio_deviation.expect("findings");
    let at_random = (0..5).map(|seed| random_deviation(&dataset, &split, records[3] as usize, seed)).sum::<f64>() / 5.0;
    println!("1%: {:.5} ({}, {}); at random {at_random:.5}", deviation.value, deviation.finding, deviation.part);
    assert!(deviation.value <= at_random / 2.0);
    // Half a record, apart from rounding to whole groups.
    assert!(deviation.value < 1.0 / records[3] as f64);
    dataset
}

#[test]
fn nih_is_split_evenly_and_as_published() {
    let temporary = folder();
    let table = "Data_Entry_2017_v2020.csv.gz";
    let Some((data, lists)) = real_tables(temporary.path(), "nih", &[(table, table)]) else { return };
    let lists = lists.join("NIH_ChestX-ray");
    let dataset = draws_evenly(&data);

    ok("dataset", args!["split", &data, "--name", "published", "--lists", &lists]);
    let (split, message) = (load(&dataset, "published"), certificate(&data, "published"));
    let report = message.lists.expect("lists");
    let counts: Vec<_> =
        report.lists.iter().map(|list| (list.name.as_str(), list.lines, list.matched, list.kept)).collect();
    let all = |name, count| (name, count, count, count);
    assert_eq!(
        counts,
        [
            all("train_1", 785),
            all("train_10", 7847),
            all("train_list", 78_468),
            all("val_list", 11_219),
            all("test_list", 22_433)
        ]
    );
    assert!(report.lists.iter().all(|list| list.unmatched == 0 && list.repeated == 0));
    assert_eq!((message.shared_patients, message.outside, report.unlisted, report.overlaps.len()), (0, 0, 0, 0));
    assert!(!message.nested);
    assert_eq!(split.ratios, [1.0, 10.0, 100.0].map(percent));
    for (name, subset, ratio) in [
        ("train_1", Subset::Train, Some(Ratio::ONE)),
        ("train_10", Subset::Train, Some(Ratio::TEN)),
        ("train_list", Subset::Train, Some(Ratio::ALL)),
        ("val_list", Subset::Validate, None),
        ("test_list", Subset::Test, None),
    ] {
        assert_eq!(image_ids(&dataset, &split.rows(subset, ratio)), published(&lists, name), "{name}");
    }
    assert!(ok("dataset", args!["verify", &data]).contains("112120 records, all whole"));

    let refused = fails("dataset", 1, args!["split", &data, "--name", "x", "--lists", &lists, "--ratios", "5"]);
    assert!(refused.contains("the lists give their own ratios (1, 10, 100): leave --ratios out"), "{refused}");
    let refused = fails("dataset", 1, args!["split", &data, "--name", "x", "--lists", lists.join("../CheXpert")]);
    assert!(refused.contains("are these the lists of another source?"), "{refused}");
    let refused = fails("dataset", 1, args!["split", &data, "--name", "x", "--lists", lists.join("..")]);
    assert!(refused.contains("no list; name the files train_list"), "{refused}");
    assert!(!data.join("splits/x.parquet").exists());
}

#[test]
fn chexpert_is_split_evenly_and_as_published() {
    let temporary = folder();
    let files = [("chexpert_train.csv.gz", "train.csv.gz")];
    let Some((data, lists)) = real_tables(temporary.path(), "chexpert", &files) else { return };
    let dataset = draws_evenly(&data);

    let printed = ok("dataset", args!["split", &data, "--name", "published", "--lists", lists.join("CheXpert")]);
    assert!(printed.contains("train_1 and val_list share 0 images, 315 patients"), "{printed}");
    let (split, message) = (load(&dataset, "published"), certificate(&data, "published"));
    let report = message.lists.expect("lists");
    assert!(report.train_is_the_rest);
    assert_eq!(
        report.overlaps,
        [
            overlap("every other record", "val_list", 0, 3958),
            overlap("train_1", "val_list", 0, 315),
            overlap("train_10", "val_list", 0, 1837)
        ]
    );
    let counts: Vec<_> = report.lists.iter().map(|list| (list.lines, list.matched, list.unmatched)).collect();
    // The table of the test images is not among these.
    assert_eq!(counts, [(2184, 2184, 0), (21_841, 21_841, 0), (5000, 5000, 0), (234, 0, 234)]);
    let sizes =
        [Some(Ratio::ONE), Some(Ratio::TEN), Some(Ratio::ALL)].map(|ratio| split.rows(Subset::Train, ratio).len());
    assert_eq!(sizes, [2184, 21_841, 223_414 - 5000]);
    assert!(message.shared_patients >= 3958);
}

#[test]
fn siim_lists_overlap() {
    let temporary = folder();
    let table = "siim-pneumothorax-train-rle.csv.gz";
    let Some((data, lists)) = real_tables(temporary.path(), "siim", &[(table, table)]) else { return };
    let lists = lists.join("SIIM-ACR_Pneumothorax");
    ok("dataset", args!["split", &data, "--name", "published", "--lists", &lists]);
    let dataset = Dataset::open(&data).expect("a dataset");
    let (split, message) = (load(&dataset, "published"), certificate(&data, "published"));
    let report = message.lists.expect("lists");
    for known in [
        overlap("train_list", "val_list", 478, 478),
        overlap("train_list", "test_list", 494, 494),
        overlap("val_list", "test_list", 124, 124),
    ] {
        assert!(report.overlaps.contains(&known), "{:?}", report.overlaps);
    }
    // Test has priority over validate, validate over train.
    let [train, validate, test] = ["train_list", "val_list", "test_list"].map(|name| published(&lists, name));
    let validate: BTreeSet<String> = validate.difference(&test).cloned().collect();
    let train = train.difference(&test).filter(|id| !validate.contains(*id)).cloned().collect();
    assert_eq!(image_ids(&dataset, &split.rows(Subset::Test, None)), test);
    assert_eq!(image_ids(&dataset, &split.rows(Subset::Validate, None)), validate);
    assert_eq!(image_ids(&dataset, &split.rows(Subset::Train, Some(Ratio::ALL))), train);
    let ten = published(&lists, "train_10").intersection(&train).cloned().collect();
    assert_eq!(image_ids(&dataset, &split.rows(Subset::Train, Some(Ratio::TEN))), ten);
    assert_eq!(report.unlisted, message.outside);
    assert_eq!(message.outside as usize, 12_047 - train.len() - validate.len() - test.len());
}

#[test]
fn rsna_trains_on_the_rest() {
    let temporary = folder();
    let table = "stage_2_train_labels.csv.gz";
    let Some((data, lists)) = real_tables(temporary.path(), "rsna", &[(table, table)]) else { return };
    ok("dataset", args!["split", &data, "--name", "published", "--lists", lists.join("RSNA_Pneumonia")]);
    let dataset = Dataset::open(&data).expect("a dataset");
    let split = load(&dataset, "published");
    let sizes = [1.0, 10.0, 100.0].map(|ratio| split.rows(Subset::Train, Some(percent(ratio))).len());
    assert_eq!(sizes, [251, 2518, 25_184]);
    assert_eq!(split.rows(Subset::Validate, None).len(), 1500);
    // The images of the second stage's test are in no table.
    let report = certificate(&data, "published").lists.expect("lists");
    assert_eq!(report.lists.iter().map(|list| list.unmatched).collect::<Vec<_>>(), [0, 0, 0, 3000]);
}

#[test]
fn a_subset_that_the_source_lacks_is_taken_from_train() {
    let temporary = folder();
    let data = temporary.path().join("set");
    ingest("nih", &phantom_of("nih", temporary.path(), 120), &data, &["--no-images"]);
    let dataset = Dataset::open(&data).expect("a dataset");
    let stated = dataset.texts("subset").expect("subsets");
    let test = stated.iter().filter(|subset| subset.as_deref() == Some("test")).count();
    assert!(test > 0);
    ok("dataset", args!["split", &data, "--name", "own", "--official"]);
    assert!(load(&dataset, "own").rows(Subset::Validate, None).is_empty());
    ok("dataset", args!["split", &data, "--name", "more", "--official", "--validation", "0.1"]);
    let split = load(&dataset, "more");
    let validate = split.rows(Subset::Validate, None);
    assert!(
        (validate.len() as f64 - 0.1 * dataset.len() as f64).abs() <= 2.0,
        "{} of {}",
        validate.len(),
        dataset.len()
    );
    assert!(validate.iter().all(|&row| stated[row as usize].as_deref() == Some("train")));
    assert_eq!(split.rows(Subset::Test, None).len(), test);
    assert_eq!(certificate(&data, "more").torn_patients, 0);
    let refused = fails("dataset", 1, args!["split", &data, "--name", "x", "--official", "--test", "0.2"]);
    assert!(refused.contains("there is a test subset already: leave --test out"), "{refused}");
    let refused = fails("dataset", 1, args!["split", &data, "--name", "x", "--official", "--validation", "0.9"]);
    assert!(refused.contains("none would be left"), "{refused}");

    // With lists of the subsets only, the ratios are drawn.
    let lists = temporary.path().join("lists");
    fs::create_dir(&lists).expect("a folder");
    let ids = dataset.texts("image_id").expect("identifiers");
    let named =
        |rows: &[u32]| rows.iter().filter_map(|&row| ids[row as usize].clone()).collect::<Vec<_>>().join("\r\n");
    fs::write(lists.join("my_test.txt"), named(&split.rows(Subset::Test, None))).expect("written");
    fs::write(lists.join("notes.md"), "no list").expect("written");
    let printed = ok("dataset", args!["split", &data, "--name", "listed", "--lists", &lists, "--ratios", "20,100"]);
    assert!(
        printed.contains("files that are not lists: notes.md") && printed.contains("no record in validate"),
        "{printed}"
    );
    let listed = load(&dataset, "listed");
    assert_eq!(listed.rows(Subset::Test, None), split.rows(Subset::Test, None));
    assert_eq!(listed.ratios, [20.0, 100.0].map(percent));
}

/// With patients of 22 images no set is near 1%: the command and the certificate warn.
#[test]
fn a_set_far_from_its_share_or_prevalence_is_reported() {
    let temporary = folder();
    let data = temporary.path().join("set");
    write_large_patients(&data);
    let printed = ok("dataset", args!["split", &data, "--name", "main", "--ratios", "1,50,100"]);
    let message = certificate(&data, "main");
    let of_share = |warning: &&SplitWarning| warning.part == "1%" && warning.finding.is_none();
    let share = message.warnings.iter().find(of_share).unwrap_or_else(|| panic!("a warning: {printed}"));
    let (train, one) = (message.parts[0].records, message.parts[3].records);
    assert!(one >= 22, "whole patients");
    assert_eq!((share.expected, share.count, share.of), (0.01, one, train));
    assert!((share.found - one as f64 / train as f64).abs() < 1e-12);
    let share =
        format!("the 1% set has {:.1}% of the training records ({one} of {train}), not 1%", 100.0 * share.found);
    assert!(printed.contains(&format!("\nwarning: {share}\n")), "{printed}");
    // The 50% set is near its share, and the 100% set never deviates.
    assert!(message.warnings.iter().all(|warning| warning.part != "100%"), "{:?}", message.warnings);
    let warned_of = |part: &str, finding: &str| {
        let is_meant = |warning: &&SplitWarning| warning.part == part && warning.finding.as_deref() == Some(finding);
        message.warnings.iter().find(is_meant)
    };
    let findings = &message.parts[3].findings;
    for (own, whole) in findings.iter().zip(&message.parts[0].findings) {
        let (wanted, own_count) = (whole.prevalence * one as f64, own.positives as f64);
        let far = (own_count - wanted).abs() > NEAREST_POSITIVES.max(PREVALENCE_BOUND * wanted);
        assert_eq!(warned_of("1%", &own.finding).is_some(), far, "{printed}");
    }
    assert!(printed.contains("\nwarning: prevalence in the 1% set: "), "{printed}");

    // A certificate without warnings, as older versions wrote it, is valid.
    let path = data.join(certificate_path("main"));
    let mut older: serde_json::Value = dataset::store::files::read_json(&path).expect("a certificate");
    assert!(older.as_object_mut().expect("an object").remove("warnings").is_some());
    fs::write(&path, older.to_string()).expect("written");
    ok("dataset", args!["verify", &data]);
}

#[test]
fn a_changed_split_is_refused() {
    let temporary = folder();
    let data = temporary.path().join("set");
    ingest("mimic-cxr", &phantom(temporary.path(), 40), &data, &[]);
    ok("dataset", args!["split", &data, "--name", "main", "--ratios", "50,100"]);
    let dataset = Dataset::open(&data).expect("a dataset");
    let (split, stated) = (load(&dataset, "main"), certificate(&data, "main"));
    refused_changes(&data, || {
        let refused = fails("dataset", 1, args!["verify", &data]);
        assert!(refused.contains("make the split again: dataset split "), "{refused}");
        refused
    });
    // A split with an unreadable certificate is not replaced without `--overwrite`.
    let kept = fs::read(data.join(certificate_path("main"))).expect("a certificate");
    fs::write(data.join(certificate_path("main")), "{").expect("written");
    let refused = fails("dataset", 1, args!["split", &data, "--name", "main", "--seed", "9"]);
    assert!(refused.contains("split `main` exists with a certificate that cannot be read"), "{refused}");
    fs::write(data.join(certificate_path("main")), kept).expect("written");
    fs::write(data.join(certificate_path("main")), "{}").expect("written");
    let refused = fails("dataset", 1, args!["verify", &data]);
    assert!(refused.contains("its certificate cannot be read") && refused.contains("dataset split"), "{refused}");

    split.save(&Storage::folder(&data), &stated).expect("written");
    ok("dataset", args!["verify", &data]);
}
