//! Memory that is taken and given back by different threads, and what is free going back to the
//! system: a login's hash takes 19 MiB for a moment, which an idle broker must not keep. The
//! allocator is built without huge pages, with which a few octets can cost two megabytes.

#![expect(unsafe_code, reason = "the allocator's library has no safe call for it")]

use rustix::time::{ClockId, clock_gettime};
use std::{thread, time::Duration};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A process that has used less of a processor between two looks is idle.
const IDLE: Duration = Duration::from_millis(10);

/// Gives free memory back when nothing happens, as long as the process lives. The allocator itself
/// does so only when it is called upon, which in an idle broker is never; and while there is work,
/// what is free is wanted again soon.
pub(crate) fn give_back_when_idle() {
    let look = || {
        let mut is_done = false;
        let mut before = processor_time();
        loop {
            thread::sleep(LOOK);
            let now = processor_time();
            let is_idle = now.saturating_sub(before) < IDLE;
            if is_idle && !is_done {
                // SAFETY: any thread may call it at any time; it touches nothing that is in use.
                unsafe { libmimalloc_sys::mi_collect(true) };
            }
            is_done = is_idle;
            before = processor_time();
        }
    };
    // Without it memory comes back later.
    let _ = thread::Builder::new().name("allocator".to_owned()).spawn(look);
}

/// What the process has used of processors since its start.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let whole = Duration::from_secs(time.tv_sec.unsigned_abs());
    whole + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}
