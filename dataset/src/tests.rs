//! The whole path in a store in memory: write, read, verify, split, load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};

use crate::commands::verify::verify;
use crate::format::manifest::{self, ImageSpec, Manifest, REJECTS, ShardInfo, TextSpec, Totals};
use crate::format::pixel_sums::PixelSums;
use crate::format::record::{FORMAT_VERSION, ImageEncoding, Record};
use crate::format::schema::schema;
use crate::format::shard::{ImageCompression, ShardWriter};
use crate::format::table;
use crate::loader::{EpochLength, Loader, MixturePart, OnError, StudyOptions, Weights};
use crate::split::{Ratio, Split, SplitOptions, Subset, draw};
use crate::store::files;
use crate::transform::Transform;
use crate::{Dataset, Label, Storage};

const SIDES: (u16, u16) = (8, 6);

fn record(row: usize) -> Record {
    let positive = [Label::Negative, Label::Positive][row % 2];
    Record {
        record_id: format!("x/{row:02}"),
        patient_id: format!("p{}", row / 2),
        study_id: format!("s{row}"),
        image_id: row.to_string(),
        height: SIDES.0,
        width: SIDES.1,
        image: (0..48).map(|pixel| (pixel * (row + 1)) as u8).collect(),
        labels: vec![Some(positive), if row == 3 { Some(Label::Uncertain) } else { None }],
        ..Record::default()
    }
}

fn manifest(shard: ShardInfo, records: &[Record]) -> Manifest {
    let mut pixels = PixelSums::default();
    records.iter().for_each(|record| pixels.add(PixelSums::of(&record.image)));
    let (mean, std) = pixels.moments();
    let patients: BTreeSet<&str> = records.iter().map(|record| record.patient_id.as_str()).collect();
    let count = records.len() as u64;
    Manifest {
        format_version: FORMAT_VERSION,
        source: "x".to_owned(),
        tool: "test".to_owned(),
        arguments: BTreeMap::new(),
        image: ImageSpec {
            encoding: ImageEncoding::Raw,
            bits: 8,
            compression: ImageCompression::None.name().to_owned(),
            intensity: "voi".to_owned(),
            resize: "shorter".to_owned(),
            size: 6,
            mean,
            std,
        },
        text: TextSpec { report_text: "all".to_owned(), max_tokens: 0, vocabulary: 0, tokenizer_sha256: String::new() },
        labels: vec!["A".to_owned(), "B".to_owned()],
        grades: Vec::new(),
        masks: Vec::new(),
        source_digest: manifest::SHA256.to_owned(),
        totals: Totals {
            records: count,
            studies: count,
            patients: patients.len() as u64,
            reports: 0,
            bytes: shard.bytes,
        },
        shards: vec![shard],
        rejects: BTreeMap::new(),
        rejects_sha256: String::new(),
    }
}

/// Writes a dataset of 40 records into a storage.
fn write(storage: &Storage) -> Vec<Record> {
    write_records(storage, (0..40).map(record).collect())
}

fn write_records(storage: &Storage, records: Vec<Record>) -> Vec<Record> {
    let folder = tempfile::tempdir().unwrap();
    let (path, name) = (folder.path().join("shard"), manifest::shard_path(0));
    let findings = ["A".to_owned(), "B".to_owned()];
    let mut writer = ShardWriter::create(&path, schema(&findings, &[], ImageEncoding::Raw), ImageCompression::None)
        .expect("a shard");
    writer.write(&records).unwrap();
    let shard = writer.finish(&name).unwrap();
    storage.upload(&path, &shard.path).unwrap();
    let none: ArrayRef = Arc::new(StringArray::from(Vec::<&str>::new()));
    let rejects = table::to_parquet("rejects".as_ref(), vec![("source_path", none, false)]).unwrap();
    storage.write(REJECTS, rejects).unwrap();
    manifest(shard, &records).save(storage).unwrap();
    records
}

