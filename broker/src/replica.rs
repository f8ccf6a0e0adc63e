//! What a replica must remember besides its log: who it is, what it promised, and which epoch wrote which bytes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gantry_replication::epochs::EpochTable;
use gantry_replication::memory::{Integrity, Memory};
use gantry_replication::{Epoch, Member, StoreId};
use gantry_store::atomic_file;
use serde::{Deserialize, Serialize};

pub(crate) const FILE: &str = "replica.json";

/// The file `replica.json` in the store directory. Replaced atomically and durably before anything that depends on it is said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Contents {
    /// Of this file's format. A later one is refused: what it promises may not be understood.
    #[serde(default = "first_version")]
    version: u32,
    /// Made with the store: an emptied disk is another member.
    store_id: String,
    /// The highest epoch accepted (invariant *Promise*).
    promised: Epoch,
    /// The log's epochs.
    epochs: EpochTable,
    /// The machine's boot during which the log was last known to hold all it should, or [`FLUSHED`].
    boot_id: String,
    /// Whether the broker that knew it acknowledged only what is on disk (SYNC_FLUSH): then no boot takes anything away.
    #[serde(default)]
    sync_flush: bool,
}

/// In place of a boot's id: the broker stopped cleanly, and everything is on disk.
const FLUSHED: &str = "flushed";

/// A replica's durable state.
#[derive(Clone, Debug)]
pub struct ReplicaState {
    path: PathBuf,
    member: Member,
    memory: Memory,
    integrity: Integrity,
    /// The present boot's.
    boot_id: String,
    /// Whether whatever this process acknowledges is on disk.
    all_flushed: bool,
    /// What the file says of boots, and of who wrote that.
    settled: Settled,
}

/// When the log was last known to hold all it should, and whether its broker ran with SYNC_FLUSH then.
#[derive(Clone, Debug)]
struct Settled {
    boot_id: String,
    sync_flush: bool,
}

impl ReplicaState {
    /// Reads it from a store directory, or makes it there. `all_flushed` says that whatever is acknowledged is on disk (SYNC_FLUSH).
    pub fn open(root: &Path, name: &str, all_flushed: bool) -> Result<Self> {
        std::fs::create_dir_all(root).with_context(|| format!("can't make the store directory {}", root.display()))?;
        let path = root.join(FILE);
        let boot_id = boot_id()?;
        let read = atomic_file::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        let (contents, intact) = match read {
            None => {
                let store_id = format!("{:016x}", fastrand::u64(1..));
                let epochs = EpochTable::default();
                let version = VERSION;
                let (promised, boot_id) = (Epoch(0), boot_id.clone());
                (Contents { version, store_id, promised, epochs, boot_id, sync_flush: all_flushed }, true)
            }
            Some(bytes) => {
                let old = parse(&bytes, &path)?;
                // How the log was written counts, not how this process will write it.
                let intact = old.sync_flush || old.boot_id == boot_id || old.boot_id == FLUSHED;
                let settled = Contents { boot_id: boot_id.clone(), sync_flush: all_flushed, ..old.clone() };
                // What may have lost something stays marked, over any number of restarts, until it follows a master again.
                (if intact { settled } else { old }, intact)
            }
        };
        let id = u64::from_str_radix(&contents.store_id, 16)
            .with_context(|| format!("{}: storeId `{}` is not hexadecimal", path.display(), contents.store_id))?;
        let Contents { promised, epochs, boot_id: settled_in, sync_flush, .. } = contents;
        let state = Self {
            path,
            member: Member::new(name, StoreId(id)),
            memory: Memory { promised, epochs },
            integrity: Integrity::restored(intact),
            boot_id,
            all_flushed,
            settled: Settled { boot_id: settled_in, sync_flush },
        };
        state.store()?;
        Ok(state)
    }

    /// After the log was cut at `end` by hand: makes this another member, with the epochs that the log still has, and what
    /// was promised. `false` where there is no such file, and so no member.
    pub fn renew(root: &Path, end: u64) -> Result<bool> {
        let path = root.join(FILE);
        let Some(bytes) = atomic_file::read(&path).with_context(|| format!("can't read {}", path.display()))? else {
            return Ok(false);
        };
        let mut contents = Contents { version: VERSION, ..parse(&bytes, &path)? };
        contents.epochs.cut(end);
        contents.store_id = format!("{:016x}", fastrand::u64(1..));
        let bytes = serde_json::to_vec_pretty(&contents)?;
        atomic_file::replace(&path, &bytes).with_context(|| format!("can't write {}", path.display()))?;
        Ok(true)
    }

