//! The KV configuration: namespace → key → value, kept in a file of RocketMQ's shape (`kvConfig.json`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use gantry_remoting::body::kv_table::KvTable;
use gantry_store::atomic_file;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

const MAX_ENTRIES: usize = 10_000;
const MAX_ENTRY_BYTES: usize = 64 * 1024;

/// Changes are on disk before they are answered, where there is a file.
#[derive(Debug)]
pub(super) struct KvConfigs {
    path: Option<PathBuf>,
    table: Mutex<Stored>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Stored {
    #[serde(rename = "configTable")]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl KvConfigs {
    /// Reads the file, which needn't be there yet.
    pub(super) fn open(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let table = match &path {
            None => Stored::default(),
            Some(path) => {
                let text = atomic_file::read(path).with_context(|| format!("can't read {}", path.display()))?;
                let parsed = text.map(|text| serde_json::from_slice(&text)).transpose();
                parsed.with_context(|| format!("{} is not a KV configuration", path.display()))?.unwrap_or_default()
            }
        };
        Ok(Self { path, table: Mutex::new(table) })
    }

    pub(super) fn get(&self, namespace: &str, key: &str) -> Option<String> {
        self.table.lock().namespaces.get(namespace)?.get(key).cloned()
    }

    /// All of a namespace; `None` if it has nothing.
    pub(super) fn namespace(&self, namespace: &str) -> Option<KvTable> {
        let table = self.table.lock().namespaces.get(namespace)?.clone();
        Some(KvTable { table })
    }

    /// Sets a value. Waits for the disk: not for a connection's task.
    pub(super) fn put(&self, namespace: &str, key: &str, value: &str) -> Result<(), Refusal> {
        if namespace.len() + key.len() + value.len() > MAX_ENTRY_BYTES {
            return Err(Refusal::Full { what: "bytes of one entry", limit: MAX_ENTRY_BYTES });
        }
        self.change(|namespaces| {
            if namespaces.values().map(BTreeMap::len).sum::<usize>() >= MAX_ENTRIES {
                return Err(Refusal::Full { what: "entries of the KV configuration", limit: MAX_ENTRIES });
            }
            namespaces.entry(namespace.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
            Ok(())
        })
    }

    /// Deletes a value, which needn't be there. Waits for the disk: not for a connection's task.
    pub(super) fn delete(&self, namespace: &str, key: &str) -> Result<(), Refusal> {
        self.change(|namespaces| {
            if let Some(keys) = namespaces.get_mut(namespace) {
                keys.remove(key);
            }
            namespaces.retain(|_, keys| !keys.is_empty());
            Ok(())
        })
    }

    /// Changes a copy, stores it, and only then shows it.
    fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, BTreeMap<String, String>>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut table = self.table.lock();
        let mut next = table.clone();
        change(&mut next.namespaces)?;
        if let Some(path) = &self.path {
            let failed = |problem: String| Refusal::Storage(format!("{}: {problem}", path.display()));
            let text = serde_json::to_vec_pretty(&next).map_err(|error| failed(error.to_string()))?;
            atomic_file::replace(path, &text).map_err(|error| failed(error.to_string()))?;
        }
        *table = next;
        Ok(())
    }
}
