//! What the run costs, from `/proc`: processor time of this process and of the broker's, and the
//! broker's memory. Where something cannot be read, there is no figure.

use serde::Serialize;
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
};

const LISTENING: &str = "0A";
/// Written to `clear_refs`, it makes the peak of resident memory begin again.
const RESET_PEAK: &str = "5";

/// The broker's process, if it runs on this machine and may be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ServerProcess {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// Seconds of processor time since each process began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTimes {
    pub(crate) client: Option<f64>,
    pub(crate) server: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    pub(crate) resident_mib: f64,
    pub(crate) peak_mib: f64,
}

impl ServerProcess {
    pub(crate) fn of_pid(pid: u32) -> Option<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Self { pid, name: name.trim_end().to_owned() })
    }

    /// The process that listens at the address that a connection of ours leads to.
    pub(crate) fn at(local: SocketAddr, peer: SocketAddr) -> Option<Self> {
        if !peer.ip().is_loopback() && local.ip() != peer.ip() {
            return None;
        }
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let texts = tables.iter().filter_map(|it| fs::read_to_string(it).ok());
        let inodes: Vec<String> = texts.flat_map(|it| listening_inodes(&it, peer)).collect();
        let owns = |pid: &u32| {
            let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
            files.filter_map(|it| fs::read_link(it.ok()?.path()).ok()).any(|it| {
                let socket = it.to_string_lossy();
                inodes.iter().any(|inode| socket == format!("socket:[{inode}]"))
            })
        };
        let names =
            fs::read_dir("/proc").ok()?.filter_map(|it| it.ok()?.file_name().into_string().ok());
        names.filter_map(|it| it.parse().ok()).find(owns).and_then(Self::of_pid)
    }

    /// From now on the peak is counted anew. Where that is refused, it is the peak since the start.
    pub(crate) fn reset_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid), RESET_PEAK).ok();
    }

    pub(crate) fn memory(&self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        Some(Memory { resident_mib: mib(&status, "VmRSS:")?, peak_mib: mib(&status, "VmHWM:")? })
    }
}

impl CpuTimes {
    pub(crate) fn read(server: Option<&ServerProcess>) -> Self {
        Self {
            client: cpu_seconds("/proc/self/stat"),
            server: server.and_then(|it| cpu_seconds(&format!("/proc/{}/stat", it.pid))),
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        let between = |now: Option<f64>, before: Option<f64>| Some(now? - before?);
        Self {
            client: between(self.client, before.client),
            server: between(self.server, before.server),
        }
    }
}

/// The kernel's version.
pub(crate) fn kernel() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().to_owned())
}

/// The type of the file system that a folder lies on, such as ext4.
pub(crate) fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    file_system_in(&fs::read_to_string("/proc/self/mountinfo").ok()?, &folder)
}

/// Of all mounts above the folder the deepest counts, and of those the last.
fn file_system_in(mounts: &str, folder: &Path) -> Option<String> {
    let above = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let place = left.split(' ').nth(4)?.replace("\\040", " ");
        let kind = right.split(' ').next()?.to_owned();
        folder.starts_with(&place).then_some((place.len(), kind))
    };
    mounts.lines().filter_map(above).max_by_key(|it| it.0).map(|it| it.1)
}

fn listening_inodes(table: &str, peer: SocketAddr) -> Vec<String> {
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        let is_port = u16::from_str_radix(port, 16).ok()? == peer.port();
        let is_any = address.bytes().all(|it| it == b'0');
        let fits = is_any || address == table_form(peer.ip());
        let is_listening = *fields.get(3)? == LISTENING;
        (is_port && fits && is_listening).then(|| fields.get(9).map(|it| (*it).to_owned()))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// Words of an address as the kernel prints them: each in this machine's order of octets.
fn table_form(ip: IpAddr) -> String {
    let octets = match ip {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).filter_map(|it| it.try_into().ok());
    words.map(|it| format!("{:08X}", u32::from_ne_bytes(it))).collect()
}

/// User and system time of all threads: fields 14 and 15, counted behind the name in parentheses,
/// which may itself have blanks.
fn cpu_seconds(stat: &str) -> Option<f64> {
    cpu_ticks(&fs::read_to_string(stat).ok()?)
        .map(|it| it as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn mib(status: &str, key: &str) -> Option<f64> {
    let kib: f64 = status
        .lines()
        .find_map(|it| it.strip_prefix(key))?
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn process_that_listens_on_loopback_is_found() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let found = ServerProcess::at(local, peer).unwrap();
            assert_eq!(found.pid, std::process::id());
            assert!(0.0 < found.memory().unwrap().resident_mib);
            drop(listener);
            assert_eq!(ServerProcess::at(local, peer), None);
        }
    }

    #[test]
    fn process_on_another_machine_is_not_looked_for() {
        let (local, peer) = ("10.0.0.1:5000".parse().unwrap(), "10.0.0.2:22".parse().unwrap());
        assert_eq!(ServerProcess::at(local, peer), None);
    }

    #[test]
    fn cpu_time_is_read_behind_a_name_with_blanks_and_parentheses() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194304 90 0 0 0 250 31 0 0 20 0 1 0 5";
        assert_eq!(cpu_ticks(stat), Some(281));
        assert_eq!(cpu_ticks("12 a"), None);
    }

    #[test]
    fn file_system_is_that_of_the_deepest_mount() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /srv rw shared:1 - xfs /dev/b rw\n\
                      3 1 0:1 / /srv/my\\040data rw - tmpfs none rw\n";
        for (folder, kind) in [("/", "ext4"), ("/srv/x", "xfs"), ("/srv/my data/y", "tmpfs")] {
            assert_eq!(file_system_in(mounts, Path::new(folder)).as_deref(), Some(kind));
        }
        assert_eq!(file_system_in("", Path::new("/")), None);
    }
}