    /// Who this is.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// False after the machine's crash without SYNC_FLUSH: the log may lack what this replica acknowledged.
    pub fn is_intact(&self) -> bool {
        self.integrity.is_intact()
    }

    /// The same, and what is missing for it.
    pub fn integrity(&self) -> Integrity {
        self.integrity
    }

    /// Promise and epochs, which change together.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The highest epoch accepted.
    pub fn promised(&self) -> Epoch {
        self.memory.promised
    }

    /// The log's epochs.
    pub fn epochs(&self) -> &EpochTable {
        &self.memory.epochs
    }

    /// Changes what is remembered, on disk first: when this returns an error nothing has changed in memory.
    pub fn change(&mut self, memory: Memory, integrity: Integrity) -> Result<()> {
        let (promised, before) = (memory.promised, self.memory.promised);
        assert!(promised >= before, "a promise never goes back: {promised} after {before}");
        let mut changed = Self { memory, integrity, ..self.clone() };
        if integrity.is_intact() {
            changed.settled = Settled { boot_id: self.boot_id.clone(), sync_flush: self.all_flushed };
        }
        changed.store()?;
        *self = changed;
        Ok(())
    }

    /// The store was closed: everything is on disk, and a restart of the machine takes nothing away.
    pub fn closed(&mut self) -> Result<()> {
        if self.is_intact() {
            FLUSHED.clone_into(&mut self.settled.boot_id);
        }
        self.store()
    }

    fn store(&self) -> Result<()> {
        let contents = Contents {
            version: VERSION,
            store_id: self.member.store_id.to_string(),
            promised: self.memory.promised,
            epochs: self.memory.epochs.clone(),
            boot_id: self.settled.boot_id.clone(),
            sync_flush: self.settled.sync_flush,
        };
        let bytes = serde_json::to_vec_pretty(&contents)?;
        atomic_file::replace(&self.path, &bytes).with_context(|| format!("can't write {}", self.path.display()))
    }
}

const VERSION: u32 = 2;

fn first_version() -> u32 {
    1
}

