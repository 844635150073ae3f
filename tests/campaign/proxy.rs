//! A TCP proxy between bridge and broker, that can be told to cut, delay, drip, or hold back what flows either way. A new mood holds
//! at once for all connections, also those that are open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes that drip at once, and the pause between two drops.
const DRIP: usize = 1_000;
const DRIP_PAUSE: Duration = Duration::from_millis(5);

/// How it treats what flows through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Straight through.
    Fair,
    /// Each piece later by so much.
    Delay(Duration),
    /// A few bytes at a time.
    Drip,
    /// What the bridge sends does not arrive, until the mood changes: then late, as the network itself would send it again.
    HoleUp,
    /// The same of what the broker answers.
    HoleDown,
    /// Connections are closed, and new ones too.
    Cut,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// A running proxy.
pub struct Proxy {
    pub address: SocketAddr,
    mood: watch::Sender<Mood>,
    to: Arc<std::sync::Mutex<Option<SocketAddr>>>,
}

impl Proxy {
    /// Listens. What comes is refused until it is told where to pass it on.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mood, moods) = watch::channel(Mood::Fair);
        let to = Arc::new(std::sync::Mutex::new(None));
        let target = Arc::clone(&to);
        #[expect(clippy::disallowed_methods, reason = "a test's own task")]
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = *target.lock().expect("no panic");
                let moods = moods.clone();
                if let Some(target) = target {
                    #[expect(clippy::disallowed_methods, reason = "a test's own task")]
                    tokio::spawn(carry(near, target, moods));
                }
            }
        });
        Self { address, mood, to }
    }

    /// Where it passes on to.
    pub fn passes_to(&self, to: SocketAddr) {
        *self.to.lock().expect("no panic") = Some(to);
    }

    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

async fn carry(near: TcpStream, to: SocketAddr, moods: watch::Receiver<Mood>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    for socket in [&near, &far] {
        socket.set_nodelay(true).ok();
    }
    let (near, far) = (near.into_split(), far.into_split());
    // The first way that ends closes both.
    tokio::select! {
        () = flow(near.0, far.1, Way::Up, moods.clone()) => {}
        () = flow(far.0, near.1, Way::Down, moods) => {}
    }
}

/// Pieces on their way, at most: beyond that the sender waits, as where a network holds no more.
const UNDER_WAY: usize = 256;

async fn flow(
    from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    way: Way,
    moods: watch::Receiver<Mood>,
) {
    let (sends, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let arrives = async {
        while let Some((at, piece)) = under_way.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    // What is under way still arrives where the sender closes; a cut ends both.
    tokio::select! {
        () = arrives => {}
        Ends::Cut = take_in(from, way, moods, sends) => {}
    }
}

/// Why no more comes.
enum Ends {
    Cut,
    Closed,
}

async fn take_in(
    mut from: tokio::net::tcp::OwnedReadHalf,
    way: Way,
    mut moods: watch::Receiver<Mood>,
    sends: mpsc::Sender<(Instant, Vec<u8>)>,
) -> Ends {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mood = *moods.borrow_and_update();
        let held = matches!((mood, way), (Mood::HoleUp, Way::Up) | (Mood::HoleDown, Way::Down));
        let room = if mood == Mood::Drip { DRIP } else { buffer.len() };
        let read = tokio::select! {
            read = from.read(&mut buffer[..room]), if !held && mood != Mood::Cut => read,
            changed = moods.changed(), if mood != Mood::Cut => match changed {
                Ok(()) => continue,
                Err(_) => return Ends::Cut,
            },
            else => return Ends::Cut,
        };
        let Ok(count @ 1..) = read else { return Ends::Closed };
        let mut at = Instant::now();
        match mood {
            Mood::Fair | Mood::HoleUp | Mood::HoleDown | Mood::Cut => {}
            Mood::Delay(later) => at += later,
            Mood::Drip => tokio::time::sleep(DRIP_PAUSE).await,
        }
        if sends.send((at, buffer[..count].to_vec())).await.is_err() {
            return Ends::Closed;
        }
    }
}
