//! Questions about a server that runs, asked from outside.

use crate::config::{Config, ListenAddress};
use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// A method frame of channel 0.
const FRAME_BEGIN: [u8; 3] = [1, 0, 0];
/// `connection.start`.
const START: [u8; 4] = [0, 10, 0, 10];
const FRAME_SIZE_OCTETS: usize = 4;

/// Why clients cannot be sent to a server.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {problem}")]
pub struct NotReady {
    pub address: SocketAddr,
    pub problem: String,
}

/// Asks every configured listener for its first frame, those with TLS only for a connection.
/// Returns the addresses that answered.
///
/// # Errors
/// [`NotReady`], for the first one that does not.
pub fn ready(config: &Config, patience: Duration) -> Result<Vec<SocketAddr>, NotReady> {
    let mut answered = Vec::new();
    for listen in &config.listeners_tcp {
        answered.push(ask(target(*listen), patience, greet)?);
    }
    for listen in &config.listeners_tls {
        answered.push(ask(target(*listen), patience, |_| Ok(()))?);
    }
    Ok(answered)
}

/// Where a listener is reached from this machine.
fn target(listen: ListenAddress) -> SocketAddr {
    match listen {
        ListenAddress::Loopback(port) | ListenAddress::Everywhere(port) => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        }
        ListenAddress::At(address) if address.ip().is_unspecified() => {
            let ip = match address.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            SocketAddr::new(ip, address.port())
        }
        ListenAddress::At(address) => address,
    }
}

fn ask(
    address: SocketAddr,
    patience: Duration,
    talk: impl FnOnce(&mut TcpStream) -> io::Result<()>,
) -> Result<SocketAddr, NotReady> {
    let answered = TcpStream::connect_timeout(&address, patience).and_then(|mut socket| {
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        talk(&mut socket)
    });
    match answered {
        Ok(()) => Ok(address),
        Err(error) => Err(NotReady { address, problem: error.to_string() }),
    }
}

fn greet(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(HEADER)?;
    let mut frame = [0; FRAME_BEGIN.len() + FRAME_SIZE_OCTETS + START.len()];
    socket.read_exact(&mut frame)?;
    if frame.starts_with(&FRAME_BEGIN) && frame.ends_with(&START) {
        return Ok(());
    }
    Err(io::Error::other("something else than AMQP 0-9-1 answers there"))
}
