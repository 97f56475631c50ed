//! A broker of our own for one run: this program, a new folder, a free port of loopback. When it is
//! dropped, both are gone.

use crate::{error::BenchError, uri::Uri};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{fs::DirBuilderExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What it logs, and waits for.
const LISTENING: &str = "started TCP listener on ";
const READY: &str = "Server startup complete";

/// A folder that is deleted with everything in it.
pub(crate) struct OwnFolder(PathBuf);

pub(crate) struct OwnBroker {
    child: Child,
    pub(crate) uri: Uri,
}

impl OwnFolder {
    /// A new one in the current folder, on the disk that the user has chosen by being there.
    pub(crate) fn create() -> Result<Self, BenchError> {
        let name = format!("ferrymq-bench-{:016x}", RandomState::new().hash_one(0));
        let current = env::current_dir()
            .map_err(|source| BenchError::Disk { path: PathBuf::from("."), source })?;
        let path = current.join(name);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(BenchError::Disk { path, source }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        // It is ours alone; what cannot be deleted has our name on it.
        fs::remove_dir_all(&self.0).ok();
    }
}

impl OwnBroker {
    /// Starts this program's server. It gets no environment and no configuration of the user's.
    pub(crate) fn start(folder: &Path) -> Result<Self, BenchError> {
        let failed = |why: String| BenchError::OwnBroker(format!("cannot start a broker: {why}"));
        let program = env::current_exe().map_err(|it| failed(it.to_string()))?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.join("data"))
            .env_clear()
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for us; we end it when we have deleted our queues.
            .process_group(0);
        let mut child = command.spawn().map_err(|it| failed(it.to_string()))?;
        let stdout = child.stdout.take().expect("it is a pipe");
        let (lines, arriving) = mpsc::channel();
        thread::spawn(move || {
            // Read to the end: a full pipe would stop the server.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines.send(line).ok();
            }
        });
        let mut broker = Self { child, uri: Uri::loopback(0) };
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = arriving.recv_timeout(left) else {
                return Err(failed(broker.complaint()));
            };
            if let Some((_, address)) = line.split_once(LISTENING) {
                let port = address.rsplit(':').next().and_then(|it| it.trim().parse().ok());
                broker.uri = Uri::loopback(port.unwrap_or(0));
            }
            if line.contains(READY) {
                return Ok(broker);
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said when it did not start.
    fn complaint(&mut self) -> String {
        self.end();
        let mut text = String::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            stderr.read_to_string(&mut text).ok();
        }
        let text = text.trim();
        if text.is_empty() {
            "it does not say that it is ready".to_owned()
        } else {
            text.to_owned()
        }
    }

    /// In order, and if it does not end, at once.
    fn end(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && matches!(self.child.try_wait(), Ok(None))
        {
            // If it has ended meanwhile, there is nothing to end.
            kill_process(pid, Signal::TERM).ok();
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if deadline <= Instant::now() {
                self.child.kill().ok();
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.end();
    }
}
