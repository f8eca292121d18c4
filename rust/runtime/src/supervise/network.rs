//! A container's network in its supervisor: ready before the start, served in the loop, gone with the end.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use duckweed_net::gate::rules::first_address;
use duckweed_net::rtnetlink::Netlink;
use duckweed_net::stack::{Doors, Stack, Traffic};
use rustix::fs::{Mode, OFlags};

use super::address;
use super::watch::{Place, Supervisor};
use crate::bundle::Bundle;
use crate::message::{packet, Answer, Request, SupervisorMessage};
use crate::network::inside;
use crate::network::members::{self, Kept, Turn};
use crate::network::names::Members;
use crate::network::outlet::Outlet;
use crate::network::{neighbours, Membership, Network, Published};
use crate::start_error::{Code, Doing as _, StartError};
use crate::userns;

/// What was made before the container.
pub(super) struct Ready {
    outlet: Outlet,
    membership: Option<(Kept, Turn, PathBuf)>,
    /// Where a container without a link asks for names.
    doors: Option<Doors>,
}

/// Takes ports, and finds or makes the networks; `None` for a bundle that asks for neither.
///
/// # Errors
/// `network`: what cannot be had.
pub(super) fn prepare(bundle: &mut Bundle, place: &Place) -> Result<Option<Ready>, StartError> {
    let Some(network) = bundle.block.network.clone() else { return Ok(None) };
    if let Some(other) = &network.shares {
        share(bundle, other)?;
        return Ok(None);
    }
    let mut outlet = Outlet::prepare(&network)?;
    if network.gate {
        let doors = behind_gate(bundle, place, &network, &outlet)?;
        return Ok(Some(Ready { outlet, membership: None, doors }));
    }
    let mut membership = None;
    if !network.networks.is_empty() {
        let run = run_directory(place).doing(Code::Network, || "find the directory of sockets")?;
        let turn = Turn::take(&run)?;
        let ids: Vec<&str> = network.networks.iter().map(|one| one.id.as_str()).collect();
        let mut kept = match turn.find(&ids) {
            Some(kept) => kept,
            None => Kept { user: Arc::new(userns::make_for(bundle)?), networks: Vec::new() },
        };
        if !bundle.joined {
            userns::join(kept.user.as_fd())?;
            bundle.joined = true;
        }
        for one in &network.networks {
            let known = kept.networks.iter().find(|(id, _)| *id == one.id).map(|(_, fd)| Arc::clone(fd));
            let namespace = match known {
                Some(namespace) => namespace,
                None => {
                    let made = Arc::new(members::make(one)?);
                    kept.networks.push((one.id.clone(), Arc::clone(&made)));
                    made
                }
            };
            outlet.link.namespaces.push(namespace);
        }
        // Other networks are their members' to keep.
        kept.networks.retain(|(id, _)| ids.contains(&id.as_str()));
        membership = Some((kept, turn, run));
    }
    bundle.link = Some(outlet.link.clone());
    Ok(Some(Ready { outlet, membership, doors: None }))
}

/// Says where the container's sockets may go; opens its name server when it is to have one.
fn behind_gate(
    bundle: &mut Bundle,
    place: &Place,
    network: &Network,
    outlet: &Outlet,
) -> Result<Option<Doors>, StartError> {
    let mut number = [0; 4];
    let _ = rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty());
    let number = u32::from_ne_bytes(number);
    let mut terms = outlet.terms(network, number);
    let mut opened = None;
    if network.name_server || !network.networks.is_empty() {
        neighbours::prepare(&place.container, number)
            .and_then(|()| neighbours::Store::open(&place.store, &place.id))
            .map(|known| terms.neighbours = Some(Arc::new(known)))
            .doing(Code::Network, || "find the members of the container's networks")?;
        let doors =
            Doors::open(first_address(number)).doing(Code::Network, || "open the container's name server")?;
        terms.resolver = Some(doors.address);
        terms.servers = Vec::new();
        opened = Some(doors);
    }
    bundle.gate = Some(terms);
    Ok(opened)
}

/// Prepares to enter the network of a container that runs: we must be root of its user namespace for that.
fn share(bundle: &mut Bundle, other: &Path) -> Result<(), StartError> {
    let id = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let what = || format!("share the network of container {}", id.get(..12).unwrap_or(&id));
    let Some(pid) = super::state::init_of(other) else {
        let message = format!("cannot {}: it is not running", what());
        return Err(StartError::new(Code::Network, what(), message));
    };
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(Code::Network, what)
    };
    let (user, network) = (open("user")?, open("net")?);
    userns::join(user.as_fd())?;
    bundle.joined = true;
    bundle.shared_network = Some(Arc::new(network));
    Ok(())
}

