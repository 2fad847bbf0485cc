//! Datasets in an object store: the same bytes as in a folder, few requests, and one clear line where something fails.
//!
//! The store is `moto`, an S3 API in Python, on a free port of 127.0.0.1.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use dataset::loader::TextOptions;
use dataset::transform::Transform;
use dataset::{Dataset, Loader, Storage};
use mrm_tests::faults::{Call, EIO, Faults};
use mrm_tests::{SMALL, args, command, contents, folder, ingest, ok, phantom, text};
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

/// An S3 server with one bucket, which ends with its test.
struct Store {
    child: Child,
    log: PathBuf,
    address: String,
    _folder: TempDir,
}

const BUCKET: &str = "radiographs";

impl Store {
    fn start() -> Self {
        let python = std::env::var("MRM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let temporary = folder();
        let log = temporary.path().join("log");
        let file = File::create(&log).expect("a log");
        let child = Command::new(&python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("python starts (MRM_PYTHON names a Python with moto[s3], flask, flask-cors)");
        let mut store = Self { child, log, address: String::new(), _folder: temporary };
        let started = Instant::now();
        store.address = loop {
            let told = fs::read_to_string(&store.log).expect("the log");
            if let Some((_, rest)) = told.split_once("Running on http://") {
                break rest.split_whitespace().next().expect("an address").to_owned();
            }
            let ended = store.child.try_wait().expect("its state");
            assert!(ended.is_none() && started.elapsed() < Duration::from_mins(2), "no server: {told}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut connection = TcpStream::connect(&store.address).expect("a connection");
        write!(connection, "PUT /{BUCKET} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        store
    }

    /// What a user sets to reach it.
    fn settings(&self) -> Vec<(String, String)> {
        settings(&self.address)
    }

    fn storage(&self, prefix: &str) -> Storage {
        Storage::at_with(url(prefix), self.settings()).expect("a place")
    }

    fn dataset(&self, prefix: &str) -> Arc<Dataset> {
        Arc::new(Dataset::open_in(self.storage(prefix)).expect("a dataset"))
    }

    /// Name and bytes of all objects below a prefix.
    fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let storage = self.storage(prefix);
        let listed = storage.list("").expect("a listing");
        listed.into_iter().map(|found| (found.name.clone(), storage.read(&found.name).expect("it").to_vec())).collect()
    }

    fn run(&self, name: &str, arguments: &[OsString]) -> Output {
        command(name).envs(self.settings()).args(arguments).output().expect("the binary starts")
    }

    fn ok(&self, name: &str, arguments: &[OsString]) -> String {
        let output = self.run(name, arguments);
        assert!(output.status.success(), "{name}: {}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs what must fail, with exit code 1 and one line that says why.
    fn fails(&self, name: &str, arguments: &[OsString], words: &[&str]) {
        fails(command(name).envs(self.settings()).args(arguments), words);
    }

    /// Requests so far, one line each.
    fn requests(&self) -> Vec<String> {
        let told = fs::read_to_string(&self.log).expect("the log");
        told.lines().filter(|line| line.contains(" HTTP/1.1")).map(str::to_owned).collect()
    }

    /// Requests that some work makes.
    fn counted<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let before = self.requests().len();
        let done = work();
        (done, self.requests().len() - before)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(address: &str) -> Vec<(String, String)> {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        set("AWS_ENDPOINT_URL", &format!("http://{address}")),
        set("AWS_ALLOW_HTTP", "true"),
        set("AWS_ACCESS_KEY_ID", "anyone"),
        set("AWS_SECRET_ACCESS_KEY", "anything"),
        set("AWS_REGION", "us-east-1"),
    ]
}

fn fails(command: &mut Command, words: &[&str]) {
    let begun = Instant::now();
    let output = command.output().expect("the binary starts");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let last = told.lines().last().expect("a line");
    assert!(words.iter().all(|word| last.contains(word)), "{words:?} in {told}");
    assert!(!told.contains("panicked") && last.len() < 500, "{told}");
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}: {told}", begun.elapsed());
}

fn url(prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}")
}

fn ingesting(raw: &Path, out: &str, staging: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["mimic-cxr", raw, out, "--staging", staging].to_vec();
    all.extend(SMALL.iter().chain(more).map(Into::into));
    all
}

#[test]
fn an_object_store_holds_what_a_folder_would() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 40);
    let (local, staging) = (temporary.path().join("set"), temporary.path().join("staging"));
    ingest("mimic-cxr", &raw, &local, &[]);
    let at = url("deep/set/");
    let run = |more: &[&str]| ingesting(&raw, &at, &staging, more);
    let told = store.ok("ingest", &run(&[]));
    assert!(told.contains("of 40 studies"), "{told}");
    let whole = contents(&local);
    assert!(whole.len() >= 6 && whole == store.objects("deep/set"), "{:?}", store.objects("deep/set").keys());
    assert!(contents(&staging).is_empty(), "nothing stays behind");

    // Who comes again.
    assert!(store.ok("ingest", &run(&[])).contains("nothing to do"));
    assert!(store.ok("ingest", &run(&["--check-input"])).contains("is what it was"));
    store.fails("ingest", &run(&["--limit", "9"]), &["deep/set: holds another dataset", "--overwrite"]);
    assert!(whole == store.objects("deep/set"));
    store.ok("ingest", &run(&["--limit", "9", "--overwrite"]));
    assert_eq!(store.objects("deep/set").len(), 6, "manifest, two cards, tokenizer, rejects, one shard");
    store.ok("ingest", &run(&["--overwrite"]));
    assert!(whole == store.objects("deep/set"));
    assert!(contents(&staging).is_empty());

    // The commands.
    let at = "s3://radiographs/deep/set";
    assert!(store.ok("dataset", &args!["inspect", at]).contains("Pleural Effusion"));
    ok("dataset", args!["split", &local, "--name", "main"]);
    assert!(store.ok("dataset", &args!["split", at, "--name", "main"]).contains("deep/set/splits/main.parquet"));
    assert!(contents(&local) == store.objects("deep/set"));
    assert!(store.ok("dataset", &args!["inspect", at]).contains("splits    main"));
    assert!(store.ok("dataset", &args!["verify", at]).contains("all whole"));
    let bench = args!["bench", at, "--transform", "none", "--seconds", "0.1"];
    assert!(store.ok("dataset", &bench).contains("images/s"));

    // Training sees no difference.
    let trained = |data: OsString, name: &str| {
        let to = temporary.path().join(name);
        let mut run =
            args!["pretrain", "--data", data, "--run", &to, "--preset", "mrm-vit-tiny", "--split", "main"].to_vec();
        run.extend(args!["--device", "cpu", "--steps", "2", "--batch-size", "4", "--set", "model.vit.image_size=32"]);
        store.ok("trainer", &run);
        fs::read(to.join("latest/model.safetensors")).expect("weights")
    };
    assert!(trained(local.clone().into(), "a") == trained(at.into(), "b"));

    // The library.
    let (here, there) = (Arc::new(Dataset::open(&local).expect("a dataset")), store.dataset("deep/set"));
    assert_eq!(here.record(17).expect("a record"), there.record(17).expect("a record"));
    let batches = |dataset: &Arc<Dataset>| -> Vec<(Vec<u32>, Vec<f32>, Vec<i64>)> {
        let loader = Loader::builder(dataset).batch_size(7).seed(3).transform(Transform::pretrain(32));
        let loader = loader.text(TextOptions { tokens: 40, mask_ratio: 0.5 }).threads(2).build().expect("a loader");
        let taken = loader.map(|batch| batch.expect("a batch"));
        taken.map(|batch| (batch.rows().to_vec(), batch.images().to_vec(), batch.token_ids().to_vec())).collect()
    };
    assert!(batches(&here) == batches(&there));

    // Each costs as few requests as can be.
    let (again, opening) = store.counted(|| store.dataset("deep/set"));
    assert_eq!(opening, 1, "the manifest");
    let shard = || again.shard(0).map(dataset::format::shard::Shard::rows).expect("a shard");
    assert_eq!(store.counted(shard), (16, 1), "its footer");
    let record = again.record(3).expect("a record");
    let image = || again.image(3, record.height, record.width).expect("an image").pixels;
    assert_eq!(store.counted(image), (record.image, 1), "its page");
    let column =
        || again.shard(0).and_then(|shard| shard.columns(&["record_id", "labels", "token_ids"])).expect("columns");
    assert_eq!(store.counted(column).1, 1, "neighbors at once");
}

#[test]
fn large_shards_are_sent_in_pieces() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 70);
    let (local, staging) = (temporary.path().join("set"), temporary.path().join("staging"));
    let large = ["--size", "512", "--fit", "stretch", "--rows-per-shard", "128"];
    let mut run = args!["mimic-cxr", &raw, &local].to_vec();
    run.extend(large.map(Into::into));
    ok("ingest", &run);
    let mut run = args!["mimic-cxr", &raw, url("large"), "--staging", &staging].to_vec();
    run.extend(large.map(Into::into));
    store.ok("ingest", &run);
    assert!(contents(&local).values().any(|bytes| bytes.len() > 16 << 20), "more than two pieces");
    assert!(contents(&local) == store.objects("large"));
    assert!(store.requests().iter().any(|line| line.contains("partNumber=3")), "{:?}", store.requests());
    assert!(store.ok("dataset", &args!["verify", url("large")]).contains("all whole"));
}

