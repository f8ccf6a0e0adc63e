//! CPU and memory of processes while something runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::process;

/// What a process used between start and finish.
#[derive(Clone, Debug)]
pub(super) struct Used {
    pub(super) pid: u32,
    pub(super) cpu_seconds: f64,
    pub(super) rss_anon_bytes: u64,
    pub(super) most_rss_anon_bytes: u64,
}

/// Watches processes from its start on.
pub(super) struct Sampler {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<Vec<Used>>,
}

impl Sampler {
    pub(super) fn start(pids: &[u32]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let pids = pids.to_vec();
        let cpu = |pid| process::cpu_time(pid).unwrap_or_default();
        let before: Vec<Duration> = pids.iter().map(|pid| cpu(*pid)).collect();
        let watcher = std::thread::spawn(move || {
            let mut most = vec![0; pids.len()];
            while !stopped.load(Ordering::Acquire) {
                for (most, pid) in most.iter_mut().zip(&pids) {
                    *most = process::rss_anon_bytes(*pid).unwrap_or(0).max(*most);
                }
                std::thread::park_timeout(Duration::from_millis(250));
            }
            let used = |((pid, before), most): ((&u32, Duration), u64)| Used {
                pid: *pid,
                cpu_seconds: cpu(*pid).saturating_sub(before).as_secs_f64(),
                rss_anon_bytes: process::rss_anon_bytes(*pid).unwrap_or(0),
                most_rss_anon_bytes: most,
            };
            pids.iter().zip(before).zip(most).map(used).collect()
        });
        Self { stop, watcher }
    }

    pub(super) fn finish(self) -> Vec<Used> {
        self.stop.store(true, Ordering::Release);
        self.watcher.thread().unpark();
        self.watcher.join().unwrap_or_default()
    }
}
