//! The cluster: up once, used, and down again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::{binaries, process};

/// What e2e/cluster needs, each in a package that e2e/test installs.
const PROGRAMS: [&str; 13] = [
    "containerd",
    "ctr",
    "runc",
    "iptables",
    "nft",
    "conntrack",
    "socat",
    "ip",
    "ipset",
    "openssl",
    "buildah",
    "jlink",
    "go",
];

/// Why there can be no cluster here: for tests that are skipped then, and say so.
pub fn unavailable() -> Option<String> {
    process::cant_use_as_root(&PROGRAMS)
}

/// A cluster that e2e/cluster/up started.
#[derive(Debug)]
pub struct Cluster {
    state: PathBuf,
    /// Where it is ours to end.
    own: Option<TempDir>,
}

impl Cluster {
    /// The one that KUBECONFIG names, or a new one, which ends with this value. The images under test are on it.
    pub fn start() -> anyhow::Result<Self> {
        let cluster = match std::env::var_os("KUBECONFIG") {
            Some(file) => Self::of(Path::new(&file))?,
            None => Self::up()?,
        };
        cluster.load_images()?;
        Ok(cluster)
    }

    /// Tests kill processes of the node, and give it images: both need more than its API.
    fn of(kubeconfig: &Path) -> anyhow::Result<Self> {
        let state = kubeconfig.parent().unwrap_or(Path::new("."));
        if !state.join("pid/node").is_file() {
            bail!(
                "KUBECONFIG={} is not of a cluster that e2e/cluster/up started: unset it, and the tests start one",
                kubeconfig.display()
            );
        }
        Ok(Self { state: state.to_owned(), own: None })
    }

    fn up() -> anyhow::Result<Self> {
        let own = TempDir::with_prefix("gantry-cluster-").context("making the cluster's folder")?;
        let state = own.path().join("state");
        let cluster = Self { state, own: Some(own) };
        process::run(Command::new(script("up")).arg(&cluster.state), None)?;
        Ok(cluster)
    }

    fn load_images(&self) -> anyhow::Result<()> {
        let images = TempDir::with_prefix("gantry-images-").context("making the images' folder")?;
        process::run(Command::new(script("images")).arg(binaries::folder()?).arg(images.path()), None)?;
        let archive = |name: &str| images.path().join(name).with_extension("tar");
        let mut load = Command::new(script("load-image"));
        load.arg(&self.state).args(["gantry", "gantry-operator", "client"].map(archive));
        process::run(&mut load, None).map(drop)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.state.join("bin").join(name));
        command.env("KUBECONFIG", self.state.join("kubeconfig"));
        command
    }

    /// `kubectl`, of this cluster.
    pub fn kubectl(&self) -> Command {
        self.program("kubectl")
    }

    /// `helm`, of this cluster.
    pub fn helm(&self) -> Command {
        self.program("helm")
    }

    /// Kills a container's process with SIGKILL, on the node: Kubernetes doesn't know before it sees it.
    pub fn kill_container(&self, id: &str) -> anyhow::Result<()> {
        let id = id.strip_prefix("containerd://").with_context(|| format!("{id:?} is no container of containerd"))?;
        let mut kill = Command::new("ctr");
        kill.arg("--address").arg(self.state.join("root/run/containerd/containerd.sock"));
        kill.args(["--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id]);
        process::run(&mut kill, None).map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.own.is_some()
            && let Err(error) = process::run(Command::new(script("down")).arg(&self.state), None)
        {
            crate::logs::say(&format!("the cluster in {} may have stayed: {error:#}", self.state.display()));
        }
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cluster")).join(name)
}