fn parse(bytes: &[u8], path: &Path) -> Result<Contents> {
    let damaged = || {
        let directory = path.parent().unwrap_or(path).display();
        format!("{} is damaged: restore it, or empty {directory} to join as a new replica", path.display())
    };
    let value: serde_json::Value = serde_json::from_slice(bytes).with_context(damaged)?;
    if let Some(version) = value["version"].as_u64().filter(|version| *version > u64::from(VERSION)) {
        bail!(
            "{} has version {version}, which this version of the broker doesn't know: use the later one that wrote it",
            path.display()
        );
    }
    serde_json::from_value(value).with_context(damaged)
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).with_context(|| format!("can't read {path}"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_and_the_store_id_survive_and_an_emptied_directory_is_another_member() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = ReplicaState::open(dir.path(), "r0", false).unwrap();
        let mut epochs = EpochTable::default();
        epochs.open(Epoch(4), 0).unwrap();
        let memory = Memory { promised: Epoch(4), epochs: epochs.clone() };
        state.change(memory, Integrity::Intact).unwrap();
        let again = ReplicaState::open(dir.path(), "r0", false).unwrap();
        assert_eq!((again.member(), again.promised(), again.epochs()), (state.member(), Epoch(4), &epochs));
        assert!(again.is_intact(), "the machine hasn't been restarted");
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert_ne!(ReplicaState::open(dir.path(), "r0", false).unwrap().member(), state.member());
    }

    #[test]
    fn another_boot_after_a_life_without_sync_flush_is_not_intact() {
        let dir = tempfile::tempdir().unwrap();
        ReplicaState::open(dir.path(), "r0", false).unwrap();
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap().replace(&boot_id().unwrap(), "an-earlier-boot");
        std::fs::write(&path, &text).unwrap();
        for _restart in 0..2 {
            assert!(!ReplicaState::open(dir.path(), "r0", false).unwrap().is_intact());
        }
        let mut state = ReplicaState::open(dir.path(), "r0", false).unwrap();
        let memory = Memory { promised: Epoch(1), ..Memory::default() };
        state.change(memory.clone(), Integrity::Lacking.aligned(5, 9)).unwrap();
        assert!(!ReplicaState::open(dir.path(), "r0", false).unwrap().is_intact(), "it follows, and is not there yet");
        state.change(memory, state.integrity().grew(9)).unwrap();
        assert!(ReplicaState::open(dir.path(), "r0", false).unwrap().is_intact());
        std::fs::write(&path, &text).unwrap();
        for all_flushed in [true, true, false] {
            let now = ReplicaState::open(dir.path(), "r0", all_flushed).unwrap();
            assert!(!now.is_intact(), "with which flush it is started now says nothing of what was written before");
        }
    }

    #[test]
    fn another_boot_after_a_life_with_sync_flush_is_intact_whatever_comes_next() {
        let dir = tempfile::tempdir().unwrap();
        let other_boot = |all_flushed| {
            let path = dir.path().join(FILE);
            let text = std::fs::read_to_string(&path).unwrap().replace(&boot_id().unwrap(), "an-earlier-boot");
            std::fs::write(&path, &text).unwrap();
            ReplicaState::open(dir.path(), "r0", all_flushed).unwrap().is_intact()
        };
        ReplicaState::open(dir.path(), "r0", false).unwrap();
        ReplicaState::open(dir.path(), "r0", true).unwrap();
        assert!(other_boot(true), "the store is flushed when it is opened, and all that came after it was");
        assert!(other_boot(false), "what the life before acknowledged is on disk");
        assert!(!other_boot(true), "what that one acknowledged may not be");
    }

    #[test]
    fn a_file_that_does_not_tell_how_it_was_written_counts_as_written_without_sync_flush() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"version":1,"storeId":"00000000000000ab","promised":3,"epochs":[],"bootId":"an-earlier-boot"}"#;
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let state = ReplicaState::open(dir.path(), "r0", true).unwrap();
        assert_eq!((state.promised(), state.is_intact()), (Epoch(3), false));
    }

    #[test]
    fn a_clean_stop_survives_a_restart_of_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        ReplicaState::open(dir.path(), "r0", false).unwrap().closed().unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(text.contains(FLUSHED) && !text.contains(&boot_id().unwrap()), "{text}");
        assert!(ReplicaState::open(dir.path(), "r0", false).unwrap().is_intact());
    }

    #[test]
    fn a_file_of_a_later_version_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        ReplicaState::open(dir.path(), "r0", false).unwrap();
        let path = dir.path().join(FILE);
        let later = std::fs::read_to_string(&path).unwrap().replace("\"version\": 2", "\"version\": 3, \"more\": true");
        std::fs::write(&path, &later).unwrap();
        let said = format!("{:#}", ReplicaState::open(dir.path(), "r0", false).unwrap_err());
        assert!(said.contains("replica.json has version 3"), "{said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), later);
    }

    #[test]
    fn a_log_cut_by_hand_makes_another_member_that_keeps_its_promise() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!ReplicaState::renew(dir.path(), 50).unwrap(), "no member, none made");
        let mut state = ReplicaState::open(dir.path(), "r0", false).unwrap();
        let mut epochs = EpochTable::default();
        epochs.open(Epoch(4), 0).unwrap();
        let kept = epochs.clone();
        epochs.open(Epoch(6), 100).unwrap();
        state.change(Memory { promised: Epoch(6), epochs }, state.integrity()).unwrap();
        assert!(ReplicaState::renew(dir.path(), 50).unwrap());
        let renewed = ReplicaState::open(dir.path(), "r0", false).unwrap();
        assert_ne!(renewed.member(), state.member());
        assert_eq!((renewed.promised(), renewed.epochs()), (Epoch(6), &kept));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let said = format!("{:#}", ReplicaState::open(dir.path(), "r0", false).unwrap_err());
        assert!(said.contains("replica.json is damaged"), "{said}");
    }
}
