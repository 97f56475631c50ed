//! The inputs of a fuzz target that are worth keeping, for the tests of the crate that it is about:
//! they include this file and judge each input by the function that the target uses.

use std::{panic, path::PathBuf};

/// Calls `judge` with each input of the target; fails with the names of those it panics on.
pub(crate) fn replay(target: &str, judge: impl Fn(&[u8]) + panic::RefUnwindSafe) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
    let folder = PathBuf::from(folder).join(target);
    let files = std::fs::read_dir(folder).expect("the corpus is part of the project");
    let mut paths: Vec<_> = files.map(|it| it.expect("its files can be listed").path()).collect();
    assert!(!paths.is_empty());
    paths.sort_unstable();
    paths.retain(|path| {
        let octets = std::fs::read(path).expect("its files can be read");
        panic::catch_unwind(|| judge(&octets)).is_err()
    });
    assert_eq!(paths, [] as [PathBuf; 0]);
}
