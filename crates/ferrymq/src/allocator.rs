//! Memory that is taken and given back by different threads, and what is free going back to the
//! system: a login's hash takes 19 MiB for a moment, which an idle broker must not keep.

#![expect(unsafe_code, reason = "the allocator's library has no safe call for it")]

use std::{thread, time::Duration};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between two looks. What was freed less than a second ago is left alone by the allocator.
const LOOK: Duration = Duration::from_secs(1);

/// Gives free memory back from time to time, as long as the process lives. The allocator itself
/// does so only when it is next called upon, which in an idle broker is never.
pub(crate) fn give_back_from_time_to_time() {
    let look = || {
        loop {
            thread::sleep(LOOK);
            // SAFETY: any thread may call it at any time; `false` touches nothing that is in use.
            unsafe { libmimalloc_sys::mi_collect(false) };
        }
    };
    // Without it memory comes back later.
    let _ = thread::Builder::new().name("allocator".to_owned()).spawn(look);
}
