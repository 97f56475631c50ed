//! All checks over the whole workspace.

use std::{fs, path::Path};

use crate::{
    documents, exceptions, layers, one_way, packages,
    report::Report,
    requests, shape,
    source::{self, Source},
    stored_files, unsafety, words,
};

pub(crate) fn check_workspace(root: &Path) -> Report {
    let mut report = Report::default();
    let sources = source::read_workspace(root);
    for folder in source::crate_folders(root) {
        let path = root.join("crates").join(&folder).join("Cargo.toml");
        let manifest = fs::read_to_string(path).expect("a crate has a manifest");
        layers::check(&folder, &manifest, &mut report);
        let of_crate: Vec<&Source> = sources.iter().filter(|it| it.crate_name == folder).collect();
        one_way::check(&of_crate, &mut report);
    }
    for source in &sources {
        shape::check(source, &mut report);
        words::check(source, &mut report);
        unsafety::check(source, &mut report);
    }
    requests::check(&sources, &mut report);
    documents::check(root, &sources, &mut report);
    packages::check(root, &mut report);
    stored_files::check(root, &mut report);
    exceptions::apply(exceptions::EXCEPTIONS, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_is_tidy() {
        let findings = check_workspace(&crate::root()).findings;
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    }
}
