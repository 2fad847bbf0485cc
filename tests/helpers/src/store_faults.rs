//! A proxy in front of an S3 server that disturbs chosen requests.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::object_store::{Store, head_length, passed_on, received, settings};
use crate::text;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// The store answers with an error: a status and a code. The request has no effect.
    Refusal(u16, &'static str),
    /// The store answers with an error of this status that repeats the head of the request, credentials included.
    Echo(u16),
    /// The request has its effect; the answer is status 500.
    LostAnswer,
    /// The connection ends in the middle of the body.
    Cut,
    /// The body pauses in its middle, for longer than [`REQUEST_TIMEOUT`].
    Stall,
    /// Half of the body, with a matching length.
    Short,
    /// The body with half of it once more, with a matching length.
    Long,
    /// One bit in each [`FLIP_EACH`] bytes of the body is another one.
    Flip,
    /// The answer is that of the object of the same name below another prefix, whatever version was asked for.
    Stale,
    /// The condition of a write is ignored.
    Unconditional,
}

/// Time after which a client gives a request up, in the settings of [`Disturbed::settings`].
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Distance of wrong bits, in bytes.
pub const FLIP_EACH: usize = 256;

/// How long a body pauses.
const STALL: Duration = Duration::from_millis(1500);

impl Disturbance {
    /// Whether the same request succeeds when it is made again.
    pub fn passes(self) -> bool {
        match self {
            Self::Refusal(status, _) | Self::Echo(status) => status >= 500 || status == 429,
            _ => true,
        }
    }
}

/// Which requests are disturbed, counted from 1.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Once(usize),
    From(usize),
}

/// A store behind a proxy that disturbs requests.
pub struct Disturbed {
    /// Host and port of the proxy.
    pub address: String,
    when: When,
    lines: Arc<Mutex<(usize, Vec<String>)>>,
}

impl Disturbed {
    /// A proxy that disturbs requests whose first line is `eligible`. `prefix` and `other` are the prefixes of
    /// [`Disturbance::Stale`].
    pub fn of(
        store: &Store,
        disturbance: Disturbance,
        when: When,
        eligible: fn(&str) -> bool,
        (prefix, other): (&str, &str),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let lines: Arc<Mutex<(usize, Vec<String>)>> = Arc::default();
        let (server, noted) = (store.address.clone(), lines.clone());
        let (prefix, other) = (format!("/{prefix}/"), format!("/{other}/"));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, noted) = (server.clone(), noted.clone());
                let (prefix, other) = (prefix.clone(), other.clone());
                std::thread::spawn(move || {
                    let disturb = |line: &str| {
                        let mut noted = noted.lock().expect("the lines");
                        if !eligible(line) {
                            return None;
                        }
                        noted.0 += 1;
                        let number = noted.0;
                        let is_meant = match when {
                            When::Once(at) => number == at,
                            When::From(at) => number >= at,
                        };
                        if is_meant {
                            noted.1.push(line.to_owned());
                        }
                        is_meant.then_some(number)
                    };
                    pass(client, &server, disturbance, &disturb, &prefix, &other)
                });
            }
        });
        Self { address, when, lines }
    }

    /// The first lines of the requests that were disturbed.
    pub fn disturbed(&self) -> Vec<String> {
        self.lines.lock().expect("the lines").1.clone()
    }

    /// Settings of a client that gives up soon where the disturbance stays, and is patient where it passes: then other requests fail
    /// only on a machine that is too busy to answer in time.
    pub fn settings(&self) -> Vec<(String, String)> {
        let patience = match self.when {
            When::Once(_) => "20",
            When::From(_) => "3",
        };
        let mut all = settings(&self.address);
        all.push(("AWS_TIMEOUT".to_owned(), format!("{} seconds", REQUEST_TIMEOUT.as_secs())));
        all.push(("MRM_STORE_TIMEOUT".to_owned(), patience.to_owned()));
        all
    }
}

/// Passes a request on, or disturbs it, where `disturb` returns its number.
fn pass(
    mut client: TcpStream,
    server: &str,
    disturbance: Disturbance,
    disturb: &dyn Fn(&str) -> Option<usize>,
    prefix: &str,
    other: &str,
) -> std::io::Result<()> {
    let Some(request) = received(&mut client)? else { return Ok(()) };
    let line = text(&request).lines().next().unwrap_or_default().to_owned();
    let Some(number) = disturb(&line) else { return client.write_all(&passed_on(server, &request)?) };
    match disturbance {
        Disturbance::Refusal(status, code) => return client.write_all(&refusal(status, code)),
        Disturbance::Echo(status) => {
            let head = text(&request[..head_length(&request).unwrap_or(request.len())]);
            let length = head.len();
            let answer =
                format!("HTTP/1.1 {status} Refused\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{head}");
            return client.write_all(answer.as_bytes());
        }
        Disturbance::LostAnswer => {
            passed_on(server, &request)?;
            return client.write_all(&refusal(500, "InternalError"));
        }
        Disturbance::Stale | Disturbance::Unconditional => {
            let end = head_length(&request).unwrap_or(request.len());
            let head = text(&request[..end]);
            let is_condition =
                |line: &str| ["if-match:", "if-none-match:"].iter().any(|name| line.to_lowercase().starts_with(name));
            let mut head = head.split("\r\n").filter(|line| !is_condition(line)).collect::<Vec<_>>().join("\r\n");
            if disturbance == Disturbance::Stale {
                head = head.replacen(prefix, other, 1);
            }
            return client.write_all(&passed_on(server, &[head.as_bytes(), &request[end..]].concat())?);
        }
        _ => {}
    }
    let mut answer = passed_on(server, &request)?;
    let head = head_length(&answer).unwrap_or(answer.len());
    let (body, half) = (answer.len() - head, (answer.len() - head) / 2);
    match disturbance {
        Disturbance::Cut => client.write_all(&answer[..head + half]),
        Disturbance::Stall => {
            client.write_all(&answer[..head + half])?;
            client.flush()?;
            std::thread::sleep(STALL);
            client.write_all(&answer[head + half..])
        }
        Disturbance::Short | Disturbance::Long => {
            let sent = if disturbance == Disturbance::Short {
                answer[head..head + half].to_vec()
            } else {
                [&answer[head..], &answer[head..head + half]].concat()
            };
            let (stated, length) = (format!("Length: {body}\r"), format!("Length: {}\r", sent.len()));
            let printed = text(&answer[..head]).replace(&stated, &length);
            client.write_all(&[printed.as_bytes(), sent.as_slice()].concat())
        }
        _ => {
            if body > 0 {
                // Ranges that are read at once have others between them, so that a single bit would rarely matter.
                let first = number.wrapping_mul(7919) % FLIP_EACH.min(body);
                for at in (first..body).step_by(FLIP_EACH) {
                    answer[head + at] ^= 1 << (at % 8);
                }
            }
            client.write_all(&answer)
        }
    }
}

/// An error as S3 answers it.
fn refusal(status: u16, code: &str) -> Vec<u8> {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>The test refuses it.</Message></Error>");
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\nRetry-After: 1\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