/// What a proxy does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Answers that the request is a bad one.
    Refused,
    /// Closes the connection without passing the request on.
    Dropped,
    /// Passes the request on, and closes the connection without an answer.
    Unanswered,
    /// Closes the connection in the middle of the answer's body.
    Cut,
    /// Sends half of the body as if it were all of it.
    Short,
}

/// Passes requests on to the store, but for what `fault` says of a request's first line. Returns its address.
fn proxy(store: &str, fault: impl Fn(&str) -> Fault + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, store) = (listener.local_addr().expect("an address").to_string(), store.to_owned());
    let pass = move |mut client: TcpStream| -> std::io::Result<()> {
        let (mut request, mut piece) = (Vec::new(), vec![0; 1 << 16]);
        let length = loop {
            let read = client.read(&mut piece)?;
            request.extend_from_slice(&piece[..read]);
            if let Some(end) = head_length(&request) {
                let head = text(&request[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                break end + length.unwrap_or(0);
            }
            if read == 0 {
                return Ok(());
            }
        };
        while request.len() < length {
            let read = client.read(&mut piece)?;
            request.extend_from_slice(&piece[..read]);
        }
        let fault = fault(text(&request).lines().next().unwrap_or_default());
        match fault {
            Fault::Refused => {
                return client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
            Fault::Dropped => return Ok(()),
            _ => {}
        }
        let (mut server, mut answer) = (TcpStream::connect(&store)?, Vec::new());
        server.write_all(&request)?;
        // The store closes the connection after each answer.
        server.read_to_end(&mut answer)?;
        let head = head_length(&answer).unwrap_or(answer.len());
        let (body, half) = (answer.len() - head, (answer.len() - head) / 2);
        match fault {
            Fault::Unanswered => Ok(()),
            Fault::Cut => client.write_all(&answer[..head + half]),
            Fault::Short => {
                let told = text(&answer[..head]).replace(&format!("Length: {body}\r"), &format!("Length: {half}\r"));
                client.write_all(told.as_bytes())?;
                client.write_all(&answer[head..head + half])
            }
            _ => client.write_all(&answer),
        }
    };
    let pass = Arc::new(pass);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let pass = pass.clone();
            std::thread::spawn(move || pass(client));
        }
    });
    address
}

