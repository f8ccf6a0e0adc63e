//! Which name servers there are, now: each address that one of the configured names leads to. Names are resolved again and again, so that
//! one name, a headless Service's, is enough for a set of name servers that grows and shrinks while brokers run.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// Between two looks at the names. As long as a cluster's DNS lets an answer live.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The same, while a name has never been resolved.
const RETRY: Duration = Duration::from_secs(1);
/// How long the resolver may take for a name.
const RESOLVED_WITHIN: Duration = Duration::from_secs(5);

/// All addresses of a name.
pub(super) async fn resolve(name: String) -> io::Result<BTreeSet<SocketAddr>> {
    Ok(tokio::net::lookup_host(name).await?.collect())
}

/// Runs `keep` for each address that there is, for as long as it is one. A name that can't be resolved keeps the addresses that it had:
/// unknown is not gone. Ends with its drop, and everything that it runs too.
pub(super) async fn follow<R, K>(names: Vec<String>, resolve: impl Fn(String) -> R, keep: impl Fn(SocketAddr) -> K)
where
    R: Future<Output = io::Result<BTreeSet<SocketAddr>>>,
    K: Future<Output = ()> + Send + 'static,
{
    let mut known: BTreeMap<String, Known> = names.into_iter().map(|name| (name, Known::default())).collect();
    let mut running = JoinSet::new();
    let mut kept: BTreeMap<SocketAddr, AbortHandle> = BTreeMap::new();
    loop {
        for (name, known) in &mut known {
            let resolved = timeout(RESOLVED_WITHIN, resolve(name.clone())).await;
            known.learn(name, resolved.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())));
        }
        let all: BTreeSet<SocketAddr> = known.values().flat_map(|known| &known.addresses).copied().collect();
        kept.retain(|address, task| {
            let stays = all.contains(address);
            if !stays {
                info!(name_server = %address, "no name leads to it any more");
                task.abort();
            }
            stays
        });
        for address in all {
            kept.entry(address).or_insert_with(|| running.spawn(keep(address)));
        }
        // Those that were aborted; the others run for ever.
        while running.try_join_next().is_some() {}
        let pending = known.values().any(|known| known.addresses.is_empty());
        sleep(if pending { RETRY } else { LOOK_AGAIN }).await;
    }
}

/// What a name led to.
#[derive(Default)]
struct Known {
    addresses: BTreeSet<SocketAddr>,
    failing: bool,
}

impl Known {
    /// No address at all counts as a failure: a Service without endpoints looks like that.
    fn learn(&mut self, name: &str, resolved: io::Result<BTreeSet<SocketAddr>>) {
        let resolved = resolved.and_then(|addresses| {
            if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
        });
        match resolved {
            Ok(addresses) => {
                self.addresses = addresses;
                self.failing = false;
            }
            Err(error) if !self.failing => {
                warn!(name_server = name, %error, "can't be resolved; what it was before stays");
                self.failing = true;
            }
            Err(_told) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::task::JoinHandle;
    use tokio::time::advance;

    use super::*;

    /// Counts in while it is kept.
    struct Kept(SocketAddr, Arc<Mutex<Vec<SocketAddr>>>);

    impl Drop for Kept {
        fn drop(&mut self) {
            self.1.lock().retain(|address| *address != self.0);
        }
    }

    struct Dns {
        answers: Arc<Mutex<BTreeMap<String, Option<Vec<u8>>>>>,
        kept: Arc<Mutex<Vec<SocketAddr>>>,
        following: JoinHandle<()>,
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 9876))
    }

    impl Dns {
        fn follow(names: &[&str]) -> Self {
            let answers: Arc<Mutex<BTreeMap<String, Option<Vec<u8>>>>> = Arc::default();
            let kept: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
            let asked = Arc::clone(&answers);
            let resolve = move |name: String| {
                let answer = asked.lock().get(&name).cloned().flatten();
                async move { answer.map(|all| all.into_iter().map(address).collect()).ok_or(io::ErrorKind::NotFound.into()) }
            };
            let counted = Arc::clone(&kept);
            let keep = move |address| {
                counted.lock().push(address);
                let kept = Kept(address, Arc::clone(&counted));
                async move {
                    std::future::pending::<()>().await;
                    drop(kept);
                }
            };
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Self { answers, kept, following: tokio::spawn(follow(names, resolve, keep)) }
        }

        fn answer(&self, name: &str, answer: Option<&[u8]>) {
            self.answers.lock().insert(name.to_owned(), answer.map(<[u8]>::to_vec));
        }

        async fn kept_after(&self, time: Duration) -> Vec<SocketAddr> {
            advance(time).await;
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            let mut kept = self.kept.lock().clone();
            kept.sort();
            kept
        }
    }

    #[tokio::test(start_paused = true)]
    async fn name_servers_come_and_go_with_what_a_name_leads_to() {
        let dns = Dns::follow(&["members"]);
        assert_eq!(dns.kept_after(RETRY).await, [], "nobody is known yet");
        dns.answer("members", Some(&[1, 2]));
        assert_eq!(dns.kept_after(RETRY).await, [address(1), address(2)]);
        dns.answer("members", Some(&[2, 3, 4]));
        assert_eq!(dns.kept_after(LOOK_AGAIN).await, [address(2), address(3), address(4)]);
        dns.following.abort();
        assert_eq!(dns.kept_after(LOOK_AGAIN).await, [], "what it runs ends with it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_cannot_be_resolved_keeps_what_it_was_and_holds_up_no_other() {
        let dns = Dns::follow(&["a", "b"]);
        dns.answer("a", Some(&[1]));
        assert_eq!(dns.kept_after(RETRY).await, [address(1)]);
        dns.answer("b", Some(&[1, 2]));
        assert_eq!(dns.kept_after(RETRY).await, [address(1), address(2)], "one address of two names is one");
        for nothing in [None, Some(&[][..])] {
            dns.answer("a", nothing);
            dns.answer("b", nothing);
            assert_eq!(dns.kept_after(LOOK_AGAIN).await, [address(1), address(2)]);
        }
    }
}
