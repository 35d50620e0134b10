//! Who answers at an address: listeners that say their port's number, and callers that read it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Connects, and doesn't wait for ever.
pub(crate) fn connect(to: &str) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to.parse().expect("an address"), PATIENCE)
}

/// Whom a connection to `to` reaches: the answering listener's port, or why none.
pub(crate) fn reach(to: &str) -> Result<u16, ErrorKind> {
    let mut stream = connect(to).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let mut port = [0; 2];
    stream.read_exact(&mut port).map_err(|error| error.kind())?;
    Ok(u16::from_be_bytes(port))
}

/// Answers every connection with this port's number until the process ends.
pub(crate) fn answer_with_port(address: &str, port: u16) {
    // An IPv6 address that was just given to a link isn't there at once: the kernel tells no event in this namespace.
    let deadline = Instant::now() + PATIENCE;
    let listener = loop {
        match TcpListener::bind((address, port)) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && Instant::now() < deadline => {
                thread::yield_now();
            }
            bound => break bound.expect("a listener"),
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.expect("a connection").write_all(&port.to_be_bytes());
        }
    });
}
