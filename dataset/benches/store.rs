//! What an object store costs: `cargo bench --profile release --workspace --bench store -- DATASET [--latency 20]`.
//!
//! Serves a dataset's folder by HTTP on loopback, each answer so many milliseconds late, and loads it (two epochs of at most
//! 6,000 records, crops of 448 pixels, batches of 64): from the folder, from the server, and from the server with the cache of
//! `MRM_CACHE_DIR`. The server runs in the same process: its work takes processor time from the loader.

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
        buffer.resize((end - first) as usize, 0);
        file.read_exact_at(buffer, first).ok()?;
        stream.write_all(buffer).ok()?;
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

/// Records in a second of each of two epochs.
fn rates(dataset: &Arc<Dataset>) -> Result<[f64; 2], Box<dyn Error>> {
    let rows: Vec<u32> = (0..RECORDS.min(dataset.len() as u32)).collect();
    let loader = Loader::builder(dataset).rows(rows).transform(Transform::pretrain(448)).batch_size(64).drop_last(true);
    let mut loader = loader.build()?;
    let mut rates = [0.0; 2];
    for rate in &mut rates {
        let (began, mut records) = (Instant::now(), 0);
        for batch in &mut loader {
            records += batch?.len();
        }
        *rate = records as f64 / began.elapsed().as_secs_f64();
    }
    Ok(rates)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let folder = PathBuf::from(arguments.next().ok_or("give the folder of a dataset")?);
    let latency = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--latency"), Some(number)) => number.parse()?,
        _ => 20,
    };
    let local = Arc::new(Dataset::open(&folder)?);
    let url = serve(folder, Duration::from_millis(latency))?;
    let cache = tempfile::tempdir()?;
    let cached = [("MRM_CACHE_DIR".to_owned(), cache.path().display().to_string())];
    let open = |settings: &[(String, String)]| -> Result<Arc<Dataset>, Box<dyn Error>> {
        Ok(Arc::new(Dataset::open_in(Storage::at_with(&url, settings.to_vec())?)?))
    };
    let (remote, with_cache) = (open(&[])?, open(&cached)?);
    println!("{latency} ms a request; records/s in the first and the second epoch");
    rates(&local)?;
    let base = rates(&local)?;
    for (name, found) in [("folder", base), ("store", rates(&remote)?), ("store, cached", rates(&with_cache)?)] {
        let [first, second] = found;
        println!(
            "{name:<14} {first:7.0} {second:7.0}   {:4.2} {:4.2} of the folder",
            first / base[1],
            second / base[1]
        );
    }
    Ok(())
}
