//! Sockets that another process has bound: systemd before this process started, or the process that this one
//! replaces.
//!
//! A listening socket and its queue of connections live for as long as any process holds the socket. A process that
//! takes over a socket therefore loses no connection. With two sockets on one port (`SO_REUSEPORT`), the connections
//! in the queue of the closed socket would be lost.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener as StdListener},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixStream as StdStream},
    },
    path::Path,
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Maximum number of sockets in one handover.
const MAX_SOCKETS: usize = 16;
/// Longest writer name that is handed over with the sockets, in bytes.
const MAX_NAME_BYTES: usize = 4096;
/// Timeout for one step of the other process during a handover, and pause after a failed accept.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a successor may take to become ready after the handover.
const START: Duration = Duration::from_mins(5);
/// The byte that a successor sends when it is ready.
const READY: u8 = b'r';

/// Sockets that were handed over. Each is taken by the listener that is configured with its address.
#[derive(Debug, Default)]
pub struct Sockets(Vec<StdListener>);

impl Sockets {
    /// The sockets that systemd has bound for this process (`LISTEN_FDS`). Empty without socket activation.
    pub fn from_systemd() -> io::Result<Self> {
        let mut given = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..given.len() {
            sockets.extend(given.take_tcp_listener(index)?);
        }
        Ok(Self(sockets))
    }

    /// The socket for `address`: one that was handed over, otherwise a new one.
    pub async fn bind(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        let place = self.0.iter().position(|socket| socket.local_addr().is_ok_and(|bound| is_same(bound, address)));
        let Some(place) = place else { return TcpListener::bind(address).await };
        let socket = self.0.swap_remove(place);
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    }

    /// Addresses of the sockets that no listener has taken.
    pub fn left(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }
}

/// Whether a socket matches a configured address. The unspecified addresses of both families match each other. Any
/// other address matches only itself, so a setting for loopback never gets a socket that others can reach.
fn is_same(bound: SocketAddr, asked: SocketAddr) -> bool {
    let any = bound.ip().is_unspecified() && asked.ip().is_unspecified();
    bound.port() == asked.port() && (bound.ip() == asked.ip() || any)
}

/// What a process has taken over from the process that it replaces.
#[derive(Debug)]
pub struct TakenOver {
    /// The sockets of the other process.
    pub sockets: Sockets,
    /// The writer name of the other process.
    pub writer: String,
    from: StdStream,
}

impl TakenOver {
    /// Asks the process that offers its sockets at `path`. `None`: no process offers any.
    pub fn ask(path: &Path) -> io::Result<Option<Self>> {
        let stream = match StdStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        stream.set_read_timeout(Some(STEP_TIMEOUT))?;
        let mut name = vec![0; MAX_NAME_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(handed) = message {
                sockets.extend(handed.map(StdListener::from));
            }
        }
        name.truncate(got.bytes);
        let writer = String::from_utf8(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if sockets.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other process handed over no sockets"));
        }
        Ok(Some(Self { sockets: Sockets(sockets), writer, from: stream }))
    }

    /// Notifies the other process that this one is ready, so that the other one exits.
    pub fn ready(self) -> io::Result<()> {
        use std::io::Write as _;
        (&self.from).write_all(&[READY])
    }
}

/// The sockets of a process, offered to its successor.
pub struct Offer {
    socket: UnixListener,
    sockets: Vec<OwnedFd>,
    writer: String,
}

impl Offer {
    /// Offers `sockets` at `path`, only to processes of the same user. Replaces an older offer at that path.
    pub fn at(path: &Path, sockets: Vec<OwnedFd>, writer: &str) -> io::Result<Self> {
        if sockets.len() > MAX_SOCKETS || writer.is_empty() || writer.len() > MAX_NAME_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many sockets, or a name that is empty or too long",
            ));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { socket, sockets, writer: writer.to_owned() })
    }

    /// Hands the sockets over to each process that connects, until one of them reports that it is ready.
    pub async fn taken(self) {
        loop {
            let asked = match self.socket.accept().await {
                Ok((asked, _)) => asked,
                Err(error) => {
                    tracing::warn!(%error, "a connection from a successor process could not be accepted");
                    tokio::time::sleep(STEP_TIMEOUT).await;
                    continue;
                }
            };
            match self.hand_over(asked).await {
                Ok(true) => return,
                Ok(false) => {
                    tracing::warn!(
                        "a process took over the listeners but did not become ready; this process keeps serving"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "the listeners could not be handed over; this process keeps serving");
                }
            }
        }
    }

    async fn hand_over(&self, asked: UnixStream) -> io::Result<bool> {
        asked.writable().await?;
        let sockets: Vec<BorrowedFd<'_>> = self.sockets.iter().map(OwnedFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets"));
        }
        sendmsg(&asked, &[IoSlice::new(self.writer.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        tracing::info!("another process is taking over the listeners");
        let signal = async {
            let mut byte = [0];
            loop {
                asked.readable().await?;
                match asked.try_read(&mut byte) {
                    Ok(read) => return Ok(read == 1 && byte[0] == READY),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::time::timeout(START, signal).await.unwrap_or(Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_goes_to_the_listener_with_its_address() {
        let bound = |address: &str| StdListener::bind(address).unwrap();
        let (loopback, any) = (bound("127.0.0.1:0"), bound("0.0.0.0:0"));
        let (loopback_at, any_at) = (loopback.local_addr().unwrap(), any.local_addr().unwrap());
        let mut sockets = Sockets(vec![loopback, any]);
        let port = any_at.port();
        assert_eq!(sockets.bind(([0; 8], port).into()).await.unwrap().local_addr().unwrap(), any_at);
        assert_eq!(sockets.left(), [loopback_at]);
        assert_eq!(sockets.bind(loopback_at).await.unwrap().local_addr().unwrap(), loopback_at);
        assert!(sockets.left().is_empty());
        // A socket that others can reach never replaces one that they cannot.
        assert!(!is_same(any_at, ([127, 0, 0, 1], port).into()));
    }

    #[tokio::test]
    async fn a_successor_takes_over_the_socket_and_reports_when_it_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        assert!(TakenOver::ask(&path).unwrap().is_none(), "no process offers sockets");
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let copy = || socket.as_fd().try_clone_to_owned().unwrap();
        let offer = Offer::at(&path, vec![copy()], "router-0").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = tokio::spawn(offer.taken());

        // A successor that gives up has no effect.
        let ask = || {
            tokio::task::spawn_blocking({
                let path = path.clone();
                move || TakenOver::ask(&path)
            })
        };
        drop(ask().await.unwrap().unwrap().unwrap());
        let mut over = ask().await.unwrap().unwrap().unwrap();
        assert_eq!((over.writer.as_str(), over.sockets.left()), ("router-0", vec![address]));
        assert!(!taken.is_finished());
        let mine = over.sockets.bind(address).await.unwrap();
        over.ready().unwrap();
        taken.await.unwrap();

        // The successor keeps the socket and the connections in its queue.
        let waiting = tokio::net::TcpStream::connect(address).await.unwrap();
        drop(socket);
        let (_, peer) = mine.accept().await.unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
    }

    #[test]
    fn the_offer_of_a_dead_process_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(TakenOver::ask(&path).unwrap().is_none());
    }
}
