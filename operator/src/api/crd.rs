//! The CRDs as the YAML files that the chart and `kubectl` take.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{BrokerGroup, ConsumerGroup, NameServer, Topic};

/// The CustomResourceDefinitions of all kinds.
pub fn crds() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    let kinds = [BrokerGroup::crd(), ConsumerGroup::crd(), NameServer::crd(), Topic::crd()];
    kinds.into_iter().map(finish).collect()
}

/// The CustomResourceDefinitions as YAML, each with its name, which is its file's in `crds/`, and a head line that says where it comes from.
pub fn crds_yaml() -> anyhow::Result<Vec<(String, String)>> {
    let yaml = |crd: &CustomResourceDefinition| {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let yaml = serde_norway::to_string(crd)?;
        Ok((name, format!("# Made by `gantry-operator crd` from operator/src/api. Don't edit.\n{yaml}")))
    };
    crds()?.iter().map(yaml).collect()
}

fn finish(crd: CustomResourceDefinition) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut crd = serde_json::to_value(crd)?;
    use_formats_that_kubernetes_knows(&mut crd);
    bound_names(&mut crd);
    say_what_kubernetes_takes(&mut crd);
    serde_json::from_value(crd)
}

/// `kubectl apply` warns of Rust's `uint8` and `uint64`. The bounds are in `minimum` and `maximum` anyway.
fn use_formats_that_kubernetes_knows(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(format) = fields.get_mut("format") {
                match format.as_str() {
                    Some("uint8" | "uint32") => *format = "int32".into(),
                    Some("uint64") => *format = "int64".into(),
                    _ => {}
                }
            }
            fields.values_mut().for_each(use_formats_that_kubernetes_knows);
        }
        Value::Array(items) => items.iter_mut().for_each(use_formats_that_kubernetes_knows),
        _ => {}
    }
}

/// The API server refuses a rule whose worst case costs too much, and takes a name without a bound for megabytes. So the schema says what
/// holds for every name; it looks at these properties only where all of them are there.
fn bound_names(crd: &mut Value) {
    const LONGEST_NAME: u32 = 253;
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let properties = &mut version["schema"]["openAPIV3Schema"]["properties"];
        let text = json!({"type": "string"});
        properties["apiVersion"] = text.clone();
        properties["kind"] = text.clone();
        properties["metadata"] = json!({
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": LONGEST_NAME}, "generateName": text},
        });
    }
}

/// Kubernetes' own types come with the words of its documentation and without its rules: what it would refuse in a pod is refused here, where
/// whoever wrote it is told. And its page on quantities isn't repeated for each of them.
fn say_what_kubernetes_takes(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let words = fields.get("description").and_then(Value::as_str).unwrap_or_default();
            if words.starts_with("Quantity is a fixed-point representation") {
                fields.insert("description".to_owned(), "A quantity such as `500m` or `2Gi`.".into());
                fields.insert("pattern".to_owned(), QUANTITY.into());
            }
            if let Some(Value::Object(properties)) = fields.get_mut("properties")
                && properties.contains_key("tolerationSeconds")
            {
                properties["effect"]["enum"] = json!(["NoSchedule", "PreferNoSchedule", "NoExecute"]);
                properties["operator"]["enum"] = json!(["Exists", "Equal"]);
            }
            fields.values_mut().for_each(say_what_kubernetes_takes);
        }
        Value::Array(items) => items.iter_mut().for_each(say_what_kubernetes_takes),
        _ => {}
    }
}