/// Length of a message's head, its empty line included.
fn head_length(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4)
}

/// How long a store is away: longer than a few quick tries take.
const OUTAGE: Duration = Duration::from_millis(2500);

/// Drops every connection for some time, from the `first`th request on whose line has some words.
struct Outage {
    words: &'static str,
    first: usize,
    span: Duration,
    seen: AtomicUsize,
    dropped: AtomicUsize,
    until: OnceLock<Instant>,
}

impl Outage {
    /// The outage, and the address at which the store is behind it.
    fn of(store: &Store, words: &'static str, first: usize, span: Duration) -> (Arc<Self>, String) {
        let (seen, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let outage = Arc::new(Self { words, first, span, seen, dropped, until: OnceLock::new() });
        let shared = outage.clone();
        (outage, proxy(&store.address, move |line| shared.fault(line)))
    }

    fn fault(&self, line: &str) -> Fault {
        if line.contains(self.words) && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.first {
            let _ = self.until.set(Instant::now() + self.span);
        }
        if self.until.get().is_none_or(|until| Instant::now() >= *until) {
            return Fault::None;
        }
        self.dropped.fetch_add(1, Ordering::SeqCst);
        Fault::Dropped
    }

    fn happened(&self) -> bool {
        self.dropped.load(Ordering::SeqCst) > 0
    }
}

/// Runs a command that reaches the store at an address and must succeed.
fn ok_at(address: &str, name: &str, arguments: &[OsString]) -> String {
    let output = command(name).envs(settings(address)).args(arguments).output().expect("the binary starts");
    assert!(output.status.success(), "{name}: {}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn reading_goes_on_after_an_outage() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 24);
    store.ok("ingest", &ingesting(&raw, &url("set"), &temporary.path().join("staging"), &[]));
    let (outage, address) = Outage::of(&store, "part-", 3, OUTAGE);
    let bench = args!["bench", url("set"), "--size", "32", "--batch-size", "4", "--seconds", "0.5"];
    assert!(ok_at(&address, "dataset", &bench).contains("images/s"));
    assert!(outage.happened());
    let (outage, address) = Outage::of(&store, "part-", 3, OUTAGE);
    assert!(ok_at(&address, "dataset", &args!["verify", url("set")]).contains("all whole"));
    assert!(outage.happened());
}

#[test]
fn an_ingest_goes_on_after_an_outage() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 24);
    let local = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &local, &[]);
    for (round, words) in ["PUT", "list-type=2"].into_iter().enumerate() {
        let (outage, address) = Outage::of(&store, words, 2, OUTAGE);
        let prefix = format!("set-{round}");
        ok_at(&address, "ingest", &ingesting(&raw, &url(&prefix), &temporary.path().join("staging"), &[]));
        assert!(outage.happened(), "{words}");
        assert!(contents(&local) == store.objects(&prefix), "{words}");
    }
}

