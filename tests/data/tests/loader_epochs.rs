//! A loader over many epochs; a separate test program, since it measures the memory of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use dataset::format::record::{ImageEncoding, Record};
use dataset::loader::TextOptions;
use dataset::transform::Transform;
use dataset::{Dataset, Loader};
use helpers::{folder, made_record, write_dataset};

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("a file of Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

#[test]
fn memory_is_constant_and_order_exact_over_many_epochs() {
    const ROWS: usize = 97;
    let temporary = folder();
    let records: Vec<Record> = (0..ROWS).map(|row| made_record(row, (12, 10), 3)).collect();
    write_dataset(temporary.path(), &["A", "B", "C"], ImageEncoding::Raw, &[records]);
    let dataset = Arc::new(Dataset::open(temporary.path()).expect("a dataset"));
    let all: BTreeSet<u32> = (0..ROWS as u32).collect();
    let mut loader = Loader::builder(&dataset)
        .batch_size(16)
        .transform(Transform::pretrain(64))
        .text(TextOptions { tokens: 16, mask_ratio: 0.5 })
        .build()
        .expect("a loader");
    let mut orders = BTreeMap::new();
    let mut before = 0;
    for epoch in 0..400u64 {
        let rows: Vec<u32> = loader
            .by_ref()
            .flat_map(|batch| {
                let batch = batch.expect("a batch");
                assert_eq!(batch.epoch, epoch);
                batch.rows().to_vec()
            })
            .collect();
        assert_eq!(rows.iter().copied().collect::<BTreeSet<_>>(), all);
        orders.insert(rows, epoch);
        if epoch == 40 {
            before = resident();
        }
    }
    assert_eq!(orders.len(), 400, "every epoch has a different order");
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "grown by {grown} bytes in 360 epochs");
}
