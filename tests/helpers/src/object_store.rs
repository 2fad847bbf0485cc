//! Datasets in an object store: the same bytes as in a folder, few requests, and one line for each fault.
//!
//! The store is `moto`, an S3 API in Python, on a free port of 127.0.0.1.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::{SMALL, args, command, folder, python, text};
use dataset::{Dataset, Storage};
use tempfile::TempDir;

/// Serves one request at a time, so that a conditional write is atomic.
const ONE_AT_A_TIME: &str = r#"
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app))
print(f" * Running on http://127.0.0.1:{server.port}", file=__import__("sys").stderr, flush=True)
server.serve_forever()
"#;

/// An S3 server with one bucket, which stops at the end of the test.
pub struct Store {
    child: Child,
    log: PathBuf,
    /// Host and port.
    pub address: String,
    _folder: TempDir,
}

const BUCKET: &str = "radiographs";

impl Store {
    /// Starts one that serves requests at the same time.
    pub fn start() -> Self {
        Self::of(&["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
    }

    /// Starts one whose conditional writes are atomic.
    pub fn atomic() -> Self {
        Self::of(&["-c", ONE_AT_A_TIME])
    }

    fn of(arguments: &[&str]) -> Self {
        let temporary = folder();
        let log = temporary.path().join("log");
        let file = File::create(&log).expect("a log");
        let child = python()
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("python starts (MRM_PYTHON names a Python with moto[s3], flask, flask-cors)");
        let mut store = Self { child, log, address: String::new(), _folder: temporary };
        let started = Instant::now();
        store.address = loop {
            let printed = fs::read_to_string(&store.log).expect("the log");
            if let Some((_, rest)) = printed.split_once("Running on http://") {
                break rest.split_whitespace().next().expect("an address").to_owned();
            }
            let ended = store.child.try_wait().expect("its state");
            assert!(ended.is_none() && started.elapsed() < Duration::from_mins(2), "no server: {printed}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut connection = TcpStream::connect(&store.address).expect("a connection");
        write!(connection, "PUT /{BUCKET} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.") && answer[8..].starts_with(" 200"), "{answer}");
        store
    }

    /// The environment variables that a user sets to reach it.
    pub fn settings(&self) -> Vec<(String, String)> {
        settings(&self.address)
    }

    pub fn storage(&self, prefix: &str) -> Storage {
        Storage::at_with(url(prefix), self.settings()).expect("a place")
    }

    pub fn dataset(&self, prefix: &str) -> Arc<Dataset> {
        Arc::new(Dataset::open_in(self.storage(prefix)).expect("a dataset"))
    }

    /// Name and bytes of all objects below a prefix.
    pub fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let storage = self.storage(prefix);
        let listed = storage.list("").expect("a listing");
        listed.into_iter().map(|found| (found.name.clone(), storage.read(&found.name).expect("it").to_vec())).collect()
    }

    pub fn run(&self, name: &str, arguments: &[OsString]) -> Output {
        command(name).envs(self.settings()).args(arguments).output().expect("the binary starts")
    }

    pub fn ok(&self, name: &str, arguments: &[OsString]) -> String {
        let output = self.run(name, arguments);
        assert!(output.status.success(), "{name}: {}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command that must fail with exit code 1 and one line with these words.
    pub fn fails(&self, name: &str, arguments: &[OsString], words: &[&str]) {
        fails(command(name).envs(self.settings()).args(arguments), words);
    }

    /// Requests so far, one line each.
    pub fn requests(&self) -> Vec<String> {
        let printed = fs::read_to_string(&self.log).expect("the log");
        printed.lines().filter(|line| line.contains(" HTTP/1.1")).map(str::to_owned).collect()
    }

    /// The result of some work, and the number of its requests.
    pub fn counted<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
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

pub fn settings(address: &str) -> Vec<(String, String)> {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        set("AWS_ENDPOINT_URL", &format!("http://{address}")),
        set("AWS_ALLOW_HTTP", "true"),
        set("AWS_ACCESS_KEY_ID", "anyone"),
        set("AWS_SECRET_ACCESS_KEY", "anything"),
        set("AWS_REGION", "us-east-1"),
    ]
}

pub fn fails(command: &mut Command, words: &[&str]) {
    let begun = Instant::now();
    let output = command.output().expect("the binary starts");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let last = message.lines().last().expect("a line");
    assert!(words.iter().all(|word| last.contains(word)), "{words:?} in {message}");
    assert!(!message.contains("panicked") && last.len() < 500, "{message}");
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}: {message}", begun.elapsed());
}

pub fn url(prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}")
}

pub fn ingesting(raw: &Path, out: &str, staging: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["mimic-cxr", raw, out, "--staging", staging].to_vec();
    all.extend(SMALL.iter().chain(more).map(Into::into));
    all
}

/// What a proxy does with a request.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Answers with status 400.
    Refused,
    /// Closes the connection without passing the request on.
    Dropped,
    /// Passes the request on, and closes the connection without an answer.
    Unanswered,
    /// Closes the connection in the middle of the answer's body.
    Cut,
    /// Sends half of the body with a matching length.
    Short,
}

/// Passes requests on to the store, with the fault that `fault` returns for the first line of a request. Returns its address.
pub fn proxy(store: &str, fault: impl Fn(&str) -> Fault + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, store) = (listener.local_addr().expect("an address").to_string(), store.to_owned());
    let pass = move |mut client: TcpStream| -> std::io::Result<()> {
        let Some(request) = received(&mut client)? else { return Ok(()) };
        let fault = fault(text(&request).lines().next().unwrap_or_default());
        match fault {
            Fault::Refused => {
                return client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
            Fault::Dropped => return Ok(()),
            _ => {}
        }
        let answer = passed_on(&store, &request)?;
        let head = head_length(&answer).unwrap_or(answer.len());
        let (body, half) = (answer.len() - head, (answer.len() - head) / 2);
        match fault {
            Fault::Unanswered => Ok(()),
            Fault::Cut => client.write_all(&answer[..head + half]),
            Fault::Short => {
                let printed = text(&answer[..head]).replace(&format!("Length: {body}\r"), &format!("Length: {half}\r"));
                client.write_all(printed.as_bytes())?;
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

/// A whole request; `None` where the client sends none.
pub(crate) fn received(client: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
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
            return Ok(None);
        }
    };
    while request.len() < length {
        let read = client.read(&mut piece)?;
        if read == 0 {
            return Ok(None);
        }
        request.extend_from_slice(&piece[..read]);
    }
    Ok(Some(request))
}

/// The answer of the store to a request.
pub(crate) fn passed_on(store: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let (mut server, mut answer) = (TcpStream::connect(store)?, Vec::new());
    server.write_all(request)?;
    // The store closes the connection after each answer.
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Length of a message's head, its empty line included.
pub(crate) fn head_length(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4)
}

/// Duration of an outage: longer than a few quick retries.
pub const OUTAGE: Duration = Duration::from_millis(2500);

/// Drops every connection for some time, starting at the `first`th request that contains `words`.
pub struct Outage {
    words: &'static str,
    first: usize,
    span: Duration,
    seen: AtomicUsize,
    dropped: AtomicUsize,
    until: OnceLock<Instant>,
}

impl Outage {
    /// The outage, and the address of the proxy.
    pub fn of(store: &Store, words: &'static str, first: usize, span: Duration) -> (Arc<Self>, String) {
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

    pub fn happened(&self) -> bool {
        self.dropped.load(Ordering::SeqCst) > 0
    }
}

/// Runs a command that uses the store at an address and must succeed.
pub fn ok_at(address: &str, name: &str, arguments: &[OsString]) -> String {
    let output = command(name).envs(settings(address)).args(arguments).output().expect("the binary starts");
    assert!(output.status.success(), "{name}: {}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
