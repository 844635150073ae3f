//! Real brokers for tests: Apache Kafka (KRaft), nats-server and a schema registry as child processes on free ports, with
//! folders of their own, that can be stopped, killed and brought back on the same port and data. Installed by `make
//! brokers`. A broker never outlives the test binary: a small shell holds its other end of a pipe and kills it when that
//! closes.

#[path = "apicurio.rs"]
pub mod apicurio;
#[path = "nats.rs"]
mod nats;
#[path = "ports.rs"]
mod ports;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use tempfile::TempDir;

pub use nats::Nats;
pub use ports::free_port;

/// A broker on a busy machine is up by then.
const UP: Duration = Duration::from_secs(60);
/// Kills its child, named by its process id on standard output, once it reads a line. Where standard input ends instead,
/// we are gone: it clears away after us.
const KEEPER: &str = r#""$@" </dev/null >>"$LOG" 2>&1 & p=$!; echo $p
read -r line || gone=yes; kill -9 $p; wait; [ -z "$gone" ] || rm -rf "$DIR""#;

/// What a Kafka is to tell of itself, where that is kept.
const LOGS: &str = "rootLogger.level = info\nrootLogger.appenderRef.out.ref = out\nappender.out.type = Console\n\
    appender.out.name = out\nappender.out.layout.type = PatternLayout\n\
    appender.out.layout.pattern = %d %p %c{1} %m%n\n";

/// Kafka's numbers for two calls, and for what a rule says.
const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const DENY: u8 = 2;
const ALLOW: u8 = 3;

/// The user that a secured broker knows, and its password.
pub const USER: (&str, &str) = ("bridge", "a-password-of-the-tests");

/// A name that no other test of this run uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits for a condition.
pub fn until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < patience, "in vain: {what}");
        #[expect(clippy::disallowed_methods, reason = "a pause between two looks at a condition")]
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Where a broker writes what it does: beside the rest that `KEEP` keeps, else in its own folder.
fn log_of(home: &Path, name: &str) -> PathBuf {
    let Some(keep) = std::env::var_os("KEEP").map(PathBuf::from) else { return home.join("broker.log") };
    std::fs::create_dir_all(&keep).expect("a writable folder");
    keep.join(unique(name)).with_extension("log")
}

fn cache() -> PathBuf {
    std::env::var_os("FLEETBUS_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache/fleetbus"),
        PathBuf::from,
    )
}

fn installed(path: &str) -> PathBuf {
    let path = cache().join(path);
    assert!(path.exists(), "{} is missing: run `make brokers`", path.display());
    path
}

/// A child process that dies with us.
struct Process {
    keeper: Child,
    pid: Pid,
    pipe: Option<ChildStdin>,
}

impl Process {
    fn start(command: &[String], log: &Path, dir: &Path) -> Self {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .args(command)
            .env("LOG", log)
            .env("DIR", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell");
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().expect("piped")).read_line(&mut said).expect("its process id");
        let pid = Pid::from_raw(said.trim().parse().expect("a process id"));
        let pipe = keeper.stdin.take();
        Self { keeper, pid, pipe }
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("it runs");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            pipe.write_all(b"end\n").ok();
        }
        killpg(Pid::from_raw(self.keeper.id().cast_signed()), Signal::SIGKILL).ok();
        self.keeper.wait().ok();
        until("the broker is gone", UP, || kill(self.pid, None).is_err());
    }
}

/// What both kinds of broker can be made to suffer.
struct Node {
    command: Vec<String>,
    log: PathBuf,
    dir: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Node {
    fn start(command: Vec<String>, log: PathBuf, dir: &Path) -> Self {
        let process = Mutex::new(Some(Process::start(&command, &log, dir)));
        Self { command, log, dir: dir.to_owned(), process }
    }

    fn signal(&self, signal: Signal) {
        self.process.lock().expect("no panic").as_ref().expect("it runs").signal(signal);
    }

    fn kill9(&self) {
        drop(self.process.lock().expect("no panic").take());
    }

    fn again(&self) {
        *self.process.lock().expect("no panic") = Some(Process::start(&self.command, &self.log, &self.dir));
    }
}

/// A key and certificate for loopback, and the authority that signed it, as PEM files.
pub struct Certificates {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// A certificate of it, for both sides.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Key and chain in one file.
    both: PathBuf,
}

impl Certificates {
    /// Makes all of them in this folder.
    pub fn make(dir: &Path) -> Self {
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "fleetbus tests");
        let ca_cert = ca.self_signed(&ca_key).expect("a certificate");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut leaf = rcgen::CertificateParams::new(names).expect("parameters");
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "broker");
        let cert = leaf.signed_by(&key, &issuer).expect("a certificate");
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("a writable folder");
            path
        };
        Self {
            ca: write("ca.pem", ca_cert.pem()),
            cert: write("cert.pem", cert.pem()),
            key: write("key.pem", key.serialize_pem()),
            both: write("both.pem", format!("{}{}{}", key.serialize_pem(), cert.pem(), ca_cert.pem())),
        }
    }
}

