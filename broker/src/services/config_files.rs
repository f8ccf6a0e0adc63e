//! `config/{topics,subscriptionGroup,consumerOffset,delayOffset}.json`: RocketMQ's files, as snapshots of the metadata log.
//!
//! Each carries, in a key that Apache brokers pass over, how much of the metadata log it holds. The files are replaced
//! one by one, so they may differ in that after a crash; replaying the log from the least of them makes them equal,
//! because changes can be applied twice. A file without the key was written by an Apache broker that had this
//! directory last: then what the files say counts, and the log before it doesn't.

use super::groups::GroupConfig;
use super::offsets::QueueOffsets;
use super::tables::{Tables, Versioned};
use gantry_remoting::body;
use gantry_remoting::body::topic_config::{DataVersion, TopicConfig};
use gantry_store::atomic_file;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder with the four files.
pub struct ConfigFiles {
    dir: PathBuf,
}

/// What the files say.
#[derive(Debug, PartialEq)]
pub struct Loaded {
    /// The tables; `next` is the least of the files'
    pub tables: Tables,
    /// `next` of the newest of the files
    pub newest: u64,
    /// An Apache broker wrote them, or some of them
    pub foreign: bool,
}

/// A file that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused
    #[error("{}: {source}", path.display())]
    Io {
        /// the file
        path: PathBuf,
        /// what the system said
        source: std::io::Error,
    },
    /// Not RocketMQ's JSON
    #[error("{} is damaged: {source}; put back a copy of it, or of this replica's whole store from another", path.display())]
    Content {
        /// the file
        path: PathBuf,
        /// what is wrong
        source: body::BodyError,
    },
}

/// `topics.json`
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TopicFile {
    data_version: DataVersion,
    gantry_metadata_offset: Option<u64>,
    topic_config_table: BTreeMap<String, TopicConfig>,
}

/// `subscriptionGroup.json`
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupFile {
    data_version: DataVersion,
    gantry_metadata_offset: Option<u64>,
    subscription_group_table: BTreeMap<String, GroupConfig>,
}

/// `consumerOffset.json`, with what lies below `topic@group`
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OffsetFile {
    data_version: DataVersion,
    gantry_metadata_offset: Option<u64>,
    offset_table: BTreeMap<String, QueueOffsets>,
}

/// `delayOffset.json`, by level
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DelayFile {
    data_version: DataVersion,
    gantry_metadata_offset: Option<u64>,
    offset_table: BTreeMap<u32, u64>,
}

const TOPICS: &str = "topics.json";
const GROUPS: &str = "subscriptionGroup.json";
const OFFSETS: &str = "consumerOffset.json";
const DELAY: &str = "delayOffset.json";

/// Tables out of an Apache broker's answers to GET_ALL_TOPIC_CONFIG, GET_ALL_SUBSCRIPTIONGROUP_CONFIG, GET_ALL_CONSUMER_OFFSET and
/// GET_ALL_DELAY_OFFSET, which have the shapes of the files.
pub fn parse_bodies(topics: &[u8], groups: &[u8], offsets: &[u8], delay: &[u8]) -> Result<Tables, body::BodyError> {
    let topics: TopicFile = body::parse(topics)?;
    let groups: GroupFile = body::parse(groups)?;
    let offsets: OffsetFile = body::parse(offsets)?;
    let delay: DelayFile = body::parse(delay)?;
    Ok(tables(0, topics, groups, offsets, delay))
}

fn tables(next: u64, topics: TopicFile, groups: GroupFile, offsets: OffsetFile, delay: DelayFile) -> Tables {
    Tables {
        next,
        topics: Versioned { version: topics.data_version, entries: topics.topic_config_table },
        groups: Versioned { version: groups.data_version, entries: groups.subscription_group_table },
        offsets: Versioned { version: offsets.data_version, entries: offsets.offset_table },
        delay: delay.offset_table,
    }
}

impl ConfigFiles {
    /// The files in `dir`, which is made if missing.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        std::fs::create_dir_all(dir).map_err(|source| FileError::Io { path: dir.to_owned(), source })?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Reads all four. A missing file is an empty table that holds nothing of the log.
    pub fn load(&self) -> Result<Loaded, FileError> {
        let topics: Option<TopicFile> = self.read(TOPICS)?;
        let groups: Option<GroupFile> = self.read(GROUPS)?;
        let offsets: Option<OffsetFile> = self.read(OFFSETS)?;
        let delay: Option<DelayFile> = self.read(DELAY)?;
        // The outer option: is there a file; the inner: does it have our mark.
        let marks = [
            topics.as_ref().map(|file| file.gantry_metadata_offset),
            groups.as_ref().map(|file| file.gantry_metadata_offset),
            offsets.as_ref().map(|file| file.gantry_metadata_offset),
            delay.as_ref().map(|file| file.gantry_metadata_offset),
        ];
        let (topics, groups) = (topics.unwrap_or_default(), groups.unwrap_or_default());
        let (offsets, delay) = (offsets.unwrap_or_default(), delay.unwrap_or_default());
        let known = || marks.iter().map(|mark| mark.flatten().unwrap_or(0));
        let (next, newest) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
        let tables = tables(next, topics, groups, offsets, delay);
        Ok(Loaded { tables, newest, foreign: marks.contains(&Some(None)) })
    }

    /// Replaces all four.
    pub fn save(&self, tables: &Tables) -> Result<(), FileError> {
        self.save_marked(tables, Some(tables.next))
    }