#[test]
fn a_dataset_in_memory_is_split_read_and_verified() {
    const URL: &str = "memory://datasets/one/set";
    let storage = Storage::at(URL).unwrap();
    assert!(Dataset::open(URL).is_err_and(|error| error.to_string().contains("is not a dataset")));
    let records = write(&storage);
    let dataset = Arc::new(Dataset::open(URL).unwrap());
    let options = SplitOptions { ratios: vec![Ratio::TEN, Ratio::ALL], ..SplitOptions::default() };
    let (split, certificate) = draw::make(&dataset, "main", &options, &|_| Ok(())).unwrap();
    split.save(dataset.storage(), &certificate).unwrap();
    assert_eq!(Split::load(&dataset, "main").unwrap(), split);
    let names: Vec<String> = storage.list("").unwrap().into_iter().map(|file| file.name).collect();
    let expected =
        ["dataset.json", "rejects.parquet", "shards/part-00000.parquet", "splits/main.json", "splits/main.parquet"];
    assert_eq!(names, expected);
    assert!(Storage::at("memory://other/one/set").unwrap().list("").unwrap().is_empty(), "stores have names");

    let image = dataset.image(7).unwrap();
    assert_eq!((image.height, image.width, &image.pixels), (8, 6, &records[7].image));
    assert_eq!(dataset.record(7).unwrap(), records[7]);
    let labels: Vec<_> = records.iter().map(|record| record.labels.clone()).collect();
    assert_eq!(dataset.labels().unwrap(), labels);
    let transform = Transform { mean: 0.0, std: 1.0 / 255.0, ..Transform::evaluate(6) };
    let rows = split.rows(Subset::Train, None);
    let loader = Loader::builder(&dataset).subset(&split, Subset::Train).transform(transform).batch_size(4);
    let mut seen = Vec::new();
    for batch in loader.seed(1).threads(2).build().unwrap() {
        let batch = batch.unwrap();
        for (at, &row) in batch.rows().iter().enumerate() {
            // The center of 8 × 6 pixels is rows 1 to 6.
            let expected = records[row as usize].image[6..42].iter().map(|&level| f32::from(level));
            let pixels = &batch.images()[at * 36..(at + 1) * 36];
            assert!(pixels.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "row {row}");
            let found: Vec<_> =
                batch.labels()[at * 2..at * 2 + 2].iter().map(|&value| Label::from_tensor_value(value)).collect();
            assert_eq!(found, labels[row as usize]);
            seen.push(row);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, rows);
    assert_eq!(verify(URL, &|_| Ok(())).unwrap(), Vec::<String>::new());

    // A shard that is replaced by other bytes.
    let name = "shards/part-00000.parquet";
    let mut bytes = storage.read(name).unwrap().to_vec();
    bytes[100] ^= 1;
    storage.write(name, bytes).unwrap();
    assert!(dataset.record(0).is_err_and(|error| error.to_string().contains("replaced after it was opened")));
    assert!(!verify(URL, &|_| Ok(())).unwrap().is_empty());
}

/// The dataset at a location, read with a cache.
fn with_cache(url: &str, cache: &Path) -> Arc<Dataset> {
    let settings = vec![("MRM_CACHE_DIR".to_owned(), cache.display().to_string())];
    Arc::new(Dataset::open_in(Storage::at_with(url, settings).unwrap()).unwrap())
}

#[test]
fn images_in_the_cache_are_read_when_they_are_needed_and_fetched_again_where_they_are_damaged() {
    const URL: &str = "memory://datasets/cached/set";
    let records = write(&Storage::at(URL).unwrap());
    let (cache, rows) = (tempfile::tempdir().unwrap(), (0..40).collect::<Vec<u32>>());
    let open = || with_cache(URL, cache.path());
    let dataset = open();
    let pages = dataset.image_pages(&rows).unwrap();
    assert!(pages.iter().all(Option::is_some));
    // A page is kept when it was checked.
    assert!(open().image_pages(&rows).unwrap().iter().all(Option::is_some));
    for ((row, record), page) in records.iter().enumerate().zip(&pages) {
        dataset.decode_image(page.as_ref(), row, (record.height, record.width), &mut Vec::new()).unwrap();
    }
    assert!(open().image_pages(&rows).unwrap().iter().all(Option::is_none));
    let folders = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let whole: Vec<(PathBuf, Vec<u8>)> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert_eq!(whole.len(), 40);
    let damages: [fn(&mut Vec<u8>); 4] = [
        |file| file[40] ^= 1,
        // Damaged before it was kept: the cache's own checksum is that of the damaged page.
        |file| {
            file[40] ^= 1;
            let (page, crc32) = file.split_last_chunk_mut::<4>().unwrap();
            *crc32 = crc32fast::hash(page).to_le_bytes();
        },
        |file| file.truncate(50),
        Vec::clear,
    ];
    for damage in damages {
        for (path, content) in &whole {
            let mut content = content.clone();
            damage(&mut content);
            fs::write(path, content).unwrap();
        }
        let dataset = open();
        for (row, record) in records.iter().enumerate() {
            assert_eq!(dataset.image(row).unwrap().pixels, record.image);
        }
        assert!(whole.iter().all(|(path, content)| fs::read(path).unwrap() == *content), "written again");
    }
    // Without the shard's checksums, those of the cache are compared.
    fs::write(&whole[3].0, vec![7; whole[3].1.len()]).unwrap();
    let storage = open().storage().clone();
    let unchecked = Dataset::open_in(storage).unwrap().without_checksums();
    assert!((0..40).all(|row| unchecked.image(row).unwrap().pixels == records[row].image));
}

#[test]
fn a_mixture_reads_ahead_from_its_store_alone() {
    const URL: &str = "memory://datasets/mixed/set";
    let folder = tempfile::tempdir().unwrap();
    for storage in [Storage::folder(folder.path()), Storage::at(URL).unwrap()] {
        write_records(&storage, (0..200).map(record).collect());
    }
    let datasets = [Dataset::open(folder.path()).unwrap(), Dataset::open(URL).unwrap()].map(Arc::new);
    let parts = datasets.iter().map(MixturePart::new).collect();
    let loader = Loader::mixture(parts, Weights::Temperature(1.0), EpochLength::Sum).batch_size(64);
    let access = loader.transform(Transform::evaluate(6)).random_access().unwrap();
    let groups_read = || access.plan.parts.iter().map(|part| part.samples.groups_read()).collect::<Vec<_>>();
    assert_eq!(groups_read(), [1, 1], "those of the first records, of two each");
    let pages = access.plan.fetch(0).unwrap();
    assert_eq!(groups_read(), [1, 2]);
    let batch = access.batch(0, 0).unwrap();
    let of_store: Vec<bool> = batch.sources().iter().map(|&source| source == 1).collect();
    assert_eq!(pages.iter().map(Option::is_some).collect::<Vec<_>>(), of_store);
    assert!(of_store.contains(&true) && of_store.contains(&false));
}

#[test]
fn a_split_does_not_replace_the_certificate_of_another_one() {
    const URL: &str = "memory://datasets/certificates/set";
    let storage = Storage::at(URL).unwrap();
    write(&storage);
    let dataset = Dataset::open(URL).unwrap();
    let made = |seed| {
        let options = SplitOptions { seed, ..SplitOptions::default() };
        draw::make(&dataset, "main", &options, &|_| Ok(())).unwrap()
    };
    let ((one, of_one), (other, of_other)) = (made(1), made(2));
    assert_ne!(of_one.members_sha256, of_other.members_sha256);
    // As a process leaves it that was killed before it wrote the table.
    storage.write_json("splits/main.json", &of_one).unwrap();
    let message = other.save_new(&storage, &of_other).unwrap_err().to_string();
    assert!(message.contains("a certificate of other members"), "{message}");
    assert!(storage.read_if_there("splits/main.parquet").unwrap().is_none());
    one.save_new(&storage, &of_one).unwrap();
    one.save_new(&storage, &of_one).unwrap();
    let message = other.save_new(&storage, &of_other).unwrap_err().to_string();
    assert!(message.contains("with other members"), "{message}");
    assert_eq!(Split::load(&dataset, "main").unwrap(), one);
}

#[test]
fn what_cannot_be_fetched_is_an_error_or_is_skipped() {
    const URL: &str = "memory://datasets/lost/set";
    let storage = Storage::at(URL).unwrap();
    write(&storage);
    storage.remove(&["shards/part-00000.parquet"]).unwrap();
    let dataset = Arc::new(Dataset::open(URL).unwrap());
    let builder = Loader::builder(&dataset).batch_size(8).transform(Transform::evaluate(6));
    let fetched = |on_error| builder.clone().on_error(on_error).random_access().unwrap().plan.fetch(0);
    assert!(fetched(OnError::Stop).is_err());
    assert!(fetched(OnError::Skip).unwrap().is_empty());
    let batch = builder.clone().on_error(OnError::Skip).build().unwrap().next_batch().unwrap();
    assert_eq!((batch.len(), batch.skipped().len()), (0, 8));
}

#[test]
fn studies_of_a_store_are_fetched_together_and_are_those_of_a_folder() {
    const URL: &str = "memory://datasets/studies/set";
    let folder = tempfile::tempdir().unwrap();
    let made = |row: usize| {
        let study = row / 3;
        Record { patient_id: format!("p{study}"), study_id: format!("s{study}"), ..record(row) }
    };
    for storage in [Storage::folder(folder.path()), Storage::at(URL).unwrap()] {
        write_records(&storage, (0..40).map(made).collect());
    }
    let [here, there] = [Dataset::open(folder.path()), Dataset::open(URL)].map(|dataset| {
        let loader = Loader::builder(&Arc::new(dataset.unwrap())).studies(StudyOptions::default()).batch_size(5);
        loader.transform(Transform::evaluate(6)).random_access().unwrap()
    });
    assert_eq!(here.batches(), 3);
    for number in 0..here.batches() {
        let [own, fetched] = [&here, &there].map(|access| access.batch(0, number).unwrap());
        assert_eq!((own.view_rows(), own.images()), (fetched.view_rows(), fetched.images()));
        let pages = there.plan.fetch(number).unwrap();
        assert!(pages.iter().map(Option::is_some).eq(own.view_rows().iter().map(|&row| row >= 0)));
    }
}

/// Serves the files of a folder by HTTP, with range requests; returns the address.
fn web_server(folder: PathBuf) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || answer(&folder, client));
        }
    });
    address
}

