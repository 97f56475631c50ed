//! `ferrymq bench`: from arguments to what is said and how it ends.

use crate::{
    arguments::{Quick, Target, What},
    clock::Clock,
    error::BenchError,
    load::Site,
    own_broker::{OwnBroker, OwnFolder},
    report::Report,
    resources,
    traffic::Found,
    uri::Uri,
};
use clap::ArgMatches;
use serde_json::json;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::{
    sync::{Arc, atomic::AtomicBool},
    thread,
};

/// What is left to be said. A run can have a result and have failed.
#[derive(Debug, Default)]
pub struct Ended {
    /// For the standard output.
    pub said: String,
    pub error: Option<BenchError>,
}

/// Does what the arguments of [`crate::command`] ask for.
#[must_use]
pub fn run(matches: &ArgMatches) -> Ended {
    ended(matches).unwrap_or_else(|error| Ended { said: String::new(), error: Some(error) })
}

fn ended(matches: &ArgMatches) -> Result<Ended, BenchError> {
    let target = Target::of(matches)?;
    let what = What::of(matches)?;
    let interrupted = on_signals()?;
    let clock = Clock::start();
    let visit = |uri, pid| Site::visit(uri, clock, &interrupted, target.is_quiet, pid);
    let site = || visit(target.uri_or_default(), target.server_pid);
    let (mode, site, found) = match &what {
        What::Quick(it) => return quick(it, &target, clock, visit),
        What::Traffic(it) => {
            let mut site = site()?;
            let found = it.run(&mut site, None)?;
            (it.mode.name(), site, found)
        }
        What::Churn(it) => {
            let mut site = site()?;
            let found = it.run(&mut site)?;
            ("churn", site, found)
        }
        What::Idle(it) => {
            let mut site = site()?;
            let found = it.run(&mut site)?;
            ("idle", site, found)
        }
    };
    let mut report = report(mode, &site, &found);
    if let What::Traffic(it) = &what {
        report.heading.push(it.described());
        report.context.insert("settings".to_owned(), it.settings());
    }
    Ok(Ended::with(&report, &target, found))
}

/// Without a URI it is a broker of our own, that lives as long as this takes.
fn quick(
    quick: &Quick,
    target: &Target,
    clock: Clock,
    visit: impl Fn(Uri, Option<u32>) -> Result<Site, BenchError>,
) -> Result<Ended, BenchError> {
    let folder = OwnFolder::create()?;
    let baseline = quick.baseline(folder.path(), clock)?;
    let own = match target.uri {
        Some(_) => None,
        None => Some(OwnBroker::start(folder.path())?),
    };
    let mut site = match &own {
        Some(own) => visit(own.uri.clone(), Some(own.pid()))?,
        None => visit(target.uri_or_default(), target.server_pid)?,
    };
    let found = quick.run(&mut site, baseline, own.is_some())?;
    let mut report = report("quick", &site, &found);
    let file_system = resources::file_system(folder.path());
    if own.is_some() {
        let on = file_system.as_ref().map_or_else(String::new, |it| format!(" on {it}"));
        report.heading.push(format!("started for this run, its folder{on} in the current folder"));
    }
    let context = [("is_own_broker", json!(own.is_some())), ("file_system", json!(file_system))];
    report.context.extend(context.map(|(key, value)| (key.to_owned(), value)));
    Ok(Ended::with(&report, target, found))
}

impl Ended {
    fn with(report: &Report, target: &Target, found: Found) -> Self {
        let error = found.verdict.map(BenchError::Verdict);
        Self { said: report.written(target.format), error }
    }
}

/// The first signal ends the run in order, a second one at once.
fn on_signals() -> Result<Arc<AtomicBool>, BenchError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

fn report(mode: &str, site: &Site, found: &Found) -> Report {
    let (address, product) = (site.uri.address(), &site.product);
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let mut report = Report {
        heading: vec![format!("{mode}: {} {} at {address}", product.name, product.version)],
        sections: found.sections.clone(),
        notes: found.notes.clone(),
        ..Report::default()
    };
    let broker = json!({
        "product": product.name,
        "version": product.version,
        "address": address,
        "process": site.server,
    });
    let machine = json!({ "cpus": cpus, "kernel": resources::kernel() });
    for (key, value) in [("mode", json!(mode)), ("broker", broker), ("machine", machine)] {
        report.context.insert(key.to_owned(), value);
    }
    report
}