/// Arguments of a short pre-training on a dataset in the store.
fn training(run: &Path, steps: u64) -> Vec<OsString> {
    let one_thread = ["--set", "run.loader_threads=1"];
    mrm_tests::training::pretraining(Path::new(&url("set")), run, steps, &one_thread)
}

#[test]
fn training_goes_on_after_an_outage_and_keeps_its_work_where_there_is_no_end() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 40);
    store.ok("ingest", &ingesting(&raw, &url("set"), &temporary.path().join("staging"), &[]));
    store.ok("dataset", &args!["split", url("set"), "--name", "main"]);
    let run = |name: &str| temporary.path().join(name);
    store.ok("trainer", &training(&run("whole"), 12));
    let whole = mrm_tests::training::numbers(&run("whole"));
    let weights = mrm_tests::training::weights(&run("whole"));

    let (outage, address) = Outage::of(&store, "part-", 70, OUTAGE);
    ok_at(&address, "trainer", &training(&run("interrupted"), 12));
    assert!(outage.happened());
    assert!(weights == mrm_tests::training::weights(&run("interrupted")));

    // SIGTERM does not wait until the store is back.
    let (outage, address) = Outage::of(&store, "part-", 70, Duration::from_hours(1));
    let stopped = run("stopped");
    let child = command("trainer")
        .envs(settings(&address))
        .args(training(&stopped, 12))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("it starts");
    let begun = Instant::now();
    while !outage.happened() {
        assert!(begun.elapsed() < Duration::from_mins(2), "the store is not asked");
        std::thread::sleep(Duration::from_millis(20));
    }
    mrm_tests::training::wait_for(&stopped, 1);
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("kill").success());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("give the same command again"), "{}", text(&output.stdout));
    store.ok("trainer", &training(&stopped, 12));
    assert_eq!(mrm_tests::training::numbers(&stopped), whole);

    // No checkpoint is due before the store goes away for good.
    let (_, address) = Outage::of(&store, "part-", 70, Duration::from_hours(1));
    let mut lost = command("trainer");
    lost.envs(settings(&address)).env("MRM_STORE_TIMEOUT", "1").args(training(&run("lost"), 12));
    let output = lost.output().expect("it runs");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("saved a checkpoint after update"), "{told}");
    assert!(
        told.lines().last().is_some_and(|line| line.contains("no answer from") && line.contains(&address)),
        "{told}"
    );
    let made = mrm_tests::training::numbers(&run("lost"));
    assert!(!made.is_empty() && made.len() < whole.len(), "{made:?}");
    let state: serde_json::Value =
        dataset::store::files::read_json(&run("lost").join("latest/state.json")).expect("a state");
    assert_eq!(state["step"].as_u64(), Some(made.len() as u64));
    store.ok("trainer", &training(&run("lost"), 12));
    assert_eq!(mrm_tests::training::numbers(&run("lost")), whole);
    assert!(weights == mrm_tests::training::weights(&run("lost")));
}