/// Answers one request and closes the connection.
fn answer(folder: &Path, mut client: std::net::TcpStream) -> std::io::Result<()> {
    use std::io::{BufRead, BufReader, Write};
    let lines: Vec<String> = BufReader::new(client.try_clone()?)
        .lines()
        .map_while(std::io::Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let mut words = lines[0].split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Ok(file) = fs::read(folder.join(path.trim_start_matches('/'))) else {
        return client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let range = lines.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let length = file.len();
    let (status, part) = match range.as_deref().and_then(|range| range.split_once('-')) {
        None => ("200 OK", 0..length),
        Some(("", last)) => ("206 Partial Content", length - length.min(last.parse().unwrap())..length),
        Some((first, last)) => {
            ("206 Partial Content", first.parse().unwrap()..length.min(last.parse::<usize>().unwrap() + 1))
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/{length}\r\nConnection: close\r\n\r\n",
        part.len(),
        part.start,
        part.end.saturating_sub(1)
    );
    client.write_all(head.as_bytes())?;
    client.write_all(if method == "HEAD" { &[] } else { &file[part] })
}

#[test]
fn a_dataset_on_a_web_server_is_read_and_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let records = write(&Storage::folder(folder.path().join("a set")));
    let url = format!("http://{}/a%20set/", web_server(folder.path().to_path_buf()));
    // The server does not decode paths, so the folder has the encoded name.
    fs::rename(folder.path().join("a set"), folder.path().join("a%20set")).unwrap();
    let dataset = Arc::new(Dataset::open(&url).unwrap());
    assert_eq!(dataset.record(5).unwrap(), records[5]);
    assert_eq!(dataset.image(9).unwrap().pixels, records[9].image);
    let mut loader = Loader::builder(&dataset).batch_size(40).transform(Transform::evaluate(6)).build().unwrap();
    assert_eq!(loader.next_batch().unwrap().len(), 40);
    assert_eq!(verify(&url, &|_| Ok(())).unwrap(), Vec::<String>::new());
    assert!(dataset.storage().is_read_only());
    for refused in [dataset.storage().write("a", "x").err(), dataset.storage().list("").err()] {
        assert!(refused.expect("refused").to_string().contains("a web server is read only"));
    }
    let missing = Dataset::open(url.replace("set", "other")).err().expect("no dataset").to_string();
    assert!(missing.contains("is not a dataset"), "{missing}");
}

#[test]
fn large_files_are_uploaded_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i >> 8) as u8).collect();
    fs::write(&large, &bytes).unwrap();
    let storage = Storage::at("memory://datasets/large").unwrap();
    storage.upload(&large, "a/large").unwrap();
    assert_eq!(storage.size("a/large").unwrap(), 20_000_000);
    assert_eq!(storage.sha256("a/large").unwrap(), files::sha256(&large).unwrap());
    let (file, tail) = storage.open("a/large").unwrap();
    assert!(bytes.ends_with(&tail) && file.read(9_000_000..9_000_100).unwrap() == bytes[9_000_000..9_000_100]);
    storage.remove(&["a/large", "missing"]).unwrap();
    assert!(storage.read_if_there("a/large").unwrap().is_none());
}
