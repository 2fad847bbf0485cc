//! Mutates seeds, and tries what came of them: within the memory and the time that they may take, and without a panic.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use helpers::{contents, tests_folder};
use ingest::dicom::limits::MAX_VALUES;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Memory that one image may take: eight bytes for each value of the largest image.
pub const IMAGE_BYTES: usize = 8 * MAX_VALUES as usize;
/// Memory that one small text or table may take.
pub const TEXT: usize = 128 << 20;

/// Counts what is allocated.
struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;
/// Place of a panic in this project's code, caught or not.
static OWN_PANIC: Mutex<Option<String>> = Mutex::new(None);

pub fn watch_panics() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map_or_else(String::new, ToString::to_string);
            let of_others = place.contains("/registry/") || place.contains("/rustc/");
            if place.contains("tests/data/") || place.contains("tests/helpers/") {
                usual(panic);
            } else if !of_others {
                *OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic.to_string());
            }
        }));
    });
}

/// What a target tries: the name of the seed, the bytes made of it, and a folder to work in.
pub type Try<'a> = &'a dyn Fn(&Path, &str, &[u8]);

/// Runs one input, and returns the memory that it took in addition.
pub fn measured(work: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    let own = OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    assert!(own.is_none(), "{}", own.unwrap_or_default());
    PEAK.load(Relaxed).saturating_sub(before)
}

/// Prints the number of the failed case, and keeps its input.
struct Case<'a> {
    target: &'a str,
    number: String,
    seed: &'a str,
    input: &'a [u8],
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { target, number, seed, input } = self;
            let name = format!("{}-{target}-{number}-{seed}", std::process::id()).replace('/', "_");
            let kept = std::env::temp_dir().join(name);
            let printed = match fs::write(&kept, input) {
                Ok(()) => format!("its input is {}", kept.display()),
                Err(error) => format!("its input could not be kept: {error}"),
            };
            eprintln!("{target}: MRM_FUZZ_CASE={number} ({seed}) failed; {printed}");
        }
    }
}

/// Mutations of each target, unless `MRM_FUZZ_SECONDS` is set.
const CASES: u64 = 300;
/// One target at a time: memory is counted for the whole process.
pub static ALONE: Mutex<()> = Mutex::new(());

pub fn mutate_and_try(target: &str, seeds: &[(String, Vec<u8>)], place: &Path, limit: usize, attempt: Try<'_>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    watch_panics();
    let one = |number: String, seed: &str, input: &[u8]| {
        let case = Case { target, number, seed, input };
        let started = Instant::now();
        let peak = measured(|| attempt(place, seed, input));
        assert!(peak <= limit, "{} MiB for an input of {} bytes", peak >> 20, input.len());
        assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
        drop(case);
    };
    for (name, seed) in seeds {
        one("unchanged".to_owned(), name, seed);
    }
    let corpus = tests_folder().join("corpus").join(target);
    if corpus.is_dir() {
        for (name, input) in contents(&corpus) {
            let seed = seeds.iter().map(|(seed, _)| seed).filter(|seed| name.starts_with(seed.as_str()));
            one(format!("corpus/{name}"), seed.max_by_key(|seed| seed.len()).unwrap_or(&name), &input);
        }
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(case) = number("MRM_FUZZ_CASE") {
        let (seed, input) = mutated(seeds, case);
        return one(case.to_string(), seed, &input);
    }
    // The number of cases is fixed, so that the result does not depend on the speed of the machine.
    let (most, seconds) = number("MRM_FUZZ_SECONDS").map_or((CASES, 600), |seconds| (u64::MAX, seconds));
    // Resets the largest resident size.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let resident = |field: &str| -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes =
            status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
        kilobytes.unwrap_or(0) << 10
    };
    let before = resident("VmRSS:");
    let started = Instant::now();
    // Written for a crash that ends the process.
    let mut trace = (most > CASES).then(|| {
        let path = std::env::temp_dir().join(format!("{}-{target}.case", std::process::id()));
        fs::File::create(path).expect("a trace")
    });
    let mut cases = 0;
    while cases < most && started.elapsed() < Duration::from_secs(seconds) {
        if let Some(trace) = &mut trace {
            writeln!(trace, "{cases}").expect("a trace");
        }
        let (seed, input) = mutated(seeds, cases);
        one(cases.to_string(), seed, &input);
        cases += 1;
    }
    // Includes the memory that decoders take from C's allocator.
    let grown = resident("VmHWM:").saturating_sub(before);
    eprintln!("{target}: {cases} cases, {} MiB resident at most", grown >> 20);
    assert!(grown < limit + (256 << 20), "{} MiB resident", grown >> 20);
    assert!(cases > 0);
}

/// The input of a case: a seed with one to four changes.
fn mutated(seeds: &[(String, Vec<u8>)], case: u64) -> (&str, Vec<u8>) {
    let mut random = ChaCha8Rng::seed_from_u64(case);
    let (name, seed) = seeds.choose(&mut random).expect("seeds");
    let mut bytes = seed.clone();
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            bytes.push(random.random());
        }
        // Headers come first, and are changed more often than pixels.
        let reach = if random.random_bool(0.6) { bytes.len().min(2048) } else { bytes.len() };
        let at = random.random_range(0..reach);
        let to = (at + 1 + (random.random_range(0.0..1.0f64).powi(4) * 4096.0) as usize).min(bytes.len());
        match random.random_range(0..9) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff, b',', b'"', b'\n', b':'].choose(&mut random).expect("bytes"),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let run = vec![random.random(); to - at];
                bytes.splice(at..at, run);
            }
            // A length or a size with an extreme value.
            6 => {
                let value = *[0u32, 1, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_fff0, 0xffff_ffff]
                    .choose(&mut random)
                    .expect("a value");
                let wide: &[u8] = match random.random_range(0..3) {
                    0 => &value.to_le_bytes(),
                    1 => &value.to_be_bytes(),
                    _ => &(value as u16).to_le_bytes(),
                };
                let end = (at + wide.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&wide[..end - at]);
            }
            // The rest of another seed.
            7 => {
                let (_, other) = seeds.choose(&mut random).expect("seeds");
                bytes.truncate(at);
                let from = random.random_range(0..=other.len().min(at + 64));
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes[at..to].iter_mut().for_each(|byte| *byte = random.random()),
        }
    }
    (name, bytes)
}

pub fn named(contents: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    contents.into_iter().map(|(name, bytes)| (name.rsplit('/').next().unwrap_or(&name).to_owned(), bytes)).collect()
}
