//! What an object store costs: `cargo bench --profile release --workspace --bench store -- DATASET [--latency 20]`.
//!
//! Serves a dataset's folder by HTTP on loopback, each answer so many milliseconds late, and loads it (two epochs of at most
//! 6,000 records, crops of 448 pixels, batches of 64): from the folder, from the server, and from the server with the cache of
//! `MRM_CACHE_DIR`, which is empty before the first epoch. They take turns in several rounds, after one epoch that is not
//! counted. The server runs in the same process: its work takes processor time from the loader, and is in the processor time.
//!
//! Prints images/s and processor time (user and system) of each epoch, then the medians.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataset::transform::Transform;
use dataset::{Dataset, Loader, Storage};

/// Records of an epoch.
const RECORDS: u32 = 6_000;

/// Records of a batch.
const BATCH: u32 = 64;

/// How often each place is measured.
const ROUNDS: usize = 3;

/// A range of a file, sent as the answer to a request; `None` where the connection ends.
fn answer(folder: &Path, latency: Duration, lines: &mut BufReader<TcpStream>, buffer: &mut Vec<u8>) -> Option<()> {
    let (mut request, mut line) = (String::new(), String::new());
    let mut range = None;
    lines.read_line(&mut request).ok().filter(|&bytes| bytes > 0)?;
    loop {
        line.clear();
        lines.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("range")) {
            range = value.trim().strip_prefix("bytes=").map(str::to_owned);
        }
    }
    std::thread::sleep(latency);
    let mut words = request.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let stream = lines.get_mut();
    let file = File::open(folder.join(path.trim_start_matches('/')));
    let Ok(file) = file else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok();
    };
    let size = file.metadata().ok()?.len();
    let (first, end) = match range.as_deref().and_then(|range| range.split_once('-')) {
        None => (0, size),
        Some(("", last)) => (size.saturating_sub(last.parse().ok()?), size),
        Some((first, "")) => (first.parse().ok()?, size),
        Some((first, last)) => (first.parse().ok()?, size.min(last.parse::<u64>().ok()? + 1)),
    };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\nETag: \"{size}\"\r\nContent-Range: bytes \
         {first}-{}/{size}\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
        end - first,
        end.saturating_sub(1)
    );
    stream.write_all(head.as_bytes()).ok()?;
    if method == "GET" {
        let length = (end - first) as usize;
        // Bytes that are overwritten are not cleared before.
        buffer.resize(length.max(buffer.len()), 0);
        file.read_exact_at(&mut buffer[..length], first).ok()?;
        stream.write_all(&buffer[..length]).ok()?;
    }
    Some(())
}

/// Serves a folder; returns the URL.
fn serve(folder: PathBuf, latency: Duration) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let (mut lines, mut buffer) = (BufReader::new(stream), Vec::new());
                while answer(&folder, latency, &mut lines, &mut buffer).is_some() {}
            });
        }
    });
    Ok(url)
}

/// Seconds that all threads of this process have spent on the processors, in hundredths as Linux counts them.
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let line = std::fs::read_to_string("/proc/self/stat")?;
    // The second field, in brackets, may have spaces; user and system time are the 14th and 15th.
    let (_, fields) = line.rsplit_once(')').ok_or("no state of this process")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}

/// Records in a second, and milliseconds of the processors for each.
type Epoch = [f64; 2];

/// Loads some epochs with one loader.
fn epochs<const N: usize>(dataset: &Arc<Dataset>) -> Result<[Epoch; N], Box<dyn Error>> {
    // Whole batches, so that each epoch has all records.
    let records = RECORDS.min(dataset.len() as u32) / BATCH * BATCH;
    let loader = Loader::builder(dataset).rows((0..records).collect()).transform(Transform::pretrain(448));
    let mut loader = loader.batch_size(BATCH as usize).build()?;
    let mut epochs = [[0.0; 2]; N];
    for epoch in &mut epochs {
        let (began, processor, mut records) = (Instant::now(), processor_seconds()?, 0);
        for batch in &mut loader {
            records += batch?.len();
        }
        let records = records as f64;
        let processor = processor_seconds()? - processor;
        *epoch = [records / began.elapsed().as_secs_f64(), processor * 1e3 / records];
    }
    Ok(epochs)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let folder = PathBuf::from(arguments.next().ok_or("give the folder of a dataset")?);
    let latency = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--latency"), Some(number)) => number.parse()?,
        _ => 20,
    };
    let url = serve(folder.clone(), Duration::from_millis(latency))?;
    let open = |cache: Option<&Path>| -> Result<Arc<Dataset>, Box<dyn Error>> {
        let settings = cache.map(|cache| ("MRM_CACHE_DIR".to_owned(), cache.display().to_string()));
        Ok(Arc::new(Dataset::open_in(Storage::at_with(&url, settings.into_iter().collect::<Vec<_>>())?)?))
    };
    println!("{latency} ms a request; images/s and processor ms an image, in the first and the second epoch");
    let show = |name: &str, [first, second]: [Epoch; 2]| {
        println!("{name:<14} {:7.0} {:6.3}   {:7.0} {:6.3}", first[0], first[1], second[0], second[1]);
    };
    let names = ["folder", "store", "store, cached"];
    let mut measured: [Vec<[Epoch; 2]>; 3] = Default::default();
    epochs::<1>(&Arc::new(Dataset::open(&folder)?))?;
    // They are removed at the end: a file system takes longer for new files after many were removed.
    let caches = (0..ROUNDS).map(|_| tempfile::tempdir()).collect::<Result<Vec<_>, _>>()?;
    for cache in &caches {
        let datasets = [Arc::new(Dataset::open(&folder)?), open(None)?, open(Some(cache.path()))?];
        for ((name, dataset), measured) in names.into_iter().zip(datasets).zip(&mut measured) {
            measured.push(epochs(&dataset)?);
            show(name, measured[measured.len() - 1]);
        }
    }
    let medians = measured.map(|rounds| {
        let of = |epoch: usize, value: usize| median(rounds.iter().map(|round| round[epoch][value]).collect());
        [[of(0, 0), of(0, 1)], [of(1, 0), of(1, 1)]]
    });
    println!("medians; and images/s as a share of the folder's in the same epoch");
    for (name, [first, second]) in names.into_iter().zip(medians) {
        show(name, [first, second]);
        println!("{:<14} {:7.2} {:6}   {:7.2}", "", first[0] / medians[0][0][0], "", second[0] / medians[0][1][0]);
    }
    Ok(())
}
