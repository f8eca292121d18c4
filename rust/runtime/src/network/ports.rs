//! Published ports: bound before the container starts, so that a port in use keeps nothing waiting.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use duckweed_net::stack::{bind, reserve, Protocol, Published as Bound};
use rustix::io::Errno;

use super::{Publish, Published};
use crate::start_error::{Code, StartError};

/// A port of the host that is ours, and what is said about it.
#[derive(Debug)]
pub struct Port {
    /// For the stack.
    pub bound: Bound,
    /// For state.json.
    pub record: Published,
}

/// Binds all that shall be published, or nothing; `is_held`: for somebody else, who will listen there.
///
/// # Errors
/// `network`: which port cannot be had, and why.
pub fn open(wanted: &[Publish], is_held: bool) -> Result<Vec<Port>, StartError> {
    let mut ports = Vec::new();
    for publish in wanted {
        let everywhere = publish.ip.is_empty();
        let address: IpAddr = match publish.ip.parse() {
            Ok(address) => address,
            Err(_) if everywhere => Ipv4Addr::UNSPECIFIED.into(),
            Err(_) => return Err(refusal(publish, 0, &io::ErrorKind::AddrNotAvailable.into())),
        };
        let port = open_one(publish, address, is_held)?;
        let number = port.record.host;
        ports.push(port);
        if everywhere {
            // The other family on the same port, if the host has it and nobody else does.
            let both = Publish { host: (number, number), remap: false, ..publish.clone() };
            ports.extend(open_one(&both, Ipv6Addr::UNSPECIFIED.into(), is_held).ok());
        }
    }
    Ok(ports)
}

fn open_one(publish: &Publish, address: IpAddr, is_held: bool) -> Result<Port, StartError> {
    let protocol = if publish.protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
    let (first, last) = publish.host;
    let mut refused = (first, io::Error::from(Errno::ADDRINUSE));
    let remapped = publish.remap.then(|| remap(first)).into_iter().flatten();
    let bind = if is_held { reserve } else { bind };
    for number in (first..=last).chain(remapped) {
        match bind(SocketAddr::new(address, number), protocol) {
            Ok((socket, host)) => {
                let record = Published {
                    ip: address.to_string(),
                    host,
                    container: publish.container,
                    protocol: publish.protocol.clone(),
                };
                let bound = Bound { socket, protocol, port: publish.container };
                return Ok(Port { bound, record });
            }
            Err(error) => refused = (number, error),
        }
        if refused.1.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error()) {
            break;
        }
    }
    if publish.remap {
        refused.0 = first;
    }
    Err(refusal(publish, refused.0, &refused.1))
}

/// Ports to try instead: 80 becomes 8080, then any.
fn remap(port: u16) -> impl Iterator<Item = u16> {
    let near = if port < 1024 { port + 8000 } else { port.saturating_add(1) };
    [near, 0].into_iter()
}

/// In the words that people look for, and what to do.
fn refusal(publish: &Publish, port: u16, error: &io::Error) -> StartError {
    let address = if publish.ip.is_empty() { "0.0.0.0" } else { &publish.ip };
    let place = format!("{address}:{port}/{}", publish.protocol);
    let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ADDRINUSE) => {
            format!("Bind for {place} failed: port is already allocated (EADDRINUSE)")
        }
        Some(Errno::ACCESS | Errno::PERM) => format!(
            "Bind for {place} failed: ports below {} need privilege on this machine (EACCES)",
            first_free()
        ),
        Some(Errno::ADDRNOTAVAIL) => {
            format!("Bind for {place} failed: the address is not this machine's (EADDRNOTAVAIL)")
        }
        _ => format!("Bind for {place} failed: {error}"),
    };
    StartError { message: why, ..StartError::io(Code::Network, format!("publish {place}"), error) }
}

/// The first port that everybody may have.
fn first_free() -> String {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.map_or_else(|_| "1024".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(port: u16, last: u16, remap: bool) -> Publish {
        Publish { ip: "127.0.0.1".into(), host: (port, last), container: 80, protocol: "tcp".into(), remap }
    }

    #[test]
    fn a_port_in_use_is_named_and_another_is_taken_when_that_will_do() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = open(&[publish(port, port, false)], false).unwrap_err();
        assert!(error.message.contains(&format!("127.0.0.1:{port}/tcp")), "{}", error.message);
        assert!(error.message.contains("port is already allocated (EADDRINUSE)"));
        assert_eq!((error.code, error.exit_code), (Code::Network, 125));
        let ports = open(&[publish(port, port, true)], false).unwrap();
        assert_ne!(ports[0].record.host, port);
    }

    #[test]
    fn any_port_in_both_families_is_one_port() {
        let ports = open(&[Publish { ip: String::new(), ..publish(0, 0, false) }], false).unwrap();
        assert!(ports.iter().all(|port| port.record.host == ports[0].record.host && port.record.host > 0));
    }
}
