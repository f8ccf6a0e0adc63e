//! The API server, found as kubectl finds it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::group::{GROUP_LABEL, Group};

/// For an answer that is not a stream.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Which cluster and namespace: kubectl's own flags.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The namespace [default: the context's].
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The context of the kubeconfig [default: its current one].
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The kubeconfig [default: KUBECONFIG, then ~/.kube/config].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// A cluster and a namespace of it.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        let kubeconfig = match &target.kubeconfig {
            Some(file) => Kubeconfig::read_from(file).with_context(|| format!("kubeconfig {}", file.display()))?,
            None => Kubeconfig::read().context("no kubeconfig: set KUBECONFIG, or name one with --kubeconfig")?,
        };
        let options = KubeConfigOptions { context: target.context.clone(), ..KubeConfigOptions::default() };
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.context("kubeconfig")?;
        config.connect_timeout = Some(CONNECT_WITHIN);
        let namespace = target.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("kubeconfig")?;
        Ok(Self { client, namespace })
    }

    /// The groups of this namespace.
    pub(crate) fn groups(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &broker_groups())
    }

    /// The groups of all namespaces.
    pub(crate) fn all_groups(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &broker_groups())
    }

    pub(crate) async fn group(&self, name: &str) -> anyhow::Result<Group> {
        let object = self.groups().get_opt(name).await.context("reading the BrokerGroup")?;
        let object = object.ok_or_else(|| anyhow!("there is no BrokerGroup {name} in namespace {}", self.namespace))?;
        Group::read(&object)
    }

    /// The pods of a group, by name.
    pub(crate) async fn pods(&self, namespace: &str, group: &str) -> anyhow::Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let ours = ListParams::default().labels(&format!("{GROUP_LABEL}={group}"));
        let mut pods = api.list(&ours).await.with_context(|| format!("reading the pods of {group}"))?.items;
        pods.sort_by_key(|pod| pod.metadata.name.clone());
        Ok(pods)
    }

    /// Sets or removes an annotation of a group, if the group is still of that version.
    pub(crate) async fn annotate(
        &self,
        group: &str,
        version: Option<&str>,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), kube::Error> {
        let patch: Value = json!({"metadata": {"resourceVersion": version, "annotations": {key: value}}});
        self.groups().patch(group, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
    }
}

fn broker_groups() -> ApiResource {
    ApiResource {
        group: "gantry.rs".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "gantry.rs/v1alpha1".to_owned(),
        kind: "BrokerGroup".to_owned(),
        plural: "brokergroups".to_owned(),
    }
}