#[test]
fn answers_that_are_cut_off_are_asked_for_again() {
    let store = Store::start();
    let direct = store.storage("set");
    for number in 0..5 {
        direct.write(&format!("shards/{number}"), vec![number; 3000 + usize::from(number)]).expect("written");
    }
    for fault in [Fault::Dropped, Fault::Unanswered, Fault::Cut, Fault::Short] {
        // The first request of each kind and object fails.
        let met = Mutex::new(BTreeSet::new());
        let once = move |line: &str| {
            let is_new = met.lock().expect("a set").insert(line.to_owned());
            if is_new { fault } else { Fault::None }
        };
        let storage = Storage::at_with(url("set"), settings(&proxy(&store.address, once))).expect("a place");
        let listed: Vec<u64> = storage.list("shards").expect("a listing").iter().map(|found| found.bytes).collect();
        assert_eq!(listed, [3000, 3001, 3002, 3003, 3004]);
        if fault != Fault::Short {
            // Nothing but its length says how long a whole object is.
            assert!(storage.read("shards/3").expect("a file") == vec![3; 3003]);
        }
        let (file, tail) = storage.open("shards/4").expect("a file");
        assert_eq!((file.length(), tail.len()), (3004, 3004));
        assert_eq!(
            file.read_ranges(&[5..20, 100..2900]).expect("ranges").iter().map(bytes::Bytes::len).sum::<usize>(),
            2815
        );
        assert_eq!(storage.size("shards/2").expect("a size"), 3002);
        if fault != Fault::Short {
            storage.write("a", "text".as_bytes()).expect("written");
            storage.remove(&["a"]).expect("removed");
        }
    }
    // Each piece of an upload, its beginning and its end.
    let temporary = folder();
    let large = temporary.path().join("large");
    let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i >> 8) as u8).collect();
    fs::write(&large, &bytes).expect("written");
    for fault in [Fault::Dropped, Fault::Unanswered] {
        let met = Mutex::new(BTreeSet::new());
        let once = move |line: &str| {
            let is_new = line.contains("large") && met.lock().expect("a set").insert(line.to_owned());
            if is_new { fault } else { Fault::None }
        };
        let storage = Storage::at_with(url("set"), settings(&proxy(&store.address, once))).expect("a place");
        storage.upload(&large, "large").expect("sent");
        assert!(store.objects("set")["large"] == bytes);
        direct.remove(&["large"]).expect("removed");
    }
}

#[test]
fn settings_are_trimmed_and_passwords_are_never_shown() {
    let store = Store::start();
    store.storage("set").write("dataset.json", "{}".as_bytes()).expect("written");
    let command_with = |settings: &[(&str, &str)], arguments: &[OsString]| {
        let mut all = store.settings();
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let output = command("dataset").envs(all).env("MRM_STORE_TIMEOUT", "0").args(arguments).output();
        text(&output.expect("the binary starts").stderr)
    };
    let inspect = args!["inspect", url("set")];
    // What is there is no manifest, and it was read.
    let told = command_with(&[("AWS_ACCESS_KEY_ID", "anyone\n"), ("AWS_SECRET_ACCESS_KEY", " anything ")], &inspect);
    assert!(told.contains("format version 0"), "{told}");
    // What cannot be sent is told with its cause.
    let told = command_with(&[("AWS_ACCESS_KEY_ID", "any\none")], &inspect);
    assert!(told.contains("error: s3://radiographs/set/dataset.json: the request broke off (called"), "{told}");

    let dead = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let endpoint = format!("http://someone:SECRET@{dead}");
    for settings in [
        vec![("AWS_ENDPOINT_URL", endpoint.as_str())],
        vec![("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_ALLOW_HTTP", "false")],
        vec![("AWS_ENDPOINT_URL", "http://someone:SE/CRET@host")],
        vec![("AWS_ENDPOINT_URL", "someone:SECRET@host")],
    ] {
        let told = command_with(&settings, &inspect);
        assert!(told.contains("error: s3://radiographs/set"), "{told}");
        assert!(!told.contains("SECRET") && !told.contains("CRET"), "{told}");
    }
    let told = command_with(&[], &args!["inspect", "s3://someone:SECRET@radiographs/set"]);
    assert!(told.contains("s3://BUCKET/PREFIX") && !told.contains("SECRET"), "{told}");
    let settings = [settings(&dead.to_string()), vec![("AWS_ENDPOINT_URL".to_owned(), endpoint)]].concat();
    let storage = Storage::at_with(url("set"), settings).expect("a place");
    let told = format!("{storage:?} {storage}");
    assert!(!told.contains("SECRET") && !told.contains("anything"), "{told}");
}

