//! Measures the time to read one whole record: `cargo bench --profile release --workspace --bench records -- DATASET`.
//!
//! All records in order, then as many at random, of a dataset just opened and of one that was read before; one thread,
//! from the page cache. At last the row groups one by one, which is what a record costs that shares its group with none.

use std::hint::black_box;
use std::time::Instant;

use dataset::Dataset;
use dataset::random::Stream;

fn main() {
    let Some(folder) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        println!("give a dataset");
        return;
    };
    let open = || Dataset::open(&folder).expect("a dataset");
    let length = open().len();
    let ordered: Vec<usize> = (0..length).collect();
    let mut random = ordered.clone();
    Stream::new(&[7]).shuffle(&mut random);
    let print = |what: &str, dataset: &Dataset, rows: &[usize]| {
        let start = Instant::now();
        for &row in rows {
            black_box(dataset.record(row).expect("a record"));
        }
        println!("{what:<40} {:>9.1} µs a record", start.elapsed().as_secs_f64() * 1e6 / rows.len() as f64);
    };
    println!("{length} records");
    let dataset = open();
    print("in order, just opened", &dataset, &ordered);
    print("in order again", &dataset, &ordered);
    print("at random", &dataset, &random);
    print("at random, just opened", &open(), &random);
    let firsts: Vec<usize> = ordered.iter().copied().step_by(128).collect();
    print("one of each row group, just opened", &open(), &firsts);
}
