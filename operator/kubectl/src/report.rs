//! `report`: one archive with all that a bug report needs. Secrets are never read; messages are in none of it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, LogParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::connection::Connection;
use crate::group::GROUP_LABEL;
use crate::logs::words;

/// Of each container's log, its newest bytes.
const LOG_BYTES: i64 = 4 << 20;
/// Finds the operator's pods, in whatever namespace.
const OPERATOR: &str = "app.kubernetes.io/name=gantry-operator";
/// Where brokers and operators show metrics.
const BROKER_PORT: u16 = 5557;
const OPERATOR_PORT: u16 = 8080;

pub(crate) async fn run(connection: &Connection, group: &str, output: Option<PathBuf>) -> anyhow::Result<String> {
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let folder = format!("gantry-report-{}-{group}-{now}", connection.namespace);
    let path = output.unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    let object = connection.groups().get(group).await.with_context(|| format!("reading BrokerGroup {group}"))?;
    let mut bundle = Bundle::default();
    bundle.yaml("brokergroup.yaml", Ok(object));
    let broker_pods = connection.pods(&connection.namespace, group).await?;
    collect_objects(connection, group, &mut bundle).await;
    for pod in &broker_pods {
        collect_pod(connection, pod, BROKER_PORT, &mut bundle).await;
    }
    match operators(connection).await {
        Ok(pods) => {
            for pod in &pods {
                collect_pod(connection, pod, OPERATOR_PORT, &mut bundle).await;
            }
        }
        Err(error) => bundle.missing("the operator's pods", &error),
    }
    let missing = bundle.missing.len();
    bundle.write(&folder, &path)?;
    let path = path.display();
    Ok(match missing {
        0 => format!("{path}\n"),
        missing => format!("{path}; {missing} things could not be read: missing.txt in it says which, and why\n"),
    })
}

async fn collect_objects(connection: &Connection, group: &str, bundle: &mut Bundle) {
    let ours = ListParams::default().labels(&format!("{GROUP_LABEL}={group}"));
    bundle.yaml("pods.yaml", list::<Pod>(connection, &ours).await);
    bundle.yaml("services.yaml", list::<Service>(connection, &ours).await);
    bundle.yaml("endpointslices.yaml", list::<EndpointSlice>(connection, &ours).await);
    bundle.yaml("volumeclaims.yaml", list::<PersistentVolumeClaim>(connection, &ours).await);
    // The brokers' configuration: the token is in a Secret, and not in it.
    let configs = list::<ConfigMap>(connection, &ours).await;
    bundle.yaml("configmaps.yaml", configs.map(|maps| serde_json::to_value(maps).map(redacted).unwrap_or_default()));
    bundle.yaml("events.yaml", list::<Event>(connection, &ListParams::default()).await);
}

async fn list<K>(connection: &Connection, which: &ListParams) -> Result<Vec<K>, kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(connection.client.clone(), &connection.namespace);
    Ok(api.list(which).await?.items)
}

/// They may be in a namespace that whoever asks may not look at.
async fn operators(connection: &Connection) -> Result<Vec<Pod>, kube::Error> {
    let which = ListParams::default().labels(OPERATOR);
    match Api::<Pod>::all(connection.client.clone()).list(&which).await {
        Err(kube::Error::Api(status)) if status.code == 403 => list(connection, &which).await,
        listed => Ok(listed?.items),
    }
}

async fn collect_pod(connection: &Connection, pod: &Pod, port: u16, bundle: &mut Bundle) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(connection.client.clone(), &namespace);
    let restarted = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
    let restarted = restarted.is_some_and(|container| container.restart_count > 0);
    for (previous, file) in [(false, format!("{name}.log")), (true, format!("{name}.previous.log"))] {
        if previous && !restarted {
            continue;
        }
        let which = LogParams { previous, limit_bytes: Some(LOG_BYTES), timestamps: true, ..LogParams::default() };
        bundle.text(&file, api.logs(&name, &which).await);
    }
    let uri = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
    match http::Request::get(uri).body(Vec::new()) {
        Ok(request) => bundle.text(&format!("{name}.metrics.txt"), connection.client.request_text(request).await),
        Err(error) => bundle.missing(&format!("{name}.metrics.txt"), &kube::Error::HttpError(error)),
    }
}