#[test]
fn a_piece_that_fails_leaves_nothing() {
    let (store, temporary) = (Store::start(), folder());
    let large = temporary.path().join("large");
    let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i >> 8) as u8).collect();
    fs::write(&large, &bytes).expect("written");
    let refuse = |line: &str| if line.contains("partNumber=2") { Fault::Refused } else { Fault::None };
    let refusing = proxy(&store.address, refuse);
    let faulty = Storage::at_with(url("set"), settings(&refusing)).expect("a place");
    let error = faulty.upload(&large, "shards/a").expect_err("refused");
    assert!(error.to_string().contains("s3://radiographs/set/shards/a"), "{error}");
    assert!(store.objects("set").is_empty());
    let asked = store.requests();
    assert!(asked.iter().any(|line| line.contains("DELETE") && line.contains("uploadId=")), "{asked:?}");
    store.storage("set").upload(&large, "shards/a").expect("sent");
    assert!(store.objects("set")["shards/a"] == bytes);
    assert_eq!(
        store.storage("set").sha256("shards/a").expect("a digest"),
        dataset::store::files::sha256(&large).expect("a digest")
    );
}

/// Times that a run is killed.
const KILLS: usize = 10;

#[test]
fn killed_again_and_again_it_ends_with_the_same_objects() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 40);
    let (local, staging) = (temporary.path().join("set"), temporary.path().join("staging"));
    let small = ["--size", "64", "--vocab-size", "400", "--rows-per-shard", "4", "--jobs", "1"];
    let mut plain = args!["mimic-cxr", &raw, &local].to_vec();
    plain.extend(small.map(Into::into));
    ok("ingest", &plain);
    let whole = contents(&local);
    let run = |prefix: &str, more: &[&str]| {
        let mut all = args!["mimic-cxr", &raw, url(prefix), "--staging", &staging].to_vec();
        all.extend(small.iter().chain(more).map(Into::into));
        all
    };
    let begun = Instant::now();
    store.ok("ingest", &run("whole", &[]));
    let span = begun.elapsed();
    assert!(whole == store.objects("whole"));

    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let (mut killed, mut resumed) = (0, 0);
    for round in 0.. {
        let prefix = format!("killed-{round}");
        loop {
            let mut child = command("ingest")
                .envs(store.settings())
                .args(run(&prefix, &[]))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it starts");
            std::thread::sleep(span.mul_f64(random.random_range(0.0..0.8)));
            child.kill().expect("SIGKILL");
            if child.wait().expect("it ends").success() {
                break;
            }
            killed += 1;
            let here = contents(&staging);
            let shards = here.keys().filter(|name| name.contains("/shards/")).count();
            assert!(shards <= 2, "one that is sent, one in the making: {:?}", here.keys());
            resumed += usize::from(!store.storage(&prefix).list("shards").expect("a listing").is_empty());
            if killed % 3 == 0 {
                break;
            }
        }
        store.ok("ingest", &run(&prefix, &[]));
        assert!(whole == store.objects(&prefix), "round {round}");
        assert!(contents(&staging).is_empty());
        if killed >= KILLS {
            break;
        }
    }
    eprintln!("{killed} kills, {resumed} after a shard was sent");
    assert!(resumed > 0);

    // What was sent is not made again; without its notes it is neither taken over nor overwritten unasked.
    let mut child = command("ingest")
        .envs(store.settings())
        .args(run("notes", &[]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = child.as_mut().expect("it starts");
    let begun = Instant::now();
    while store.storage("notes").list("shards").expect("a listing").len() < 3 {
        assert!(begun.elapsed() < Duration::from_mins(1), "nothing is sent");
    }
    child.kill().expect("SIGKILL");
    assert!(!child.wait().expect("it ends").success());
    let elsewhere = temporary.path().join("elsewhere");
    let mut other = run("notes", &[]);
    let place = other.iter().position(|argument| argument == "--staging").expect("named") + 1;
    other[place] = elsewhere.into();
    store.fails("ingest", &other, &["s3://radiographs/notes", "unfinished", "--staging", "--overwrite"]);
    assert!(store.ok("ingest", &run("notes", &[])).contains("went on after"));
    assert!(whole == store.objects("notes"));
    // What a run leaves that was killed just before its manifest, and whose staging folder is lost.
    for name in ["shards/part-00000.parquet", "rejects.parquet", "README.md", "croissant.json"] {
        store.storage("late").write(name, "of another run".as_bytes()).expect("written");
    }
    store.fails("ingest", &run("late", &[]), &["s3://radiographs/late", "unfinished", "--overwrite"]);
    store.ok("ingest", &run("late", &["--overwrite"]));
    assert!(whole == store.objects("late"));
    store.storage("mine").write("letter.txt", "no radiograph".as_bytes()).expect("written");
    store.fails("ingest", &run("mine", &["--overwrite"]), &["s3://radiographs/mine", "other objects"]);
}

#[test]
fn refused_inputs_are_taken_into_a_store_later() {
    let (store, temporary) = (Store::start(), folder());
    let Some(faults) = Faults::new(temporary.path()) else { return };
    let raw = phantom(temporary.path(), 24);
    let staging = temporary.path().join("staging");
    let run = |prefix: &str, more: &[&str]| ingesting(&raw, &url(prefix), &staging, more);
    store.ok("ingest", &run("whole", &[]));
    let image = contents(&raw).into_keys().find(|name| name.ends_with(".dcm")).expect("an image");
    let mut faulty = command("ingest");
    faulty.envs(store.settings()).args(run("set", &["--max-reject-rate", "1"]));
    faults.inject(&mut faulty, Call::Open, EIO, &[&image], None);
    let output = faulty.output().expect("it starts");
    assert!(output.status.success() && text(&output.stdout).contains("--retry-rejects"), "{}", text(&output.stderr));
    let before = store.objects("set");
    assert!(before != store.objects("whole"));
    // What a retry needs lies in the staging folder.
    let kept = temporary.path().join("kept");
    fs::rename(&staging, &kept).expect("moved");
    store.fails(
        "ingest",
        &run("set", &["--retry-rejects"]),
        &["s3://radiographs/set", "--retry-rejects", "--overwrite"],
    );
    assert!(before == store.objects("set"));
    let _ = fs::remove_dir_all(&staging);
    fs::rename(&kept, &staging).expect("moved");
    assert!(store.ok("ingest", &run("set", &["--retry-rejects"])).contains("went on after"));
    assert!(store.objects("set") == store.objects("whole"));
    assert_eq!(fs::read_dir(&staging).expect("a folder").count(), 0, "nothing is left");
}

#[test]
fn an_export_of_a_store_is_that_of_a_folder() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 24);
    let staging = temporary.path().join("staging");
    store.ok("ingest", &ingesting(&raw, &url("set"), &staging, &[]));
    store.ok("dataset", &args!["split", url("set"), "--name", "main"]);
    let local = temporary.path().join("local");
    for (name, bytes) in store.objects("set") {
        let path = local.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("written");
    }
    for format in ["webdataset", "hf", "csv"] {
        let [here, there] = ["here", "there"].map(|name| temporary.path().join(format!("{format}-{name}")));
        store.ok("dataset", &args!["export", url("set"), "--to", format, &there, "--split", "main"]);
        ok("dataset", args!["export", &local, "--to", format, &here, "--split", "main"]);
        assert!(contents(&here) == contents(&there), "{format}");
        store.fails("dataset", &args!["export", url("set"), "--to", format, url("out")], &["is no folder"]);
    }
}

