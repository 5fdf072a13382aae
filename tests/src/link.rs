//! A network link that can be cut: a TCP proxy on the loopback interface.

use std::{
    io,
    net::{Ipv4Addr, TcpListener as StdListener},
    thread::{Builder, JoinHandle},
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
    sync::watch,
};

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    Up,
    /// Nothing passes and neither side is notified, as when a cable is pulled. Data in flight arrives once the link is up
    /// again.
    Silent,
    /// Connections are closed and new ones refused, as by a firewall.
    Refusing,
    /// Ended with its owner.
    Closed,
}

/// Forwards connections from its own port to another one.
#[derive(Debug)]
pub struct Link {
    port: u16,
    state: watch::Sender<State>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Opens a link to a port of this machine. The port does not need a listener yet.
    pub fn open(to: u16) -> Result<Self> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port for a link")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (state, watched) = watch::channel(State::Up);
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let thread = Builder::new().name(format!("link-{port}")).spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, to, watched)) {
                eprintln!("the link to port {to} has ended: {error}");
            }
        })?;
        Ok(Self { port, state, thread: Some(thread) })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts or restores the link.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.set(State::Closed);
        if let Some(thread) = self.thread.take() {
            // The panic hook has reported a panic of that thread.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: StdListener, to: u16, state: watch::Receiver<State>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut ended = state.clone();
    loop {
        tokio::select! {
            _ = ended.wait_for(|state| *state == State::Closed) => return Ok(()),
            accepted = listener.accept() => {
                // The connection was closed before it was accepted.
                if let Ok((client, _)) = accepted {
                    tokio::spawn(pass(client, to, state.clone()));
                }
            }
        }
    }
}

/// Forwards one connection until either side or the link closes it.
async fn pass(client: TcpStream, to: u16, mut state: watch::Receiver<State>) {
    let refusing = |state: &State| matches!(state, State::Refusing | State::Closed);
    let mut cut = state.clone();
    let work = async {
        // A handshake passes through the link like data.
        state.wait_for(|state| *state == State::Up).await.map_err(io::Error::other)?;
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
        tokio::try_join!(copy(client_in, server_out, state.clone()), copy(server_in, client_out, state.clone()))
    };
    tokio::select! {
        _ = cut.wait_for(refusing) => {}
        // Each side knows why it closed.
        _ = work => {}
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        state.wait_for(|state| *state == State::Up).await.map_err(io::Error::other)?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        thread,
        time::Duration,
    };

    use super::*;

    /// Echoes every byte, one connection after the other.
    fn echo() -> u16 {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let (mut from, mut to) = (&stream, &stream);
                    io::copy(&mut from, &mut to).ok();
                });
            }
        });
        port
    }

    fn connect(link: &Link) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
        stream.write_all(&[byte])?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    #[test]
    fn a_silent_link_holds_back_and_then_delivers() {
        let link = Link::open(echo()).unwrap();
        let mut stream = connect(&link);
        assert_eq!(ask(&mut stream, 1).unwrap(), 1);
        link.set(State::Silent);
        stream.write_all(&[2]).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "nothing passes");
        link.set(State::Up);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [2]);
    }

    #[test]
    fn a_refusing_link_closes_all_connections_and_a_restored_one_accepts_new_ones() {
        let link = Link::open(echo()).unwrap();
        let mut before = connect(&link);
        assert_eq!(ask(&mut before, 1).unwrap(), 1);
        link.set(State::Refusing);
        let mut answer = [0];
        assert!(matches!(before.read(&mut answer), Ok(0) | Err(_)), "closed");
        assert!(ask(&mut connect(&link), 2).is_err());
        link.set(State::Up);
        assert_eq!(ask(&mut connect(&link), 3).unwrap(), 3);
    }

    #[test]
    fn a_link_to_a_port_without_a_listener_closes() {
        let unused = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        assert!(ask(&mut connect(&Link::open(unused).unwrap()), 1).is_err());
    }
}