/// Whoever has put a secret into `spec.config` against all advice finds it blacked out.
fn redacted(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) if text.contains('=') => {
                let lines = text.lines().map(|line| match line.split_once('=') {
                    Some((key, _)) if is_secret(key) => format!("{key}=(redacted)\n"),
                    _ => format!("{line}\n"),
                });
                *text = lines.collect();
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    if is_secret(key) && value.is_string() {
                        *value = "(redacted)".into();
                    } else {
                        walk(value);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    value
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["token", "password", "secret", "accesskey"].iter().any(|word| key.ends_with(word))
}

/// The files of an archive, and what could not be had.
#[derive(Default)]
struct Bundle {
    files: Vec<(String, Vec<u8>)>,
    missing: Vec<String>,
}

impl Bundle {
    fn yaml(&mut self, file: &str, read: Result<impl Serialize, kube::Error>) {
        let text = match read.map(|object| serde_json::to_value(object).map(redacted)) {
            Ok(Ok(value)) => serde_norway::to_string(&value).map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(words(&error)),
        };
        match text {
            Ok(text) => self.files.push((file.to_owned(), text.into_bytes())),
            Err(why) => self.missing.push(format!("{file}: {why}\n")),
        }
    }

    fn text(&mut self, file: &str, read: Result<String, kube::Error>) {
        match read {
            Ok(text) => self.files.push((file.to_owned(), text.into_bytes())),
            Err(error) => self.missing(file, &error),
        }
    }

    fn missing(&mut self, what: &str, error: &kube::Error) {
        self.missing.push(format!("{what}: {}\n", words(error)));
    }

    fn write(mut self, folder: &str, path: &Path) -> anyhow::Result<()> {
        if !self.missing.is_empty() {
            self.files.push(("missing.txt".to_owned(), self.missing.concat().into_bytes()));
        }
        let describe = || format!("can't write {}", path.display());
        let file = std::fs::File::create_new(path).with_context(describe)?;
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        for (name, bytes) in self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(Timestamp::now().as_second().unsigned_abs());
            archive.append_data(&mut header, format!("{folder}/{name}"), bytes.as_slice()).with_context(describe)?;
        }
        archive.into_inner().and_then(GzEncoder::finish).with_context(describe).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_archive_has_what_could_be_read_and_says_what_could_not() {
        let path = std::env::temp_dir().join(format!("kubectl-gantry-test-{}.tar.gz", std::process::id()));
        let mut bundle = Bundle::default();
        bundle.yaml("group.yaml", Ok(json!({"kind": "BrokerGroup"})));
        bundle.text("a-0.log", Ok("line\n".to_owned()));
        bundle.text("a-1.log", Err(kube::Error::LinesCodecMaxLineLengthExceeded));
        bundle.write("report", &path).unwrap();
        let again = Bundle::default().write("report", &path).unwrap_err();
        assert!(again.to_string().contains("can't write"), "no file of somebody else's is overwritten: {again}");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        });
        let files: Vec<_> = files.collect();
        assert_eq!(files[0], ("report/group.yaml".to_owned(), "kind: BrokerGroup\n".to_owned()));
        assert_eq!(files[1].1, "line\n");
        assert!(files[2].0 == "report/missing.txt" && files[2].1.starts_with("a-1.log: "), "{files:?}");
    }

    #[test]
    fn no_secret_is_in_it() {
        let conf = "brokerName=a\ngantryToken=abc\naclSecret=x\n";
        let object =
            redacted(json!({"data": {"a.conf": conf}, "config": {"myPassword": "p", "fileReservedTime": "48"}}));
        assert_eq!(object["data"]["a.conf"], "brokerName=a\ngantryToken=(redacted)\naclSecret=(redacted)\n");
        assert_eq!(object["config"], json!({"myPassword": "(redacted)", "fileReservedTime": "48"}));
    }
}
