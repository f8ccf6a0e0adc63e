//! The control socket: a unix socket in the state directory. One JSON line asks, one JSON line answers.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::status::Status;
use crate::plan::Layout;

/// Longest request, its line end included.
const MAX_REQUEST_BYTES: u64 = 4096;

/// Longest answer that a client reads.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// A client that hasn't sent its request within this time is dropped.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests under way at most; more wait.
const MAX_CLIENTS: usize = 64;

/// Longest path that fits an address of a unix socket.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How is everything?
    Status,
    /// Make this replica master.
    Switchover {
        /// Its name.
        replica: String,
    },
    /// Make this replica master though it may lack acknowledged messages.
    #[serde(rename = "electUnclean")]
    ElectUnclean {
        /// Its name.
        replica: String,
        /// The epoch that the record is of now; 0: there is no record.
        epoch: u64,
    },
    /// Stop everything; answered when it has stopped.
    Down,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    /// To a status request.
    Status(Status),
    /// To a switchover that happened.
    Switched {
        /// The new master.
        master: String,
        /// Its epoch.
        epoch: u64,
        /// For how long sends were parked.
        #[serde(rename = "pauseMs")]
        pause_ms: u64,
    },
    /// To a request to stop: what had to be killed.
    Down {
        /// Names.
        killed: Vec<String>,
    },
    /// To anything that failed.
    Error {
        /// Why, in one line.
        message: String,
    },
}

/// Who answers.
pub trait Operate: Send + Sync + 'static {
    /// Carries out one request.
    fn operate(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

/// The listening socket. Dropped, it is closed and its file removed; answers under way are still given.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl ControlServer {
    /// Listens in the state directory, whose lock the caller holds: a socket file that lies there is a dead operator's.
    pub fn bind(layout: &Layout, operator: Arc<impl Operate>) -> io::Result<Self> {
        let path = layout.control();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_short_path(&path, |short| UnixListener::bind(short))?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(Self { path, accepting: tokio::spawn(accept(listener, operator)) })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!(path = %self.path.display(), %error, "control socket not removed");
        }
    }
}

