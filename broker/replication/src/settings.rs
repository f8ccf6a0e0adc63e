//! Keys of `broker.conf` that a broker takes while it runs, as the operator sends them by the session with the elector.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// They need no restart. A test of the broker sees to it that each of them changes something there.
pub const LIVE_KEYS: &[&str] = &[
    "autoCreateSubscriptionGroup",
    "brokerFastFailureEnable",
    "brokerPermission",
    "cleanFileForciblyEnable",
    "cleanResourceInterval",
    "defaultQueryMaxNum",
    "deleteCommitLogFilesInterval",
    "deleteFileBatchMax",
    "deleteWhen",
    "destroyMapedFileIntervalForcibly",
    "diskMaxUsedSpaceRatio",
    "diskSpaceCleanForciblyRatio",
    "diskSpaceWarningLevelRatio",
    "fileReservedTime",
    "gantryExternalMaster",
    "gantryStoreQuotaBytes",
    "haFlowControlEnable",
    "longPollingEnable",
    "maxHaTransferByteInSecond",
    "maxMsgsNumBatch",
    "maxTransferBytesOnMessageInDisk",
    "maxTransferBytesOnMessageInMemory",
    "maxTransferCountOnMessageInDisk",
    "maxTransferCountOnMessageInMemory",
    "osPageCacheBusyTimeOutMills",
    "redeleteHangedFileInterval",
    "shortPollingTimeMills",
    "waitTimeMillsInSendQueue",
];

/// All live keys that are set: a key that isn't here has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(pub BTreeMap<String, String>);

impl Settings {
    /// The live ones of these keys.
    pub fn of(entries: &BTreeMap<String, String>) -> Self {
        let live = entries.iter().filter(|(key, _)| LIVE_KEYS.contains(&key.as_str()));
        Self(live.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// A number by which a report says which settings apply. Fowler, Noll and Vo's hash: the same in every release.
    pub fn digest(&self) -> u64 {
        let bytes = self.0.iter().flat_map(|(key, value)| [key.as_bytes(), b"=", value.trim().as_bytes(), b"\n"]);
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        bytes.flatten().fold(0xcbf2_9ce4_8422_2325, hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_keys_count_and_each_of_them_does() {
        let entries = |pairs: &[(&str, &str)]| -> BTreeMap<_, _> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let of = |pairs: &[(&str, &str)]| Settings::of(&entries(pairs)).digest();
        let hours = of(&[("fileReservedTime", "48"), ("brokerName", "a")]);
        assert_eq!(hours, of(&[("fileReservedTime", "48")]));
        assert_ne!(hours, of(&[("fileReservedTime", "49")]));
        assert_ne!(hours, of(&[]));
        assert_ne!(of(&[("deleteWhen", "4")]), of(&[("fileReservedTime", "4")]));
        assert!(LIVE_KEYS.is_sorted(), "in order, for whoever looks for one");
    }
}