#[test]
fn faults_are_told_in_one_line() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 12);
    let staging = temporary.path().join("staging");
    store.ok("ingest", &ingesting(&raw, &url("set"), &staging, &[]));
    store.ok("dataset", &args!["split", url("set"), "--name", "main"]);
    let inspect = |at: &str| args!["inspect", at].to_vec();

    let absent = "s3://no-such-bucket/set";
    store.fails("dataset", &inspect(absent), &["no-such-bucket", "no such bucket"]);
    store.fails("ingest", &ingesting(&raw, absent, &staging, &[]), &["no-such-bucket", "no such bucket"]);
    store.fails("dataset", &inspect(&url("elsewhere")), &["s3://radiographs/elsewhere", "no dataset.json"]);
    for odd in ["gs://bucket/set", "s3://", "s3:///set", "s3://bucket/a//b", "file://other/set"] {
        store.fails("dataset", &inspect(odd), &[odd.trim_end_matches('/'), "s3://BUCKET/PREFIX"]);
    }
    store.fails("ingest", &ingesting(&raw, "gs://bucket/set", &staging, &[]), &["gs://bucket/set", "s3://BUCKET"]);
    let split =
        args!["pretrain", "--data", url("set"), "--run", temporary.path().join("run"), "--preset", "mrm-vit-tiny"];
    let mut unknown = split.to_vec();
    unknown.extend(args!["--split", "other"]);
    store.fails("trainer", &unknown, &["split `other`", "main"]);

    // Settings.
    let dead = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let at = url("set");
    let mut refused = command("dataset");
    let refused = refused.envs(settings(&dead.to_string())).env("MRM_STORE_TIMEOUT", "1").args(["inspect", &at]);
    fails(refused, &[&at, "no answer", &dead.to_string(), "AWS_ENDPOINT_URL"]);
    let mut odd = command("dataset");
    let odd = odd.envs(store.settings()).env("MRM_STORE_TIMEOUT", "soon").args(["inspect", &at]);
    fails(odd, &[&at, "MRM_STORE_TIMEOUT is `soon`"]);
    let mut plain = command("dataset");
    let plain = plain.envs(store.settings()).env_remove("AWS_ALLOW_HTTP").args(["inspect", &at]);
    fails(plain, &[&at, "AWS_ALLOW_HTTP=true"]);
    let mut nobody = command("dataset");
    let nobody = nobody.envs(store.settings()).env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let nobody = nobody.env("AWS_METADATA_ENDPOINT", format!("http://{dead}")).args(["inspect", &at]);
    fails(nobody, &[&at, "AWS_ACCESS_KEY_ID"]);

    // Objects that changed under the manifest.
    let storage = store.storage("set");
    let shard = storage.read("shards/part-00000.parquet").expect("a shard");
    let name = "shards/part-00000.parquet";
    let verify = args!["verify", &at].to_vec();
    storage.write(name, shard.slice(..shard.len() - 1000)).expect("written");
    let (expected, found) = (shard.len().to_string(), (shard.len() - 1000).to_string());
    store.fails("dataset", &inspect(&at), &[name, &expected, &found]);
    let told = text(&store.run("dataset", &verify).stderr);
    assert!(told.contains(&expected) && told.contains(&found) && told.contains("1 problem in"), "{told}");
    storage.write(name, Vec::<u8>::new()).expect("written");
    store.fails("dataset", &inspect(&at), &[name, "0 bytes"]);
    let mut damaged = shard.to_vec();
    damaged[5000] ^= 1;
    storage.write(name, damaged.clone()).expect("written");
    let told = text(&store.run("dataset", &verify).stderr);
    assert!(told.contains(&format!("{name}, row")) && told.contains("`image` is damaged"), "{told}");
    // What reads it is told, too.
    let mut loader = Loader::builder(&store.dataset("set")).transform(Transform::evaluate(16)).build().expect("one");
    let told = loader.next_batch().err().expect("a damaged image").to_string();
    assert!(told.starts_with(&format!("{name}, row")) && told.contains("`image` is damaged"), "{told}");
    let export = raw.parent().expect("a folder").join("export");
    store.fails("dataset", &args!["export", &at, export, "--to", "csv"], &[name, "`image` is damaged"]);
    // One of the same size that comes in the place of another under an open reader.
    storage.write(name, shard.clone()).expect("written");
    let dataset = Dataset::open_in(store.storage("set")).expect("a dataset");
    dataset.record(0).expect("a record");
    storage.write(name, damaged).expect("written");
    let rows: Vec<u32> = (0..4).collect();
    for error in [dataset.record(1).err(), dataset.image_pages(&rows).err(), dataset.columns(&["view"]).err()] {
        let told = error.expect("another version").to_string();
        assert!(told.contains(name) && told.contains("replaced after it was opened"), "{told}");
    }
    storage.remove(&[name]).expect("removed");
    store.fails("dataset", &inspect(&at), &[name, "no such object"]);
    let told = text(&store.run("dataset", &verify).stderr);
    assert!(told.contains(name) && told.contains("no such object"), "{told}");
    storage.write(name, shard).expect("written");
    assert!(store.ok("dataset", &verify).contains("all whole"));
}

#[test]
fn a_file_url_is_a_folder() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    let out = temporary.path().join("a set");
    let at = format!("file://{}", out.display()).replace(' ', "%20");
    let mut run = args!["mimic-cxr", &raw, &at].to_vec();
    run.extend(SMALL.iter().map(Into::into));
    ok("ingest", &run);
    ok("dataset", args!["split", &at, "--name", "main"]);
    for place in [OsString::from(&at), OsString::from(&out)] {
        assert!(ok("dataset", args!["inspect", &place]).contains("splits    main"));
        assert!(ok("dataset", args!["verify", &place]).contains("all whole"));
    }
    let mut plain = args!["mimic-cxr", &raw, &out].to_vec();
    plain.extend(SMALL.iter().map(Into::into));
    assert!(ok("ingest", &plain).contains("nothing to do"));

    // A shard of another size is found before it is read, here too.
    let shard = out.join("shards/part-00000.parquet");
    let bytes = fs::read(&shard).expect("a shard");
    fs::write(&shard, [&bytes[..], b"more"].concat()).expect("written");
    let words = ["shards/part-00000.parquet", &(bytes.len() + 4).to_string(), &bytes.len().to_string()];
    fails(command("dataset").args(args!["inspect", &out]), &words);
}
