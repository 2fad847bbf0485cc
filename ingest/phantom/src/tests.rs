use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::*;

const SMALL: Options = Options { studies: 12, seed: 4, size: 64 };

/// Every file with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    files
}

fn relative(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    contents(folder).into_iter().map(|(path, bytes)| (path.strip_prefix(folder).unwrap().to_owned(), bytes)).collect()
}

fn table(folder: &Path, name: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let bytes = fs::read(folder.join(format!("mimic-cxr-2.0.0-{name}.csv.gz"))).unwrap();
    assert_eq!(bytes[4..8], [0; 4], "a time in the gzip header");
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let row = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect::<Vec<_>>();
    let header = row(reader.headers().unwrap());
    (header, reader.records().map(|record| row(&record.unwrap())).collect())
}

fn with_threads(threads: usize, out: &Path) -> Summary {
    layout_with_threads(Layout::MimicCxr, threads, out)
}

fn layout_with_threads(layout: Layout, threads: usize, out: &Path) -> Summary {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| write(layout, out, &SMALL, &|_| Ok(()))).unwrap()
}

#[test]
fn bytes_do_not_depend_on_the_threads() {
    for layout in <Layout as clap::ValueEnum>::value_variants() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(layout_with_threads(*layout, 1, one.path()), layout_with_threads(*layout, 2, two.path()));
        assert!(relative(one.path()) == relative(two.path()), "{layout:?}");
    }
}

#[test]
fn every_layout_repeats_and_goes_on() {
    for layout in [Layout::Chexpert, Layout::Nih, Layout::Covid] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let run = |threads: usize, out: &Path| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| write(layout, out, &SMALL, &|_| Ok(()))).unwrap()
        };
        assert_eq!(run(1, one.path()), run(2, two.path()));
        let whole = relative(one.path());
        assert!(whole.len() > 12 && whole == relative(two.path()), "{layout:?}");
        for path in whole.keys().filter(|path| path.to_str().unwrap().ends_with("1.jpg") || path.ends_with("train.csv"))
        {
            fs::remove_file(one.path().join(path)).unwrap();
        }
        run(2, one.path());
        assert!(whole == relative(one.path()), "{layout:?}");
    }
}

#[test]
fn a_second_run_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let counted = AtomicU64::new(0);
    let count = |step| {
        if let Progress::Advanced(studies) = step {
            counted.fetch_add(studies, Ordering::Relaxed);
        }
        Ok(())
    };
    let summary = write(Layout::MimicCxr, folder.path(), &SMALL, &count).unwrap();
    assert_eq!((summary.studies, counted.into_inner()), (12, 12));
    let whole = relative(folder.path());
    for path in whole.keys().filter(|path| path.to_str().unwrap().len() % 2 == 0 && path.starts_with("files")) {
        fs::remove_file(folder.path().join(path)).unwrap();
    }
    fs::remove_file(folder.path().join("mimic-cxr-2.0.0-split.csv.gz")).unwrap();
    write(Layout::MimicCxr, folder.path(), &SMALL, &|_| Ok(())).unwrap();
    assert_eq!(relative(folder.path()), whole);
}

#[test]
fn tables_have_mimics_columns_and_name_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let summary = with_threads(2, folder.path());
    let (header, metadata) = table(folder.path(), "metadata");
    assert_eq!(header, mimic_cxr::METADATA_COLUMNS);
    assert_eq!(metadata.len(), summary.images);
    for row in &metadata {
        let path = format!("files/p{}/p{}/s{}/{}.dcm", &row[1][..2], row[1], row[2], row[0]);
        let object = dicom_object::open_file(folder.path().join(path)).unwrap();
        let rows = object.element_by_name("Rows").unwrap().to_int::<u32>().unwrap();
        assert_eq!(rows.to_string(), row[5]);
        assert!(folder.path().join(format!("files/p{}/p{}/s{}.txt", &row[1][..2], row[1], row[2])).is_file());
    }
    let (header, split) = table(folder.path(), "split");
    assert_eq!(header, mimic_cxr::SPLIT_COLUMNS);
    assert_eq!(split.len(), summary.images);
    let (header, labels) = table(folder.path(), "chexpert");
    assert_eq!(header, mimic_cxr::CHEXPERT_COLUMNS);
    assert_eq!(labels.len(), summary.studies);
    assert!(labels.iter().all(|row| { row[2..].iter().all(|l| ["1.0", "0.0", "-1.0", ""].contains(&l.as_str())) }));
}

#[test]
fn a_foreign_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "all my work").unwrap();
    let error = write(Layout::MimicCxr, folder.path(), &SMALL, &|_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }));
    assert_eq!(contents(folder.path()).len(), 1);
}

#[test]
fn other_arguments_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    with_threads(2, folder.path());
    let other = Options { seed: 5, ..SMALL };
    let error = write(Layout::MimicCxr, folder.path(), &other, &|_| Ok(())).unwrap_err();
    assert!(error.to_string().contains(" holds another phantom (seed 4, not 5); "), "{error}");
    assert!(write(Layout::MimicCxr, folder.path(), &Options { size: 2, ..SMALL }, &|_| Ok(())).is_err());
}
