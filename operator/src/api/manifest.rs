//! Reads manifests: the YAML that `kubectl apply` takes, with every complaint in one line.
//!
//! Kubernetes prunes keys that it doesn't know; a person who misspells one deserves to hear it. So unknown keys are an
//! error here, while the types themselves stay tolerant: an operator must be able to read what a newer one wrote.

use std::path::{Path, PathBuf};

use kube::{CustomResourceExt, Resource};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_norway::{Deserializer, Value};

use super::BrokerGroup;

/// Largest manifest file that is read, in bytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// Why a manifest can't be used. Each displays as one line, its cause in it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file can't be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is larger than any manifest.
    #[error("{}: {bytes} bytes is more than a manifest may have ({MAX_MANIFEST_BYTES})", path.display())]
    TooLarge {
        /// The manifest.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Not YAML, or a value has the wrong type.
    #[error("{origin}: {error}")]
    Yaml {
        /// The manifest's name.
        origin: String,
        /// What the parser said, with path and line.
        error: serde_norway::Error,
    },
    /// A key that no field has.
    #[error("{origin}: unknown field {field}{known}")]
    UnknownField {
        /// The manifest's name and the group's.
        origin: String,
        /// Dotted path of the key.
        field: String,
        /// What may stand there, as the end of the sentence.
        known: String,
    },
    /// A broker key's value that is no text.
    #[error("{origin}: spec.config.{key}: {value} is no text; quote it: \"{value}\"")]
    NotQuoted {
        /// The manifest's name and the group's.
        origin: String,
        /// The broker key.
        key: String,
        /// What stands there.
        value: String,
    },
    /// A document is something else than a group.
    #[error("{origin}: document {document} is {found}; expected kind BrokerGroup of gantry.rs/v1alpha1")]
    OtherKind {
        /// The manifest's name.
        origin: String,
        /// Counted from 1.
        document: usize,
        /// What it is.
        found: String,
    },
    /// Nothing in it.
    #[error("{origin}: holds no BrokerGroup")]
    Empty {
        /// The manifest's name.
        origin: String,
    },
}