/// Where this container's socket is, and the list of members with it.
fn run_directory(place: &Place) -> std::io::Result<PathBuf> {
    let runtime_directory = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let socket = address::socket_path(runtime_directory.as_deref(), &place.store, &place.id)?;
    Ok(socket.parent().unwrap_or(Path::new("/")).to_owned())
}

impl Ready {
    /// The container runs, and this is its link.
    ///
    /// # Errors
    /// `network`: no link came, or no descriptors are left.
    pub fn connect(
        self,
        bundle: &Bundle,
        link: Option<OwnedFd>,
        place: &Place,
    ) -> Result<Connected, StartError> {
        let network = bundle.block.network.clone().unwrap_or_default();
        let ports = self.outlet.ports.clone();
        let members = Members::new(&place.store, &network.networks);
        let way = if network.gate {
            let addresses = self.outlet.link.addresses;
            let opened =
                self.doors.map(|doors| Outlet::name_server(&network, addresses, doors, members.clone()));
            Way::Gate { held: self.outlet.held(), resolver: opened.transpose()?.map(Box::new) }
        } else {
            let link = link.ok_or_else(|| {
                StartError::new(
                    Code::Network,
                    "connect the network",
                    "the container handed over no interface",
                )
            })?;
            Way::Link(Box::new(self.outlet.open(&network, link, members.clone())?))
        };
        duckweed_sys::limit::raise_descriptors();
        let (kept, turn, run) = match self.membership {
            Some((kept, turn, run)) => (Some(kept), Some(turn), run),
            None => (None, None, PathBuf::new()),
        };
        let next_index = inside::FIRST_INDEX + u32::try_from(network.networks.len()).unwrap_or(0);
        Ok(Connected { way, is_busy: true, ports, kept, turn, run, members, next_index })
    }
}

/// How a container's data leaves it.
#[derive(Debug)]
enum Way {
    /// By an interface whose other end this is.
    Link(Box<Stack>),
    /// By sockets of the host.
    Gate {
        /// These keep its ports when it has none there.
        #[allow(dead_code, reason = "held, not used")]
        held: Vec<OwnedFd>,
        /// Its name server, when it is in a network.
        resolver: Option<Box<Stack>>,
    },
}

impl Way {
    fn stack(&self) -> Option<&Stack> {
        match self {
            Self::Link(stack) => Some(stack),
            Self::Gate { resolver, .. } => resolver.as_deref(),
        }
    }

    fn stack_mut(&mut self) -> Option<&mut Stack> {
        match self {
            Self::Link(stack) => Some(stack),
            Self::Gate { resolver, .. } => resolver.as_deref_mut(),
        }
    }
}

/// The network of a running container.
#[derive(Debug)]
pub struct Connected {
    way: Way,
    /// There may be more to do than was done.
    is_busy: bool,
    ports: Vec<Published>,
    kept: Option<Kept>,
    /// Held until others can find us.
    turn: Option<Turn>,
    run: PathBuf,
    /// Whose names are known.
    members: Members,
    /// The index of the next interface: one that is gone may not be gone yet.
    next_index: u32,
}

