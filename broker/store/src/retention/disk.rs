//! How full the disk is, and what follows from it.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::UNKNOWN;
use crate::fs::Space;
use crate::shared::Shared;

/// What the disk asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// Nothing.
    None,
    /// Expired segments go at any hour.
    Expired,
    /// The oldest go.
    Forcibly,
    /// Nothing but the disk counts.
    Full,
}

/// Looks, and remembers it for those who ask.
pub(super) fn look(shared: &Shared) -> Pressure {
    let state = &shared.retention;
    let retention = state.rules();
    let log_space = space(shared, &shared.config.log_directory());
    let own = store_bytes(shared);
    let hanging = state.hanging_bytes.load(Ordering::Relaxed);
    let quota = retention.quota_bytes.map(|quota| percent(own.saturating_add(hanging), quota));
    let log = log_space.and_then(used_percent).max(quota);
    let queues = space(shared, shared.root()).and_then(used_percent);
    state.log_percent.store(log.unwrap_or(UNKNOWN), Ordering::Relaxed);
    state.queues_percent.store(queues.unwrap_or(UNKNOWN), Ordering::Relaxed);

    let used = log.max(queues);
    let above = |used: Option<u16>, limit: u8| used.is_some_and(|used| used > u16::from(limit));
    if above(used, retention.warning_percent) {
        tell(shared, true, used);
    } else if !above(used, retention.forcibly_percent) {
        tell(shared, false, used);
    }
    // What is deleted and still read comes back by itself: it is no reason to delete more.
    let lasting_log = log_space.and_then(|space| used_percent(after(space, hanging)));
    let lasting_quota = retention.quota_bytes.map(|quota| percent(own, quota));
    // The volume with everything else may be another one, to which nothing comes back.
    let one_volume = shared.config.log_directory().starts_with(shared.root());
    let lasting = lasting_log.max(lasting_quota).max(if one_volume { None } else { queues });
    match () {
        () if state.no_space.swap(false, Ordering::AcqRel) => Pressure::Full,
        () if above(lasting, retention.warning_percent) => Pressure::Full,
        () if above(lasting, retention.forcibly_percent) => Pressure::Forcibly,
        () if above(lasting, retention.max_used_percent) => Pressure::Expired,
        () => Pressure::None,
    }
}

fn space(shared: &Shared, path: &Path) -> Option<Space> {
    let space = shared.fs.space(path);
    let warn = |error: &io::Error| tracing::warn!(%error, path = %path.display(), "can't tell how full the disk is");
    space.inspect_err(warn).ok()
}

fn tell(shared: &Shared, full: bool, used: Option<u16>) {
    if shared.retention.full.swap(full, Ordering::Relaxed) == full {
        return;
    }
    let (used, path) = (used.unwrap_or(UNKNOWN), shared.root().display());
    if full {
        let limit = shared.retention.rules().warning_percent;
        tracing::error!(%path, "the disk is {used} % full, above diskSpaceWarningLevelRatio={limit}: messages are refused");
    } else {
        tracing::info!(%path, "the disk is {used} % full: messages are taken again");
    }
}

/// Once these bytes have come back.
fn after(space: Space, returning: u64) -> Space {
    Space {
        free_bytes: space.free_bytes.saturating_add(returning),
        available_bytes: space.available_bytes.saturating_add(returning),
        ..space
    }
}

/// As RocketMQ and `df` count: used of what is used and usable, rounded up.
fn used_percent(space: Space) -> Option<u16> {
    let used = space.total_bytes.saturating_sub(space.free_bytes);
    let entire = used.saturating_add(space.available_bytes);
    (entire > 0).then(|| percent(used, entire))
}

fn percent(part: u64, whole: u64) -> u16 {
    let percent = (u128::from(part) * 100).div_ceil(u128::from(whole.max(1)));
    u16::try_from(percent).unwrap_or(UNKNOWN - 1)
}

/// What this store takes and will go on to take: whole segments, and units of queues (whose files are sparse).
fn store_bytes(shared: &Shared) -> u64 {
    shared.log.allocated_bytes() + shared.queues.used_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_keeps_for_itself_counts_neither_as_used_nor_as_usable() {
        let space = Space { total_bytes: 1000, free_bytes: 150, available_bytes: 100 };
        assert_eq!(used_percent(space), Some(90), "850 of 950");
        assert_eq!(used_percent(Space { total_bytes: 0, free_bytes: 0, available_bytes: 0 }), None);
        assert_eq!(used_percent(after(space, 450)), Some(43), "400 of 950");
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(1, 1_000), 1);
        assert_eq!(percent(300, 100), 300);
    }
}
