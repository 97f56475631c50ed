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

/// The number of the allocator's option for how long free memory rests before it goes back.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// In a second, which is its own choice, a busy publisher sends 400 MB of bodies. After much less,
/// memory would go back and come again all the time.
const PURGE_DELAY_MS: i64 = 40;

/// Gives free memory back while there is work after a moment's rest, unless the environment says
/// otherwise (`MIMALLOC_PURGE_DELAY`, in milliseconds).
pub(crate) fn give_back_soon() {
    // SAFETY: it sets a number, and nothing is allocated by another thread yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
}

/// Gives free memory back when nothing happens, as long as the process lives. The allocator itself
/// does so only when it is called upon, which in an idle broker is never.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_that_of_the_delay() {
        // SAFETY: it reads a number.
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(read(), 1_000, "what the library documents");
        give_back_soon();
        assert_eq!(read(), PURGE_DELAY_MS);
    }
}
