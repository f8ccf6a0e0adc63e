//! Manifests that the API server is to refuse, each with a sentence that names the field.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::installation::Installation;

/// One of them, and what its refusal has to say.
struct Case {
    name: String,
    manifest: Value,
    says: Vec<&'static str>,
}

/// Gives all of them to the API server, as `kubectl apply --dry-run=server` does, and the `group` that is there with what may not change.
/// How many there were.
pub fn are_refused(installation: &Installation<'_>, group: &str) -> anyhow::Result<usize> {
    let mut cases: Vec<Case> = specs()
        .into_iter()
        .enumerate()
        .map(|(number, (spec, says))| {
            let name = format!("bad-{number:02}");
            Case { manifest: manifest(&name, &spec), name, says }
        })
        .collect();
    for name in names() {
        let manifest = manifest(&name, &json!({}));
        cases.push(Case { name, manifest, says: vec!["metadata.name"] });
    }
    let smaller = manifest(group, &json!({"storage": {"size": "19Gi"}}));
    cases.push(Case { name: group.to_owned(), manifest: smaller, says: vec!["spec.storage.size", "never shrink"] });

    let documents: Vec<_> = cases.iter().map(|case| case.manifest.to_string()).collect();
    let said = refusals(installation, &documents.join("\n---\n"))?;
    for Case { name, manifest, says } in &cases {
        // Of what it can't even decode the API server doesn't say the name.
        let is_of_it =
            |refusal: &&String| refusal.contains(&format!("\"{name}\"")) || refusal.contains("unknown field");
        let own: Vec<_> = said.iter().filter(is_of_it).collect();
        if !says.iter().all(|word| own.iter().any(|refusal| refusal.contains(word))) {
            bail!("{manifest} was to be refused with {says:?}, and was told: {own:#?}\nof {said:#?}");
        }
    }
    Ok(cases.len())
}

fn manifest(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup", "metadata": {"name": name}, "spec": spec})
}

/// A spec, and what has to be in the sentence that refuses it.
fn specs() -> Vec<(Value, Vec<&'static str>)> {
    let long = "a".repeat(128);
    let tolerations: Vec<_> =
        (0..33).map(|number| json!({"key": format!("k{number}"), "operator": "Exists"})).collect();
    let mut specs = vec![
        (json!({"replicas": 0}), vec!["spec.replicas", "greater than or equal to 1"]),
        (json!({"replicas": 10}), vec!["spec.replicas", "less than or equal to 9"]),
        (json!({"replicas": "three"}), vec!["spec.replicas", "integer"]),
        (json!({"replicas": 3, "replication": {"minInSync": 4}}), vec!["spec.replication.minInSync", "above"]),
        (json!({"replicas": 1, "replication": {"minInSync": 2}}), vec!["spec.replication.minInSync", "above"]),
        (json!({"replication": {"minInSync": 0}}), vec!["spec.replication.minInSync", "greater than or equal to 1"]),
        (json!({"replication": {"mode": "Semi"}}), vec!["spec.replication.mode", "\"Sync\", \"Async\""]),
        (
            json!({"replication": {"onShortage": "Wait"}}),
            vec!["spec.replication.onShortage", "\"Refuse\", \"Degrade\""],
        ),
        (json!({"flush": "Never"}), vec!["spec.flush", "\"Async\", \"Sync\""]),
        (json!({"preferredMaster": "bad-99-0"}), vec!["spec.preferredMaster"]),
        (json!({"clusterName": ""}), vec!["spec.clusterName"]),
        (json!({"clusterName": "two words"}), vec!["spec.clusterName"]),
        (json!({"clusterName": long}), vec!["spec.clusterName"]),
        (json!({"image": ""}), vec!["spec.image"]),
        (json!({"image": "gantry 0.1"}), vec!["spec.image"]),
        (json!({"storage": {"storageClassName": "Fast Disks"}}), vec!["spec.storage.storageClassName"]),
        (json!({"resources": {"limits": {"memory": "plenty"}}}), vec!["spec.resources.limits"]),
        (json!({"resources": {"requests": {"cpu": "-1"}}}), vec!["spec.resources.requests"]),
        (json!({"placement": {"tolerations": tolerations}}), vec!["spec.placement.tolerations", "32"]),
        (
            json!({"placement": {"tolerations": [{"operator": "Perhaps"}]}}),
            vec!["spec.placement.tolerations", "operator"],
        ),
        (json!({"placement": {"tolerations": [{"effect": "Never"}]}}), vec!["spec.placement.tolerations", "effect"]),
        (json!({"placement": {"spread": {"topologyKey": "no label"}}}), vec!["spec.placement.spread.topologyKey"]),
        (json!({"placement": {"spread": {"required": "yes"}}}), vec!["spec.placement.spread.required", "boolean"]),
        (json!({"placement": {"nodeSelector": {"disk": 1}}}), vec!["spec.placement.nodeSelector.disk", "string"]),
        (json!({"config": {"two words": "1"}}), vec!["spec.config"]),
        (json!({"config": {"maxMessageSize": 1}}), vec!["spec.config.maxMessageSize", "string"]),
        // What has no such field is found by kubectl's own default, --validate=strict.
        (json!({"replica": 5}), vec!["spec.replica\""]),
        (json!({"replication": {"minInsync": 2}}), vec!["spec.replication.minInsync\""]),
    ];
    for size in ["", "0Gi", "-1Gi", "20 GB", "1.5Gi", "plenty"] {
        specs.push((json!({"storage": {"size": size}}), vec!["spec.storage.size"]));
    }
    for key in
        ["brokerId", "brokerName", "listenPort", "storePathRootDir", "gantryToken", "brokerRole", "flushDiskType"]
    {
        specs.push((json!({"config": {key: "1"}}), vec!["spec.config must not set"]));
    }
    specs
}

/// Names that no group may have; each of them is good for other kinds of objects, or the API server itself refuses it.
fn names() -> [String; 4] {
    ["a".repeat(53), "1st".to_owned(), "dotted.name".to_owned(), "Shouting".to_owned()]
}

/// What `kubectl` says of each document, one refusal an entry.
fn refusals(installation: &Installation<'_>, documents: &str) -> anyhow::Result<Vec<String>> {
    let mut apply = installation.kubectl(&["apply", "--dry-run=server", "--validate=strict", "--filename", "-"]);
    let output = with_input(&mut apply, documents)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        bail!("nothing was refused: {}", String::from_utf8_lossy(&output.stdout));
    }
    // A refusal may be of several lines, each but the first with a star.
    let mut refusals: Vec<String> = Vec::new();
    for line in said.lines() {
        match refusals.last_mut() {
            Some(last) if line.trim_start().starts_with('*') => last.push_str(line),
            _ => refusals.push(line.to_owned()),
        }
    }
    Ok(refusals)
}

fn with_input(command: &mut Command, input: &str) -> anyhow::Result<std::process::Output> {
    use std::io::Write as _;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    // In a thread of its own: kubectl may say more than a pipe holds before it has read everything.
    let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("waiting for {command:?}"))?;
    match writer.join() {
        Ok(written) => written.with_context(|| format!("writing to {command:?}"))?,
        Err(_panic) => bail!("writing to {command:?} panicked"),
    }
    Ok(output)
}