/// Whether a broker asks who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Anyone may do anything, in plain text.
    Open,
    /// TLS, users, and no right that is not given.
    Secured,
}

/// Makes a virtual machine be up soon, and never fast: for tests.
pub const QUICK: &str = "-XX:TieredStopAtLevel=1";

/// A Kafka of one or more brokers.
pub struct Kafka {
    nodes: Vec<Node>,
    /// For clients of the bridge's kind: `host:port` of every broker.
    pub brokers: String,
    /// Plain text and all rights: for the tests' own consumers.
    inside: Vec<u16>,
    /// Where it is secured.
    pub certificates: Option<Certificates>,
    _dir: TempDir,
}

/// What a stock consumer read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// Key, or NATS subject.
    pub key: String,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// Value.
    pub payload: Vec<u8>,
    /// Partition; 0 for NATS.
    pub partition: i32,
    /// Offset, or sequence number in the stream.
    pub offset: i64,
}

/// The Kafka that the tests of this binary share.
pub fn shared_kafka() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(|| Kafka::start(1, Guard::Open, ""))
}

/// The NATS server that the tests of this binary share.
pub fn shared_nats() -> &'static Nats {
    static SHARED: OnceLock<Nats> = OnceLock::new();
    SHARED.get_or_init(|| Nats::start(Guard::Open, ""))
}

impl Kafka {
    /// Starts `brokers` brokers (the first is the controller too) with these lines added to their properties, and waits
    /// until they answer.
    pub fn start(brokers: usize, guard: Guard, properties: &str) -> Self {
        Self::start_with(brokers, guard, properties, QUICK)
    }

    /// The same, on a virtual machine with this setting of its compiler.
    pub fn start_with(brokers: usize, guard: Guard, properties: &str, compiler: &str) -> Self {
        let ports: Vec<u16> = (0..brokers).map(|_| free_port()).collect();
        Self::start_behind(&ports, None, guard, properties, compiler)
    }

