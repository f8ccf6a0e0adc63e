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

/// The node that the control plane runs on: e2e/cluster/start-node names it so.
pub const CONTROL_PLANE: &str = "kubenode";

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
            None => Self::up(1)?,
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

    fn up(nodes: u32) -> anyhow::Result<Self> {
        let own = TempDir::with_prefix("gantry-cluster-").context("making the cluster's folder")?;
        let state = own.path().join("state");
        let cluster = Self { state, own: Some(own) };
        let mut up = Command::new(script("up"));
        process::run(up.arg("--nodes").arg(nodes.to_string()).arg(&cluster.state), None)?;
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

    /// Kills a container's process with SIGKILL, on its node: Kubernetes doesn't know before it sees it.
    pub fn kill_container(&self, node: &str, id: &str) -> anyhow::Result<()> {
        let id = id.strip_prefix("containerd://").with_context(|| format!("{id:?} is no container of containerd"))?;
        let mut kill = Command::new("ctr");
        kill.arg("--address").arg(self.files_of(node).join("root/run/containerd/containerd.sock"));
        kill.args(["--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id]);
        process::run(&mut kill, None).map(drop)
    }

    /// Gives an image under test a second tag, on the first node; its whole name. To Kubernetes it is another image.
    pub fn tag_again(&self, name: &str, tag: &str) -> anyhow::Result<String> {
        let (image, again) = (format!("localhost/{name}:e2e"), format!("localhost/{name}:{tag}"));
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.files_of(CONTROL_PLANE).join("root/run/containerd/containerd.sock"));
        ctr.args(["--namespace", "k8s.io", "images", "tag", "--force", &image, &again]);
        process::run(&mut ctr, None)?;
        Ok(again)
    }
}

/// Its nodes.
impl Cluster {
    /// A new one of so many nodes, with the images under test on all of them. Never the one that KUBECONFIG names: nodes are to be lost.
    pub fn of_nodes(nodes: u32) -> anyhow::Result<Self> {
        let cluster = Self::up(nodes)?;
        cluster.load_images()?;
        Ok(cluster)
    }

    /// Cuts a node off from the others and from the control plane: all that runs on it lives.
    pub fn cut(&self, node: &str) -> anyhow::Result<()> {
        self.fault("cut", node)
    }

    /// Joins a node to the others again.
    pub fn heal(&self, node: &str) -> anyhow::Result<()> {
        self.fault("heal", node)
    }

    /// Ends all processes of a node at once, those of its pods among them.
    pub fn kill_node(&self, node: &str) -> anyhow::Result<()> {
        self.fault("kill", node)
    }

    /// A command that is run on a node, in its network: it reaches the node's pods even where nobody else does.
    pub fn on_node(&self, node: &str) -> Command {
        let mut enter = Command::new(script("enter"));
        enter.arg(self.files_of(node));
        enter
    }

    fn fault(&self, fault: &str, node: &str) -> anyhow::Result<()> {
        process::run(Command::new(script("fault")).arg(&self.state).args([fault, node]), None).map(drop)
    }

    /// Where e2e/cluster/start-node has a node's files.
    fn files_of(&self, node: &str) -> PathBuf {
        if node == CONTROL_PLANE { self.state.clone() } else { self.state.join(node) }
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
