//! What a loader allocates; a separate test program, since it counts all allocations of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dataset::format::record::ImageEncoding;
use dataset::loader::TextOptions;
use dataset::transform::Transform;
use dataset::{Dataset, HostBuffer, Loader};
use helpers::{folder, made_record, write_dataset};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A buffer that counts how often one is created.
struct Lent(Vec<f32>);

static LENT: AtomicUsize = AtomicUsize::new(0);

impl HostBuffer for Lent {
    fn as_slice(&self) -> &[f32] {
        &self.0
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

#[test]
fn steady_batches_allocate_nothing_per_sample() {
    let folder = folder();
    let records: Vec<_> = (0..256).map(|row| made_record(row, (40, 48), 14)).collect();
    let findings: Vec<String> = (0..14).map(|finding| format!("finding {finding}")).collect();
    let findings: Vec<&str> = findings.iter().map(String::as_str).collect();
    write_dataset(folder.path(), &findings, ImageEncoding::Raw, &[records]);
    let dataset = Arc::new(Dataset::open(folder.path()).expect("a dataset"));
    let per_batch = |batch_size: usize| {
        let mut loader = Loader::builder(&dataset)
            .batch_size(batch_size)
            .transform(Transform::pretrain(32))
            .text(TextOptions { tokens: 32, mask_ratio: 0.5 })
            .memory(|floats| {
                LENT.fetch_add(1, Ordering::Relaxed);
                Box::new(Lent(vec![0.0; floats]))
            })
            .threads(1)
            .prefetch(2)
            .build()
            .expect("a loader");
        // Until every buffer has its largest size.
        let warm = 6 * loader.batches();
        (0..warm).for_each(|_| drop(loader.next_batch().expect("a batch")));
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let batches = 4 * loader.batches();
        (0..batches).for_each(|_| drop(loader.next_batch().expect("a batch")));
        (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / batches as f64
    };
    // A batch of any size takes a few allocations (its entry in the queue, the order of an epoch).
    let (small, large) = (per_batch(8), per_batch(64));
    assert!(small < 6.0 && large < 8.0, "{small} allocations a batch of 8, {large} a batch of 64");
    // One creation per buffer: two loaders, each with at most two prefetched batches and two in use.
    assert!((2..=8).contains(&LENT.load(Ordering::Relaxed)), "{LENT:?}");
}