    /// The same, with its clients' ports given; clients are told to come by `door` instead, where that is given: a proxy's.
    pub fn start_behind(
        outside: &[u16],
        door: Option<u16>,
        guard: Guard,
        properties: &str,
        compiler: &str,
    ) -> Self {
        let libs = format!("{}/*", installed("kafka-4.1.1/libs").display());
        let dir = tempfile::Builder::new().prefix("fleetbus-kafka-").tempdir().expect("a folder");
        let certificates = (guard == Guard::Secured).then(|| Certificates::make(dir.path()));
        let quorum = free_port();
        let ports: Vec<(u16, u16)> = outside.iter().map(|outside| (free_port(), *outside)).collect();
        let nodes = ports.iter().enumerate().map(|(index, (inside, outside))| {
            let home = dir.path().join(format!("node-{index}"));
            std::fs::create_dir_all(&home).expect("a writable folder");
            let file = home.join("server.properties");
            let (roles, also) = if index == 0 {
                ("broker,controller", format!(",CONTROLLER://127.0.0.1:{quorum}"))
            } else {
                ("broker", String::new())
            };
            let listeners = format!("INSIDE://127.0.0.1:{inside},OUTSIDE://127.0.0.1:{outside}");
            let told = format!("INSIDE://127.0.0.1:{inside},OUTSIDE://127.0.0.1:{}", door.unwrap_or(*outside));
            let mut text = format!(
                "process.roles={roles}\nnode.id={id}\ncontroller.quorum.voters=1@127.0.0.1:{quorum}\n\
                 listeners={listeners}{also}\nadvertised.listeners={told}\n\
                 controller.listener.names=CONTROLLER\ninter.broker.listener.name=INSIDE\n\
                 listener.security.protocol.map=CONTROLLER:PLAINTEXT,INSIDE:PLAINTEXT,OUTSIDE:{protocol}\n\
                 log.dirs={data}\nauto.create.topics.enable=false\nnum.partitions=6\n\
                 offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
                 transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
                 group.initial.rebalance.delay.ms=0\ngroup.coordinator.threads=1\nnum.network.threads=2\n\
                 num.io.threads=4\nlog.cleaner.enable=false\nshare.coordinator.state.topic.replication.factor=1\n",
                id = index + 1,
                protocol = if guard == Guard::Secured { "SASL_SSL" } else { "PLAINTEXT" },
                data = home.join("data").display(),
            );
            if let Some(certificates) = &certificates {
                let (user, password) = USER;
                text += &format!(
                    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                     super.users=User:ANONYMOUS\n\
                     listener.name.outside.sasl.enabled.mechanisms=PLAIN\n\
                     listener.name.outside.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";\n\
                     listener.name.outside.ssl.keystore.type=PEM\n\
                     listener.name.outside.ssl.keystore.location={}\n",
                    certificates.both.display()
                );
            }
            text += properties;
            std::fs::write(&file, text).expect("a writable folder");
            let java = |heap: &str, class: &str| {
                ["java", heap, "-XX:+UseSerialGC", compiler, "-cp", &libs, class]
                    .map(str::to_owned)
                    .to_vec()
            };
            let mut format = java("-Xmx128m", "kafka.tools.StorageTool");
            format.extend(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c"].map(str::to_owned));
            format.push(file.display().to_string());
            let formatted = Command::new(&format[0]).args(&format[1..]).output().expect("java");
            assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
            let mut command = java("-Xmx512m", "kafka.Kafka");
            command.push(file.display().to_string());
            if std::env::var_os("KEEP").is_some() {
                // By itself it tells of errors alone.
                let logs = home.join("log4j2.properties");
                std::fs::write(&logs, LOGS).expect("a writable folder");
                command.insert(1, format!("-Dlog4j2.configurationFile={}", logs.display()));
            }
            Node::start(command, log_of(&home, &format!("kafka-{index}")), dir.path())
        });
        let kafka = Self {
            nodes: nodes.collect(),
            brokers: ports
                .iter()
                .map(|(_, outside)| format!("127.0.0.1:{}", door.unwrap_or(*outside)))
                .collect::<Vec<_>>()
                .join(","),
            inside: ports.iter().map(|(inside, _)| *inside).collect(),
            certificates,
            _dir: dir,
        };
        kafka.wait();
        kafka
    }

    /// Settings of a client with all rights.
    pub fn client(&self) -> ClientConfig {
        let servers: Vec<String> = self.inside.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers.join(",")).set("log_level", "0");
        config
    }

    /// Waits until every broker answers.
    pub fn wait(&self) {
        let client: BaseConsumer = self.client().create().expect("a client");
        until("Kafka answers", UP, || {
            let asked = client.fetch_metadata(None, Duration::from_secs(2));
            asked.is_ok_and(|told| told.brokers().len() == self.nodes.len())
        });
    }

    /// Makes a topic.
    pub async fn create(&self, topic: &str, partitions: i32, replicas: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<_> = self.client().create().expect("a client");
        let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
        for (key, value) in settings {
            wanted = wanted.set(key, value);
        }
        let made = admin.create_topics([&wanted], &AdminOptions::new()).await.expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        self.leaders(topic, usize::try_from(partitions).expect("a count"));
    }

    /// The leaders of a topic's partitions by index, once all have one.
    pub fn leaders(&self, topic: &str, partitions: usize) -> Vec<usize> {
        let client: BaseConsumer = self.client().create().expect("a client");
        let mut leaders = Vec::new();
        until("every partition has a leader", UP, || {
            let Ok(told) = client.fetch_metadata(Some(topic), Duration::from_secs(5)) else { return false };
            let Some(topic) = told.topics().first() else { return false };
            let mut of: Vec<(i32, i32)> = topic.partitions().iter().map(|p| (p.id(), p.leader())).collect();
            of.sort_unstable();
            leaders = of.iter().filter_map(|(_, leader)| usize::try_from(*leader - 1).ok()).collect();
            leaders.len() == partitions
        });
        leaders
    }