    /// Replaces all four by what an Apache master says: when they are loaded they count as its files.
    pub fn save_foreign(&self, tables: &Tables) -> Result<(), FileError> {
        self.save_marked(tables, None)
    }

    fn save_marked(&self, tables: &Tables, gantry_metadata_offset: Option<u64>) -> Result<(), FileError> {
        self.write(
            TOPICS,
            &TopicFile {
                data_version: tables.topics.version.clone(),
                gantry_metadata_offset,
                topic_config_table: tables.topics.entries.clone(),
            },
        )?;
        self.write(
            GROUPS,
            &GroupFile {
                data_version: tables.groups.version.clone(),
                gantry_metadata_offset,
                subscription_group_table: tables.groups.entries.clone(),
            },
        )?;
        let data_version = tables.offsets.version.clone();
        let offset_table = tables.offsets.entries.clone();
        self.write(OFFSETS, &OffsetFile { data_version: data_version.clone(), gantry_metadata_offset, offset_table })?;
        self.write(DELAY, &DelayFile { data_version, gantry_metadata_offset, offset_table: tables.delay.clone() })
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FileError> {
        let path = self.dir.join(name);
        match atomic_file::read(&path) {
            Ok(None) => Ok(None),
            Ok(Some(text)) => body::parse(&text).map(Some).map_err(|source| FileError::Content { path, source }),
            Err(source) => Err(FileError::Io { path, source }),
        }
    }

    fn write<T: Serialize>(&self, name: &str, content: &T) -> Result<(), FileError> {
        let path = self.dir.join(name);
        let text = match body::to_json(content) {
            Ok(text) => text,
            Err(source) => return Err(FileError::Content { path, source }),
        };
        atomic_file::replace(&path, &text).map_err(|source| FileError::Io { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::tables::Change;
    use crate::services::tables::ChangeSet;

    fn some_tables() -> Tables {
        let mut tables = Tables { next: 7, ..Tables::default() };
        let topic = TopicConfig { topic_name: "t".into(), ..TopicConfig::default() };
        let group = GroupConfig { group_name: "g".into(), ..GroupConfig::default() };
        let offsets = QueueOffsets::from([(0, 12), (3, 4)]);
        let changes = vec![
            Change::Topic(topic),
            Change::Group(group),
            Change::Offsets { topic: "t".into(), group: "g".into(), offsets },
            Change::Delay([(3, 9)].into()),
        ];
        tables.apply(&ChangeSet { by: "x".into(), at: 5, changes });
        tables
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let files = ConfigFiles::open(&dir.path().join("config")).unwrap();
        assert_eq!(files.load().unwrap(), Loaded { tables: Tables::default(), newest: 0, foreign: false });
        files.save(&some_tables()).unwrap();
        assert_eq!(files.load().unwrap(), Loaded { tables: some_tables(), newest: 7, foreign: false });
    }

    #[test]
    fn an_apache_brokers_files_are_understood_and_known_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"dataVersion":{"counter":2,"stateVersion":0,"timestamp":9},"offsetTable":{"t@g":{0:12,1:3}}}"#;
        std::fs::write(dir.path().join(OFFSETS), text).unwrap();
        let loaded = ConfigFiles::open(dir.path()).unwrap().load().unwrap();
        assert!(loaded.foreign);
        assert_eq!(loaded.tables.offsets.entries["t@g"], QueueOffsets::from([(0, 12), (1, 3)]));
    }

    #[test]
    fn what_an_apache_master_said_is_loaded_as_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = ConfigFiles::open(dir.path()).unwrap();
        files.save_foreign(&some_tables()).unwrap();
        let tables = Tables { next: 0, ..some_tables() };
        assert_eq!(files.load().unwrap(), Loaded { tables, newest: 0, foreign: true });
    }

    #[test]
    fn an_apache_masters_answers_become_tables() {
        let topics = br#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1},"mappingDataVersion":{},"topicConfigTable":{"t":{"attributes":{},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"t","topicSysFlag":0,"writeQueueNums":4}},"topicQueueMappingDetailMap":{}}"#;
        let groups = br#"{"dataVersion":{"counter":1,"timestamp":1},"forbiddenTable":{},"subscriptionGroupTable":{"g":{"groupName":"g","retryMaxTimes":3}}}"#;
        let offsets = br#"{"offsetTable":{"t@g":{0:12,1:3}}}"#;
        let tables = parse_bodies(topics, groups, offsets, br#"{"offsetTable":{3:9}}"#).unwrap();
        assert_eq!(tables.topics.entries["t"].read_queue_nums, 4);
        assert_eq!(tables.groups.entries["g"].retry_max_times, 3);
        assert_eq!(tables.offsets.entries["t@g"], QueueOffsets::from([(0, 12), (1, 3)]));
        assert_eq!(tables.delay, [(3, 9)].into());
        parse_bodies(topics, groups, offsets, b"{").unwrap_err();
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(TOPICS), "{\"topicConfigTable\":").unwrap();
        let error = ConfigFiles::open(dir.path()).unwrap().load().unwrap_err().to_string();
        assert!(error.contains("topics.json"), "{error}");
    }

    #[test]
    fn files_of_different_ages_are_replayed_from_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let files = ConfigFiles::open(dir.path()).unwrap();
        files.save(&some_tables()).unwrap();
        let older = std::fs::read_to_string(dir.path().join(TOPICS)).unwrap().replace("Offset\":7", "Offset\":4");
        std::fs::write(dir.path().join(TOPICS), older).unwrap();
        let loaded = files.load().unwrap();
        assert_eq!((loaded.tables.next, loaded.newest), (4, 7));
    }
}