/// Of what a container may ask for: nothing below zero.
const QUANTITY: &str = r"^[0-9]+(\.[0-9]*)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][-+]?[0-9]+)?$";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{IDENTITY_KEYS, MAX_NAME_SERVERS, MAX_REPLICAS};

    /// As JSON, by name.
    fn crd(name: &str) -> Value {
        let all = crds().unwrap();
        let one = all.iter().find(|crd| crd.metadata.name.as_deref() == Some(name)).unwrap();
        serde_json::to_value(one).unwrap()
    }

    fn all() -> Vec<Value> {
        crds().unwrap().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect()
    }

    #[test]
    fn the_crd_files_are_what_the_types_say() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
        for (name, made) in crds_yaml().unwrap() {
            let path = folder.join(format!("{name}.yaml"));
            let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                on_disk == made,
                "{} differs from the types; run: cargo run -p gantry-operator -- crd {name} > crds/{name}.yaml",
                path.display()
            );
        }
        assert_eq!(
            std::fs::read_dir(folder).unwrap().count(),
            crds().unwrap().len(),
            "a file of a kind that isn't there"
        );
    }

    #[test]
    fn the_schema_carries_the_limits_and_the_identity_keys_of_the_types() {
        let spec = |crd: &Value| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
        let groups = spec(&crd("brokergroups.gantry.rs"));
        let spec = &groups["properties"];
        assert_eq!(spec["replicas"]["maximum"].as_f64(), Some(f64::from(MAX_REPLICAS)));
        assert_eq!(spec["replicas"]["default"], 3);
        let rules = spec["config"]["x-kubernetes-validations"].to_string();
        for key in IDENTITY_KEYS {
            assert!(rules.contains(&format!("'{key}'")), "the CEL rule on spec.config lacks {key}");
        }
        assert_eq!(rules.matches("'broker").count() + rules.matches("'gantry").count(), {
            IDENTITY_KEYS.iter().filter(|key| key.starts_with("broker") || key.starts_with("gantry")).count()
        });
        let servers = crd("nameservers.gantry.rs");
        let replicas = &servers["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["replicas"];
        assert_eq!(
            (replicas["maximum"].as_f64(), &replicas["default"]),
            (Some(f64::from(MAX_NAME_SERVERS)), &json!(2))
        );
    }

    #[test]
    fn the_schema_has_only_formats_that_kubernetes_knows() {
        for (name, crd) in crds_yaml().unwrap() {
            let formats: Vec<_> = crd.lines().filter_map(|line| line.trim().strip_prefix("format: ")).collect();
            assert!(formats.contains(&"int64"), "{name}");
            assert!(
                formats.iter().all(|format| ["int32", "int64", "date-time"].contains(format)),
                "{name} {formats:?}"
            );
        }
    }

    /// Whether the API server takes the rules can only be asked of one: the tests on a real Kubernetes install these files.
    #[test]
    fn names_that_rules_look_at_have_a_bound() {
        for crd in all() {
            let properties = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
            assert_eq!(properties["metadata"]["properties"]["name"]["maxLength"], 253);
            for needed in ["apiVersion", "kind", "metadata"] {
                assert!(properties[needed]["type"].is_string(), "{needed}");
            }
            assert_eq!(properties["metadata"]["properties"]["generateName"]["type"], "string");
        }
    }

    #[test]
    fn each_crd_has_its_short_name_category_columns_and_status_subresource() {
        let declared = ["GROUPS", "READY", "SYNCED", "AGE"];
        for (name, short, columns) in [
            ("brokergroups.gantry.rs", "bg", vec!["MASTER", "EPOCH", "IN-SYNC", "READY", "AGE"]),
            ("nameservers.gantry.rs", "gns", vec!["ADDRESS", "READY", "AGE"]),
            ("topics.gantry.rs", "gtopic", [&["TOPIC", "CLUSTER", "READ", "WRITE"], &declared[..]].concat()),
            ("consumergroups.gantry.rs", "gcg", [&["GROUP", "CLUSTER", "ENABLED", "RETRIES"], &declared[..]].concat()),
        ] {
            let crd = crd(name);
            assert_eq!(crd["spec"]["names"]["shortNames"][0], short);
            assert_eq!(crd["spec"]["names"]["categories"][0], "gantry");
            let version = &crd["spec"]["versions"][0];
            assert!(version["subresources"]["status"].is_object(), "{name}");
            let found = version["additionalPrinterColumns"].as_array().unwrap();
            assert_eq!(
                found.iter().map(|column| column["name"].as_str().unwrap()).collect::<Vec<_>>(),
                columns,
                "{name}"
            );
        }
    }

    #[test]
    fn what_scales_says_by_which_fields() {
        let number = ("statusReplicasPath", "integer");
        let selector = ("labelSelectorPath", "string");
        for (name, paths) in
            [("brokergroups.gantry.rs", vec![number, selector]), ("nameservers.gantry.rs", vec![number])]
        {
            let version = &crd(name)["spec"]["versions"][0];
            let scale = &version["subresources"]["scale"];
            assert_eq!(scale["specReplicasPath"], ".spec.replicas", "{name}");
            let status = &version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
            for (path, type_) in paths {
                let field = scale[path].as_str().unwrap().strip_prefix(".status.").unwrap();
                assert_eq!(status[field]["type"], type_, "{name}: {path} leads to a field of that type");
            }
        }
    }

    /// What `kubectl explain` prints.
    #[test]
    fn every_field_of_a_spec_is_described() {
        for crd in all() {
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            assert!(schema["description"].as_str().is_some_and(|text| text.len() > 40), "{crd}");
            for part in ["spec", "status"] {
                for (field, schema) in schema["properties"][part]["properties"].as_object().unwrap() {
                    assert!(schema["description"].is_string(), "{} {part}.{field}", crd["metadata"]["name"]);
                }
            }
        }
    }
}
