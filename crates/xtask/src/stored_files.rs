//! Files under version control stay small: a large one is in every clone for ever.

use std::{fs, path::Path, process::Command};

use crate::report::Report;

const FILE_BYTES_MAX: u64 = 100_000;

pub(crate) fn check(root: &Path, report: &mut Report) {
    // Outside a clone (a source archive, say) there is nothing to check.
    let Ok(output) = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output() else {
        return;
    };
    let names = String::from_utf8_lossy(&output.stdout);
    for name in names.split('\0').filter(|it| !it.is_empty()) {
        let length = fs::metadata(root.join(name)).map_or(0, |it| it.len());
        check_length(name, length, report);
    }
}

fn check_length(name: &str, length: u64, report: &mut Report) {
    if FILE_BYTES_MAX < length {
        report.add(name, format!("{length} bytes, larger than {FILE_BYTES_MAX}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_file_is_reported() {
        let mut report = Report::default();
        check_length("a.bin", FILE_BYTES_MAX, &mut report);
        check_length("b.bin", FILE_BYTES_MAX + 1, &mut report);
        assert_eq!(vec!["b.bin: 100001 bytes, larger than 100000"], report.findings);
    }
}
