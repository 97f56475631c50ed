//! How soon a thread that wakes gets a processor. A broker's threads work for microseconds and then
//! wait; with the kernel's slice of some milliseconds, the one whose sync has just returned stands
//! behind whoever computes. Linux 6.12 and later lets a thread ask for shorter slices, which bring
//! it to a processor sooner and give it no larger share.

#![expect(unsafe_code, reason = "no library has this call; docs/benchmarks.md has what it brings")]

/// What a thread of ours asks for at a time. The kernel's least.
const SLICE_NS: u64 = 100_000;

/// The kernel's `struct sched_attr`, first version.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

const SIZE: u32 = size_of::<Attributes>() as u32;
const _: () = assert!(SIZE == 48);

/// The attributes of the calling thread.
fn attributes() -> Option<Attributes> {
    let mut attributes = Attributes::default();
    let into = &raw mut attributes;
    // SAFETY: the kernel writes at most `SIZE` octets, which is what `attributes` has, and any
    // octets are a valid value of it. 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, into, SIZE, 0_u32) };
    (result == 0).then_some(attributes)
}

/// How much nicer than the others a thread is that can wait: a tenth of their share.
const NICER: i32 = 10;
const NICE_MAX: i32 = 19;

/// Lets the calling thread run in short slices, where the kernel knows them; policy and niceness
/// stay. Returns whether the kernel took it; older ones do, and change nothing.
pub fn run_in_short_slices() -> bool {
    ask(|before| Attributes { runtime_ns: SLICE_NS, ..before })
}

/// Lets the calling thread stand behind all others: it gets what they leave, and about a tenth of
/// their share where they leave nothing. Returns whether the kernel took it.
pub fn run_behind_others() -> bool {
    ask(|before| Attributes { nice: (before.nice + NICER).min(NICE_MAX), ..before })
}

fn ask(change: impl FnOnce(Attributes) -> Attributes) -> bool {
    let Some(before) = attributes() else { return false };
    // Whoever gave the thread another policy than the normal one knows why.
    if before.policy != libc::SCHED_OTHER.cast_unsigned() {
        return false;
    }
    let wanted = Attributes { size: SIZE, ..change(before) };
    // SAFETY: the kernel only reads, and no more than the `size` that stands in the struct, which
    // lives until the call returns. 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0_u32) };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_policy_and_niceness() {
        let asked = std::thread::spawn(|| {
            let before = attributes()?;
            let taken = run_in_short_slices();
            Some((before, taken, attributes()?))
        });
        let Some((before, taken, after)) = asked.join().expect("the thread ends") else {
            // A sandbox may forbid the call: then nothing happens.
            return;
        };
        assert_eq!((after.policy, after.nice), (before.policy, before.nice));
        assert!(!taken || after.runtime_ns == SLICE_NS || after.runtime_ns == before.runtime_ns);
    }

    #[test]
    fn a_thread_that_can_wait_is_nicer_and_the_others_are_not() {
        let mine = attributes().map(|it| it.nice);
        let asked = std::thread::spawn(|| {
            let before = attributes()?;
            Some((before, run_behind_others(), attributes()?))
        });
        let asked = asked.join().expect("the thread ends");
        assert_eq!(attributes().map(|it| it.nice), mine);
        if let Some((before, true, after)) = asked {
            assert_eq!(after.nice, (before.nice + NICER).min(NICE_MAX));
        }
    }
}
