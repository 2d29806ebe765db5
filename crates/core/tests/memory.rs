//! What a job that waits costs in memory, beyond its payload.
#![allow(unsafe_code, unreachable_pub)] // A global allocator is unsafe by its nature; this one only counts.

#[path = "../benches/service/mod.rs"]
#[allow(dead_code, missing_docs)]
mod service;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use service::{Payload, Service};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is; the counter touches no memory of anybody's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST: f64 = 300.0;

/// One test alone in this file: another would run beside it and be counted too.
#[test]
fn a_queued_job_costs_at_most_300_bytes_beyond_its_payload() {
    let mut service = Service::of(3);
    let mut live = [0; 2];
    for (number, queued) in [100_000, 1_000_000].into_iter().enumerate() {
        while service.core.pending() < queued {
            service.submit();
        }
        live[number] = LIVE.load(Ordering::Relaxed);
    }
    let slope = (live[1] - live[0]) as f64 / 900_000.0 - size_of::<Payload>() as f64;
    assert!(slope <= MOST, "{slope:.0} B for each queued job beyond its payload; {MOST} is the most");
    assert!(slope >= 50.0, "{slope:.0} B: the counting is wrong");
    let message = format!("{slope:.1} B for each queued job beyond its payload of {} B\n", size_of::<Payload>());
    std::io::Write::write_all(&mut std::io::stdout(), message.as_bytes()).expect("stdout is open");
}
