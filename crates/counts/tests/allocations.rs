//! In steady state a message allocates a fixed, small number of times on its whole road. The
//! numbers below are budgets: lower them when fewer are needed.

use counts::whole::{FANOUT, LAGGING, Load, PERSISTENT, TRANSIENT, Whole};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Counts what the system's allocator is asked for.
struct Counting;

#[allow(unsafe_code, reason = "an allocator cannot be declared otherwise")]
// SAFETY: every call goes to the system's allocator unchanged, so its promises are kept.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller keeps the contract of `alloc`, which is that of the system's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller keeps the contract of `dealloc`, which is that of the system's.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: the caller keeps the contract of `realloc`, which is that of the system's.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above; `pointer` came from the system's allocator.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations per message, after buffers have found their size.
fn allocations(load: &Load) -> f64 {
    let mut whole = Whole::new(load);
    let messages = (16 * whole.batch()).max(load.lag);
    whole.run(messages);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    whole.run(messages);
    (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / messages as f64
}

/// One test, because the counter is one for all threads.
#[test]
fn message_allocates_no_more_than_its_budget() {
    let loads = [
        ("transient", &TRANSIENT, 1.02),
        ("to a consumer that lags", &LAGGING, 1.7),
        ("persistent", &PERSISTENT, 1.2),
        ("to ten queues", &FANOUT, 1.1),
    ];
    let over: Vec<String> = loads
        .into_iter()
        .map(|(what, load, budget)| (what, allocations(load), budget))
        .filter(|(_, found, budget)| budget < found)
        .map(|(what, found, budget)| format!("{what}: {found:.3} per message, {budget} allowed"))
        .collect();
    assert!(over.is_empty(), "{over:#?}");
}
