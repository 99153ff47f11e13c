//! One fuzz target for all decoders: `BASALT_DECODER` names the body, as the folders under `corpus/` are named.
//!
//! A piece of memory larger than [`MOST`] ends the process: no decoder may take more than its bytes justify.

#![no_main]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::OnceLock,
};

use libfuzzer_sys::fuzz_target;

/// Largest piece of memory that a decoder may ask for: sixty-four times the largest input of a campaign, and more.
const MOST: usize = 64 << 20;

struct Bounded;

// SAFETY: it is the system's allocator, but that it refuses large pieces.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST {
            std::process::abort();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static BOUNDED: Bounded = Bounded;

type Body = fn(&[u8]) -> bool;

fn body() -> Body {
    static BODY: OnceLock<Body> = OnceLock::new();
    *BODY.get_or_init(|| {
        let wanted = std::env::var("BASALT_DECODER").unwrap_or_default();
        let engine = basalt_engine::testing::fuzz::TARGETS.into_iter();
        let mut all = engine.chain(basalt_raftstore::fuzz::TARGETS);
        let found = all.find(|(name, _)| *name == wanted);
        found.unwrap_or_else(|| panic!("BASALT_DECODER is {wanted:?}, and no body is called so")).1
    })
}

fuzz_target!(|data: &[u8]| {
    body()(data);
});