    /// Everything in a topic, oldest first within a partition: what a stock consumer reads from its beginning.
    pub fn read(&self, topic: &str) -> Vec<Consumed> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", unique("reader"))
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .create()
            .expect("a client");
        let told = consumer.fetch_metadata(Some(topic), UP).expect("metadata");
        let mut all = rdkafka::TopicPartitionList::new();
        for partition in told.topics()[0].partitions() {
            all.add_partition_offset(topic, partition.id(), rdkafka::Offset::Beginning).expect("a partition");
        }
        consumer.assign(&all).expect("an assignment");
        let (mut ends, mut read) = (0, Vec::new());
        let begun = Instant::now();
        while ends < all.count() {
            assert!(begun.elapsed() < UP, "the end of {topic} does not come");
            match consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => read.push(Consumed {
                    key: String::from_utf8(message.key().unwrap_or_default().to_vec()).expect("text"),
                    headers: message.headers().map_or_else(Vec::new, |headers| {
                        let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
                        headers
                            .iter()
                            .map(|h| (h.key.to_owned(), text(h.value.unwrap_or_default())))
                            .collect()
                    }),
                    payload: message.payload().unwrap_or_default().to_vec(),
                    partition: message.partition(),
                    offset: message.offset(),
                }),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ends += 1,
                Some(Err(_)) | None => {}
            }
        }
        read
    }

    /// Lets the secured broker's user write to topics with this prefix.
    pub fn allow_writing(&self, prefix: &str) {
        self.ask_acl(CREATE_ACLS, prefix, ALLOW);
    }

    /// Forbids it, whatever is allowed.
    pub fn forbid_writing(&self, prefix: &str) {
        self.ask_acl(CREATE_ACLS, prefix, DENY);
    }

    /// Forbids it no more.
    pub fn forgive_writing(&self, prefix: &str) {
        self.ask_acl(DELETE_ACLS, prefix, DENY);
    }

    /// `CreateAcls` or `DeleteAcls` v1, spoken by hand, as the client has no call for them.
    fn ask_acl(&self, call: i16, prefix: &str, permission: u8) {
        let text = |text: &str| {
            let length = u16::try_from(text.len()).expect("short").to_be_bytes();
            [&length[..], text.as_bytes()].concat()
        };
        let principal = text(&format!("User:{}", USER.0));
        let mut request = [&call.to_be_bytes()[..], &1_i16.to_be_bytes(), &7_i32.to_be_bytes()].concat();
        request.extend(text("tests"));
        request.extend(1_i32.to_be_bytes());
        // A topic; its prefix; who; from everywhere; to write (which implies to describe).
        let (topic, prefixed, write) = (2_u8, 4_u8, 4_u8);
        request.push(topic);
        request.extend(text(prefix));
        request.push(prefixed);
        request.extend(principal);
        request.extend(text("*"));
        request.extend([write, permission]);
        let mut socket = TcpStream::connect(("127.0.0.1", self.inside[0])).expect("a broker");
        socket.set_read_timeout(Some(UP)).expect("a socket");
        socket.write_all(&u32::try_from(request.len()).expect("short").to_be_bytes()).expect("a broker");
        socket.write_all(&request).expect("a broker");
        let mut size = [0; 4];
        socket.read_exact(&mut size).expect("an answer");
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        socket.read_exact(&mut answer).expect("an answer");
        // Correlation, throttle time, one result: its error code.
        assert_eq!(answer[12..14], [0, 0], "the right was not changed: {answer:?}");
    }

    /// Gives a topic this setting, and no other.
    pub async fn configure(&self, topic: &str, key: &str, value: &str) {
        let admin: AdminClient<_> = self.client().create().expect("a client");
        let wanted = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
        let done = admin.alter_configs([&wanted], &AdminOptions::new()).await.expect("an answer");
        assert!(done.iter().all(Result::is_ok), "{done:?}");
    }

    /// Deletes a topic, and waits until it is gone.
    pub async fn delete(&self, topic: &str) {
        let admin: AdminClient<_> = self.client().create().expect("a client");
        admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("an answer");
        let client: BaseConsumer = self.client().create().expect("a client");
        until("the topic is gone", UP, || {
            let told = client.fetch_metadata(None, Duration::from_secs(5));
            told.is_ok_and(|told| !told.topics().iter().any(|known| known.name() == topic))
        });
    }

    /// SIGSTOP for one broker: it hangs, its sockets stay.
    pub fn pause(&self, broker: usize) {
        self.nodes[broker].signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self, broker: usize) {
        self.nodes[broker].signal(Signal::SIGCONT);
    }

    /// kill -9, and waits until it is gone.
    pub fn kill9(&self, broker: usize) {
        self.nodes[broker].kill9();
    }

    /// Starts it again on the same port and data. Does not wait.
    pub fn restart(&self, broker: usize) {
        self.nodes[broker].again();
    }
}