impl Connected {
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.way.stack().map(Stack::descriptor)
    }

    pub fn ports(&self) -> Vec<Published> {
        self.ports.clone()
    }

    /// Whether others must be able to find this container from the first moment.
    pub fn is_member(&self) -> bool {
        self.kept.is_some()
    }

    /// Others may find us at `socket` now.
    #[must_use]
    pub fn enlist(mut self, id: &str, socket: &str) -> Self {
        if let Some(turn) = self.turn.take() {
            // Unlisted, its networks would be made again by the next member; this one would be alone in them.
            let _ = turn.enlist(id, socket);
        }
        self
    }

    /// Something happened.
    pub fn wake(&mut self) {
        self.is_busy = true;
    }

    /// How long the loop may sleep.
    pub fn patience(&self) -> Option<Duration> {
        let stack = self.way.stack()?;
        if self.is_busy {
            Some(Duration::ZERO)
        } else {
            stack.patience()
        }
    }

    /// Does what is due, for a few milliseconds at most.
    pub fn turn(&mut self) {
        let Some(stack) = self.way.stack_mut() else { return };
        if self.is_busy || stack.patience().is_some_and(|left| left.is_zero()) {
            self.is_busy = stack.turn();
        }
    }

    /// Makes the container with the first process `pid` a member of one more network.
    ///
    /// # Errors
    /// `network`: what cannot be had; EAGAIN: ask again.
    fn join(&mut self, own: &str, pid: i32, one: &Membership) -> Result<(), StartError> {
        if let Way::Gate { resolver: Some(_), .. } = &self.way {
            // Who answers its calls looks into the store by itself.
            self.members.add(one);
            return Ok(());
        }
        let Some(kept) = &mut self.kept else { return Err(alone()) };
        let turn = Turn::try_take(&self.run)?;
        let known = kept.networks.iter().find(|(id, _)| *id == one.id).map(|(_, fd)| Arc::clone(fd));
        let namespace = match known.or_else(|| turn.find_one(&one.id, own)) {
            Some(namespace) => namespace,
            None => Arc::new(members::make(one)?),
        };
        let (index, bridge) = (self.next_index, namespace.as_fd());
        self.next_index += 1;
        members::within(pid, &format!("join the network {}", one.name), |container| {
            inside::plug_in(one, index, container, bridge)
        })?;
        kept.networks.retain(|(id, _)| *id != one.id);
        kept.networks.push((one.id.clone(), namespace));
        self.members.add(one);
        Ok(())
    }

    /// Takes the container out of a network.
    ///
    /// # Errors
    /// `network`: it has no such interface.
    fn part(&mut self, pid: i32, (id, name): (&str, &str), interface: &str) -> Result<(), StartError> {
        if let Way::Gate { resolver: Some(_), .. } = &self.way {
            self.members.remove(name);
            return Ok(());
        }
        let Some(kept) = &mut self.kept else { return Err(alone()) };
        members::within(pid, &format!("leave the network {name}"), |_| {
            let mut netlink = Netlink::new()?;
            netlink.remove(interface);
            netlink.commit()
        })?;
        kept.networks.retain(|(known, _)| known != id);
        self.members.remove(name);
        Ok(())
    }

    /// Bytes and packets so far.
    pub fn traffic(&self) -> serde_json::Value {
        // What moves through the host's sockets is not counted.
        let traffic = match &self.way {
            Way::Link(stack) => stack.traffic(),
            Way::Gate { .. } => Traffic::default(),
        };
        serde_json::json!({
            "rx_bytes": traffic.received_bytes,
            "rx_packets": traffic.received_packets,
            "tx_bytes": traffic.sent_bytes,
            "tx_packets": traffic.sent_packets,
        })
    }

    /// The container has ended: nobody comes in any more, nobody asks us.
    pub fn close(self, id: &str, container: &Path) {
        if matches!(&self.way, Way::Gate { resolver: Some(_), .. }) {
            neighbours::clear(container);
        }
        if self.kept.is_some() {
            members::strike_off(&self.run, id);
        }
    }
}

/// A network needs root of the container's user namespace and of its own, and one process cannot become both.
fn alone() -> StartError {
    let message = "it was started without a named network, so it has a user namespace of its own";
    StartError::new(Code::Network, "change the networks of a running container", message)
}

impl Supervisor {
    /// One network more, or less.
    pub(super) fn change_networks(&mut self, number: u32, request: &Request) {
        let (own, pid) = (self.place.id.clone(), self.state.pid);
        let changed = match (&mut self.network, request) {
            (Some(network), Request::Connect { network: one }) => network.join(&own, pid, one),
            (Some(network), Request::Disconnect { network: id, name, interface }) => {
                network.part(pid, (id, name), interface)
            }
            _ => Err(alone()),
        };
        match changed {
            Ok(()) => self.tell(number, &SupervisorMessage::Answer(Answer::yes())),
            Err(error) => self.refuse_with(number, error),
        }
    }

    /// A starting member of our networks asks for what keeps them.
    pub(super) fn hand_out_namespaces(&mut self, number: u32) {
        let Some(kept) = self.network.as_ref().and_then(|network| network.kept.clone()) else {
            return self.refuse(number, "the container is in no network");
        };
        let mut answer = Answer::yes();
        let ids: Vec<&str> = kept.networks.iter().map(|(id, _)| id.as_str()).collect();
        answer.facts.insert("networks".to_owned(), ids.into());
        let (kind, payload) = SupervisorMessage::Answer(answer).encode();
        let mut fds = vec![kept.user.as_fd()];
        fds.extend(kept.networks.iter().map(|(_, fd)| fd.as_fd()));
        if let Some(connection) = self.connections.get_mut(number) {
            // It waits for nothing else, so there is room.
            let _ = packet::send(connection.socket(), kind, &payload, &fds);
        }
    }
}
