//! The binary as an operator meets it: start-up lines, signals, exit statuses.

mod bench;

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Output, Stdio},
};
use tempfile::TempDir;

fn ferrymq(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrymq"));
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null());
    command
}

fn finished(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A server that has said that it is ready.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    lines: Vec<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        while lines.last().is_none_or(|it: &String| !it.contains("Server startup complete")) {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended: {lines:?}");
            lines.push(line.trim_end().to_owned());
        }
        Self { child, stdout, lines }
    }

    /// The address of its first listener.
    fn address(&self) -> &str {
        let line = self.lines.iter().find(|it| it.contains("started TCP listener on ")).unwrap();
        line.rsplit(' ').next().unwrap()
    }

    /// Reads its log until a line has this text.
    fn wait_for_line(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "it ended without `{text}`");
        }
    }

    /// Status after this signal, and what was logged until the end.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.stdout, &mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    /// One that was not ended in order, such as by a test that failed, does not outlive its folder.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_server_without_configuration_starts_says_so_and_stops_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        let server = Running::start(ferrymq(&folder).args(["serve", "--listen", "127.0.0.1:0"]));
        assert!(server.lines.len() <= 12, "{:?}", server.lines);
        let last = server.lines.last().unwrap();
        assert!(last.ends_with("Server startup complete; 0 plugins started."), "{last}");
        let ready =
            finished(ferrymq(&folder).args(["check", "ready", "--listen", server.address()]));
        assert_eq!((ready.0, ready.1), (0, format!("ready at {}\n", server.address())));
        let (code, rest) = server.end(signal);
        assert_eq!(code, Some(0), "{rest}");
        assert!(rest.trim_end().ends_with("stopped"), "{rest}");
    }
    assert!(folder.path().join("ferrymq-data").is_dir());
}

#[test]
fn a_folder_and_an_address_in_use_are_named_with_a_cure() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(ferrymq(&folder).args(["serve", "--listen", "127.0.0.1:0"]));
    let (code, _, complaint) =
        finished(ferrymq(&folder).args(["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(code, 69);
    assert!(complaint.contains("in use by another FerryMQ; stop that one"), "{complaint}");
    let line = ["serve", "--data-dir", "other", "--listen", server.address()];
    let (code, _, complaint) = finished(ferrymq(&folder).args(line));
    assert_eq!(code, 69);
    let expected = format!(
        "ferrymq: cannot listen on {}: another process listens there; stop it, or choose another \
         address with --listen\n",
        server.address()
    );
    assert_eq!(complaint, expected);
    server.end("TERM");
}

#[test]
fn a_wrong_configuration_ends_with_all_its_errors() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.toml"), "hartbeat = 3\n[log]\nlevel = 1\n").unwrap();
    for verb in [&["serve"][..], &["check", "config"]] {
        let (code, _, complaint) =
            finished(ferrymq(&folder).args(verb).args(["--config", "x.toml"]));
        assert_eq!(code, 78);
        assert!(complaint.contains("x.toml:1: unknown key `hartbeat`; did you mean `heartbeat`?"));
        assert!(complaint.contains("x.toml:3: log.level: expected error or warn or info"));
        assert_eq!(complaint.lines().count(), 2, "{complaint}");
    }
    assert!(!folder.path().join("ferrymq-data").exists(), "nothing was touched");
}

#[test]
fn users_are_kept_in_a_folder_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let user = |verb: &[&str], password: &str| {
        finished(ferrymq(&folder).env("FERRYMQ_PASSWORD", password).arg("user").args(verb))
    };
    assert_eq!(user(&["add", "app", "--tag", "monitoring"], "secret").0, 0);
    assert_eq!(user(&["add", "app"], "secret").0, 65);
    assert_eq!(user(&["set-permissions", "app", ".*", "", "^q$"], "").0, 0);
    assert_eq!(user(&["set-permissions", "app", "(", "", ""], "").0, 65);
    assert_eq!(user(&["set-password", "app"], "other").0, 0);
    assert_eq!(user(&["list"], "").1, "name\ttags\napp\tmonitoring\nguest\tadministrator\n");
    assert_eq!(user(&["delete", "app"], "").0, 0);
    assert_eq!(user(&["delete", "app"], "").0, 65);
    let (code, said, _) = finished(ferrymq(&folder).args(["check", "data"]));
    assert_eq!(code, 0, "{said}");
}

#[test]
fn questions_and_arguments_have_their_statuses() {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    assert_eq!(finished(ferrymq(&folder).args(["check", "ready", "--listen", &address])).0, 1);
    assert_eq!(finished(ferrymq(&folder).args(["check", "data"])).0, 74);
    assert_eq!(finished(ferrymq(&folder).arg("serv")).0, 64);
    assert_eq!(finished(ferrymq(&folder).arg("version")).0, 0);
    let (code, help, _) = finished(ferrymq(&folder).args(["serve", "--help"]));
    assert!(code == 0 && help.contains("--listen <ADDRESS>"), "{help}");
}
