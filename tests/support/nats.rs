//! A real nats-server with JetStream as a child process: open, with lines of the test's own, or secured by TLS and users.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Certificates, Consumed, Guard, Node, UP, USER, free_port, installed, log_of, until};

/// Around the subjects that a secured NATS server's user may publish to.
const PUBLISH: (&str, &str) = ("publish: { allow: [", "] }, subscribe");

/// A nats-server with JetStream.
pub struct Nats {
    node: Node,
    /// `nats://` or `tls://`, with host and port.
    pub url: String,
    /// Where it is secured.
    pub certificates: Option<Certificates>,
    /// Where it listens.
    pub port: u16,
    guard: Guard,
    _dir: TempDir,
}

impl Nats {
    /// Starts it with these lines added to its configuration, and waits until JetStream is up. A secured one has two
    /// users: [`USER`], who may publish to `ok.>` and ask JetStream, and `admin`, who may do everything.
    pub fn start(guard: Guard, lines: &str) -> Self {
        let server = installed("bin/nats-server-v2.15.2");
        let dir = tempfile::Builder::new().prefix("fleetbus-nats-").tempdir().expect("a folder");
        let port = free_port();
        let certificates = (guard == Guard::Secured).then(|| Certificates::make(dir.path()));
        let mut text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n{lines}\n",
            dir.path().join("data").display()
        );
        if let Some(certificates) = &certificates {
            let (user, password) = USER;
            text += &format!(
                "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n\
                 authorization {{ users = [\n\
                 {{ user: admin, password: \"{password}\" }}\n\
                 {{ user: {user}, password: \"{password}\", permissions: {{\n\
                   publish: {{ allow: [\"ok.>\", \"$JS.API.>\"] }}, subscribe: \"_INBOX.>\" }} }}\n] }}\n",
                certificates.cert.display(),
                certificates.key.display()
            );
        }
        let file = dir.path().join("nats.conf");
        std::fs::write(&file, text).expect("a writable folder");
        let command = vec![server.display().to_string(), "-c".to_owned(), file.display().to_string()];
        let node = Node::start(command, log_of(dir.path(), "nats"), dir.path());
        let scheme = if guard == Guard::Secured { "tls" } else { "nats" };
        let nats =
            Self { node, url: format!("{scheme}://127.0.0.1:{port}"), certificates, port, guard, _dir: dir };
        nats.wait();
        nats
    }

    /// Waits until it greets and has JetStream.
    pub fn wait(&self) {
        until("NATS answers", UP, || {
            let Ok(socket) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
            let mut greeting = String::new();
            BufReader::new(socket)
                .read_line(&mut greeting)
                .is_ok_and(|_| greeting.contains("\"jetstream\":true"))
        });
    }

    /// A client with all rights.
    pub async fn client(&self) -> async_nats::Client {
        let mut options = async_nats::ConnectOptions::new();
        if let (Guard::Secured, Some(certificates)) = (self.guard, &self.certificates) {
            options = options
                .user_and_password("admin".to_owned(), USER.1.to_owned())
                .add_root_certificates(certificates.ca.clone());
        }
        options.connect(&self.url).await.expect("a server")
    }

    /// What the secured server's user may publish, from now on.
    pub fn permit(&self, subjects: &[&str]) {
        self.rewrite(|text| {
            let (before, rest) = text.split_once(PUBLISH.0).expect("its rights");
            let (_, after) = rest.split_once(PUBLISH.1).expect("its rights");
            let subjects = format!("{subjects:?}");
            let subjects = subjects.trim_matches(['[', ']']);
            format!("{before}{}{subjects}{}{after}", PUBLISH.0, PUBLISH.1)
        });
        self.node.signal(Signal::SIGHUP);
    }

    /// Another word in its configuration, from the next start on.
    pub fn replace(&self, word: &str, by: &str) {
        self.rewrite(|text| text.replace(word, by));
    }

    fn rewrite(&self, edit: impl Fn(&str) -> String) {
        let file = self._dir.path().join("nats.conf");
        let text = std::fs::read_to_string(&file).expect("its configuration");
        std::fs::write(&file, edit(&text)).expect("a writable folder");
    }

    /// Makes a stream.
    pub async fn create(&self, stream: async_nats::jetstream::stream::Config) {
        let jetstream = async_nats::jetstream::new(self.client().await);
        jetstream.create_stream(stream).await.expect("a stream");
    }

    /// Everything in a stream, oldest first: what a stock pull consumer reads.
    pub async fn read(&self, stream: &str) -> Vec<Consumed> {
        use futures_util::StreamExt as _;
        let jetstream = async_nats::jetstream::new(self.client().await);
        let mut stream = jetstream.get_stream(stream).await.expect("a stream");
        let count = stream.info().await.expect("an answer").state.messages;
        let consumer = stream
            .create_consumer(async_nats::jetstream::consumer::pull::Config {
                ack_policy: async_nats::jetstream::consumer::AckPolicy::None,
                ..Default::default()
            })
            .await
            .expect("a consumer");
        let mut messages = consumer.messages().await.expect("messages");
        let mut read = Vec::new();
        while (read.len() as u64) < count {
            let next = tokio::time::timeout(UP, messages.next()).await.expect("in time");
            let message = next.expect("a message").expect("a message");
            let headers = message.headers.as_ref().map_or_else(Vec::new, |headers| {
                let one = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
                    (name.to_string(), values.iter().map(ToString::to_string).collect::<String>())
                };
                headers.iter().map(one).collect()
            });
            read.push(Consumed {
                key: message.subject.to_string(),
                headers,
                payload: message.payload.to_vec(),
                partition: 0,
                offset: message.info().expect("a place").stream_sequence.cast_signed(),
            });
        }
        read
    }

    /// SIGSTOP: it hangs, its sockets stay.
    pub fn pause(&self) {
        self.node.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.node.signal(Signal::SIGCONT);
    }

    /// kill -9, and waits until it is gone.
    pub fn kill9(&self) {
        self.node.kill9();
    }

    /// Starts it again on the same port and data. Does not wait.
    pub fn restart(&self) {
        self.node.again();
    }
}