/// Reads all groups of the manifest file at `path`, in their order. At least one, or an error.
pub fn read_manifest(path: &Path) -> Result<Vec<BrokerGroup>, ManifestError> {
    let read_error = |error| ManifestError::Read { path: path.to_owned(), error };
    let bytes = std::fs::metadata(path).map_err(read_error)?.len();
    if bytes > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge { path: path.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(read_error)?;
    read_manifest_text(&path.display().to_string(), &text)
}

/// Reads all groups of a manifest's text; `origin` names it in errors.
pub fn read_manifest_text(origin: &str, text: &str) -> Result<Vec<BrokerGroup>, ManifestError> {
    let mut groups = Vec::new();
    // Two walks over the same documents: the first says what each is, the second has line numbers for its errors.
    let kinds = Deserializer::from_str(text).map(Value::deserialize);
    for (index, (kind, document)) in kinds.zip(Deserializer::from_str(text)).enumerate() {
        let yaml_error = |error| ManifestError::Yaml { origin: origin.to_owned(), error };
        let value = kind.map_err(yaml_error)?;
        if value.is_null() {
            IgnoredAny::deserialize(document).map_err(yaml_error)?;
            continue;
        }
        check_kind(origin, index + 1, &value)?;
        groups.push(read_group(origin, &value, document)?);
    }
    if groups.is_empty() {
        return Err(ManifestError::Empty { origin: origin.to_owned() });
    }
    Ok(groups)
}

fn check_kind(origin: &str, document: usize, value: &Value) -> Result<(), ManifestError> {
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (field("apiVersion"), field("kind"));
    if version == BrokerGroup::api_version(&()) && kind == BrokerGroup::kind(&()) {
        return Ok(());
    }
    let found = match (version, kind) {
        ("", "") => "no Kubernetes object (no apiVersion, no kind)".to_owned(),
        ("", kind) => format!("kind {kind} without apiVersion"),
        (version, "") => format!("of apiVersion {version} without kind"),
        (version, kind) => format!("kind {kind} of {version}"),
    };
    Err(ManifestError::OtherKind { origin: origin.to_owned(), document, found })
}

fn read_group(origin: &str, value: &Value, document: Deserializer<'_>) -> Result<BrokerGroup, ManifestError> {
    let mut unknown: Option<Vec<String>> = None;
    let group = serde_ignored::deserialize(document, |path| {
        let path = segments(&path);
        // Checked before, and no field of the type.
        if path != ["apiVersion"] && path != ["kind"] {
            unknown.get_or_insert(path);
        }
    })
    .map_err(|error| ManifestError::Yaml { origin: origin.to_owned(), error })?;
    let name = value.get("metadata").and_then(|m| m.get("name")).and_then(Value::as_str).unwrap_or("without a name");
    let origin = format!("{origin}: BrokerGroup {name}");
    if let Some(path) = unknown {
        return Err(ManifestError::UnknownField { origin, known: known_beside(&path), field: path.join(".") });
    }
    check_quoted(origin, value)?;
    Ok(group)
}

/// YAML's `true` and `5` would read as text here, but the Kubernetes API refuses them: a manifest has to be good for both.
fn check_quoted(origin: String, value: &Value) -> Result<(), ManifestError> {
    let config = value.get("spec").and_then(|spec| spec.get("config")).and_then(Value::as_mapping);
    let unquoted = config.into_iter().flatten().find(|(key, value)| !(key.is_string() && value.is_string()));
    let Some((key, value)) = unquoted else { return Ok(()) };
    let text = |value: &Value| serde_norway::to_string(value).unwrap_or_default().trim_end().to_owned();
    Err(ManifestError::NotQuoted { origin, key: text(key), value: text(value) })
}

fn segments(path: &serde_ignored::Path<'_>) -> Vec<String> {
    use serde_ignored::Path::{Map, NewtypeStruct, NewtypeVariant, Root, Seq, Some};
    match path {
        Root => Vec::new(),
        Seq { parent, index } => [segments(parent), vec![index.to_string()]].concat(),
        Map { parent, key } => [segments(parent), vec![key.clone()]].concat(),
        Some { parent } | NewtypeStruct { parent } | NewtypeVariant { parent } => segments(parent),
    }
}

/// `" (known there: a, b)"` from the CRD's schema, or nothing where the schema doesn't say.
fn known_beside(path: &[String]) -> String {
    let Ok(crd) = serde_json::to_value(BrokerGroup::crd()) else { return String::new() };
    let mut schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for segment in path.iter().take(path.len().saturating_sub(1)) {
        let next = if schema["items"].is_object() { &schema["items"] } else { &schema["properties"][segment] };
        schema = next;
    }
    let Some(properties) = schema["properties"].as_object() else { return String::new() };
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    if names.is_empty() { String::new() } else { format!(" (known there: {})", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{OnShortage, ReplicationMode};

    const HEAD: &str = "apiVersion: gantry.rs/v1alpha1\nkind: BrokerGroup\nmetadata: {name: broker-a}\n";

    fn complaint(text: &str) -> String {
        let line = read_manifest_text("g.yaml", text).unwrap_err().to_string();
        assert!(!line.contains('\n'), "more than one line: {line}");
        line
    }

    #[test]
    fn a_minimal_manifest_gets_the_defaults() {
        let groups = read_manifest_text("g.yaml", &format!("{HEAD}spec: {{}}\n")).unwrap();
        let spec = &groups[0].spec;
        assert_eq!((spec.replicas, spec.cluster_name.as_str()), (3, "DefaultCluster"));
        assert_eq!(spec.replication.mode, ReplicationMode::Sync);
        assert_eq!(spec.replication.on_shortage, OnShortage::Refuse);
        assert_eq!(spec.replication.min_in_sync, None);
    }

    #[test]
    fn several_documents_are_several_groups_and_empty_ones_are_none() {
        let text = format!("---\n{HEAD}spec: {{}}\n---\n---\n{}spec: {{}}\n", HEAD.replace("broker-a", "broker-b"));
        let names: Vec<_> = read_manifest_text("g.yaml", &text)
            .unwrap()
            .into_iter()
            .map(|group| group.metadata.name.unwrap())
            .collect();
        assert_eq!(names, ["broker-a", "broker-b"]);
    }

    #[test]
    fn a_misspelled_key_is_one_line_that_names_it_and_what_is_known_there() {
        let line = complaint(&format!("{HEAD}spec: {{replication: {{minInsync: 2}}}}\n"));
        assert!(line.starts_with("g.yaml: BrokerGroup broker-a: unknown field spec.replication.minInsync"), "{line}");
        assert!(line.contains("known there: minInSync, mode, onShortage"), "{line}");
        assert!(complaint(&format!("{HEAD}specs: {{}}\nspec: {{}}\n")).contains("unknown field specs"));
        assert!(complaint(&format!("{HEAD}spec: {{resources: {{limit: {{}}}}}}\n")).contains("spec.resources.limit"));
        let tolerations = format!("{HEAD}spec: {{placement: {{tolerations: [{{keys: a}}]}}}}\n");
        assert!(complaint(&tolerations).contains("spec.placement.tolerations.0.keys (known there: effect, key"));
        let metadata = HEAD.replace("name:", "nam: x, name:");
        assert!(complaint(&format!("{metadata}spec: {{}}\n")).contains("metadata.nam"));
    }

    #[test]
    fn a_wrong_type_is_one_line_with_path_and_place() {
        let line = complaint(&format!("{HEAD}spec:\n  replicas: three\n"));
        assert!(line.contains("spec.replicas") && line.contains("line 5"), "{line}");
        let line = complaint(&format!("{HEAD}spec:\n  replication: {{mode: sync}}\n"));
        assert!(line.contains("spec.replication.mode") && line.contains("Sync"), "{line}");
        let line = complaint(&format!("{HEAD}spec:\n  config: {{autoCreateTopicEnable: true}}\n"));
        assert!(line.ends_with("spec.config.autoCreateTopicEnable: true is no text; quote it: \"true\""), "{line}");
    }

    #[test]
    fn what_is_no_group_is_named() {
        assert!(complaint("apiVersion: v1\nkind: Service\n").contains("document 1 is kind Service of v1"));
        assert!(complaint("just text\n").contains("no Kubernetes object"));
        assert!(complaint("").contains("holds no BrokerGroup"));
        assert!(complaint("a: [1,\n").contains("line"));
        let old = format!("{}spec: {{}}\n", HEAD.replace("v1alpha1", "v1"));
        assert!(complaint(&old).contains("kind BrokerGroup of gantry.rs/v1; expected"));
        assert!(complaint(&HEAD.replace("kind", "king")).contains("of apiVersion gantry.rs/v1alpha1 without kind"));
    }

    #[test]
    fn a_group_without_spec_is_refused_by_name_of_the_field() {
        assert!(complaint(HEAD).contains("spec"), "{}", complaint(HEAD));
    }

    #[test]
    fn a_missing_file_is_named() {
        let line = read_manifest(Path::new("/nonexistent/g.yaml")).unwrap_err().to_string();
        assert!(line.starts_with("/nonexistent/g.yaml: No such file"), "{line}");
    }
}