async fn accept(listener: UnixListener, operator: Arc<impl Operate>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let operator = Arc::clone(&operator);
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &*operator).await {
                        debug!(%error, "a request on the control socket was not answered");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "accept on the control socket failed; trying again");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, operator: &impl Operate) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut limited = BufReader::new(reader.take(MAX_REQUEST_BYTES));
    let read = timeout(REQUEST_TIMEOUT, limited.read_until(b'\n', &mut line)).await;
    read.map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no request came"))??;
    let answer = match serde_json::from_slice(&line) {
        _ if line.len() as u64 == MAX_REQUEST_BYTES => {
            Answer::Error { message: format!("a request has at most {MAX_REQUEST_BYTES} bytes") }
        }
        Ok(request) => operator.operate(request).await,
        Err(error) => Answer::Error { message: format!("not a request: {error}") },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    writer.shutdown().await
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no operator.
    #[error("nothing runs on {}; start it with: gantry-operator local up FILE", dir.display())]
    NothingRuns {
        /// The state directory.
        dir: PathBuf,
    },
    /// It went away, or the socket can't be used.
    #[error("the operator on {} did not answer: {source}", dir.display())]
    NoAnswer {
        /// The state directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Asks the operator that runs on this directory, and waits for its answer at most `within`.
pub async fn ask(layout: &Layout, request: &Request, within: Duration) -> Result<Answer, AskError> {
    let dir = layout.root().to_owned();
    let path = std::path::absolute(layout.control()).unwrap_or_else(|_| layout.control());
    let stream = match connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(AskError::NothingRuns { dir });
        }
        Err(source) => return Err(AskError::NoAnswer { dir, source }),
    };
    match timeout(within, exchange(stream, request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(AskError::NoAnswer { dir, source }),
        Err(_elapsed) => {
            let source = io::Error::new(io::ErrorKind::TimedOut, format!("nothing came within {} s", within.as_secs()));
            Err(AskError::NoAnswer { dir, source })
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    with_short_path(path, |short| std::os::unix::net::UnixStream::connect(short)).and_then(|stream| {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    })
}

async fn exchange(stream: UnixStream, request: &Request) -> io::Result<Answer> {
    let (reader, mut writer) = stream.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    let mut answer = Vec::new();
    reader.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended meanwhile"));
    }
    serde_json::from_slice(&answer).map_err(io::Error::from)
}

/// The address of a unix socket holds 107 bytes of path. A longer one is reached through its directory's descriptor.
fn with_short_path<T>(path: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
        return work(path);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no path of a socket"));
    };
    let directory = File::open(parent)?;
    work(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Echo;

    impl Operate for Echo {
        async fn operate(&self, request: Request) -> Answer {
            match request {
                Request::Status => Answer::Status(Status::default()),
                Request::Switchover { replica } => Answer::Switched { master: replica, epoch: 7, pause_ms: 12 },
                Request::ElectUnclean { replica, epoch } => {
                    Answer::Switched { master: replica, epoch: epoch + 1, pause_ms: 0 }
                }
                Request::Down => Answer::Error { message: "not today".to_owned() },
            }
        }
    }

    #[tokio::test]
    async fn each_request_gets_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let _server = ControlServer::bind(&layout, Arc::new(Echo)).unwrap();
        let switchover = Request::Switchover { replica: "a-1".to_owned() };
        let answer = ask(&layout, &switchover, PATIENCE).await.unwrap();
        assert_eq!(answer, Answer::Switched { master: "a-1".to_owned(), epoch: 7, pause_ms: 12 });
        assert_eq!(ask(&layout, &Request::Status, PATIENCE).await.unwrap(), Answer::Status(Status::default()));
        let refused = Answer::Error { message: "not today".to_owned() };
        assert_eq!(ask(&layout, &Request::Down, PATIENCE).await.unwrap(), refused);
    }

    #[tokio::test]
    async fn with_nothing_running_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let line = ask(&layout, &Request::Status, PATIENCE).await.unwrap_err().to_string();
        assert!(line.starts_with(&format!("nothing runs on {}", dir.path().display())), "{line}");
        // An operator that was killed leaves its socket's file behind.
        drop(std::os::unix::net::UnixListener::bind(layout.control()).unwrap());
        let line = ask(&layout, &Request::Status, PATIENCE).await.unwrap_err().to_string();
        assert!(line.starts_with("nothing runs on"), "{line}");
        let server = ControlServer::bind(&layout, Arc::new(Echo)).unwrap();
        assert!(ask(&layout, &Request::Status, PATIENCE).await.is_ok());
        drop(server);
        assert!(!layout.control().exists());
    }

    #[tokio::test]
    async fn nonsense_is_answered_with_an_error_and_hurts_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let _server = ControlServer::bind(&layout, Arc::new(Echo)).unwrap();
        let long = [vec![b'x'; 10_000], b"\n".to_vec()].concat();
        for nonsense in [&b"hello\n"[..], b"\n", b"{\"request\":\"dance\"}\n", b"{\"request\":\"switchover\"}\n", &long]
        {
            let mut stream = connect(&layout.control()).unwrap();
            // The server may close before it has read all of a request that is too long.
            stream.write_all(nonsense).await.ok();
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).await.is_ok() {
                assert!(answer.starts_with("{\"answer\":\"error\""), "{answer}");
            }
        }
        assert!(ask(&layout, &Request::Status, PATIENCE).await.is_ok());
    }

    #[tokio::test]
    async fn a_very_long_path_of_the_state_directory_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let layout = Layout::new(deep);
        let _server = ControlServer::bind(&layout, Arc::new(Echo)).unwrap();
        assert!(ask(&layout, &Request::Status, PATIENCE).await.is_ok());
    }

    #[tokio::test]
    async fn only_its_owner_may_use_the_socket() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let _server = ControlServer::bind(&layout, Arc::new(Echo)).unwrap();
        assert_eq!(std::fs::metadata(layout.control()).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
