//! When the clients of an old master may be sent away: once the address by which they came leads to the next one.
//!
//! What stands behind that address (a Service of Kubernetes and each node's rules for it, or the operator's own forwarder) changes some moments after
//! the election, and nobody says when it has. So it is asked.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use gantry_remoting::body::kv_table::KvTable;
use gantry_remoting::code::{request, response};
use gantry_remoting::{Command, Limits};
use tokio::time::sleep;
use tracing::debug;

/// What one question may take, and its connection as long again. Where the address leads to this replica itself there may be no answer at all, and
/// meanwhile it changes.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(20);

/// Resolves when `address` leads to a replica that serves as master.
pub(crate) async fn leads_to_a_master(address: SocketAddr) {
    loop {
        match is_master(address).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => debug!(%address, reason = format!("{error:#}"), "the master's address is not answered"),
        }
        sleep(INTERVAL).await;
    }
}

/// Whether the replica that answers there serves as master.
async fn is_master(address: SocketAddr) -> Result<bool> {
    let limits = Limits { connect_timeout: ANSWER_WITHIN, ..Limits::default() };
    let connection = gantry_remoting::connect(&address.to_string(), limits, None).await?;
    let answer = connection.invoke(Command::request(request::GET_BROKER_RUNTIME_INFO), ANSWER_WITHIN).await;
    connection.close("the master's address was asked about");
    let answer = answer?;
    if answer.code != response::SUCCESS {
        bail!("refused with code {}: {}", answer.code, answer.remark.unwrap_or_default());
    }
    let info: KvTable = gantry_remoting::body::parse(&answer.body.to_bytes())?;
    Ok(info.table.get("brokerActive").is_some_and(|active| active == "true"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use gantry_remoting::{Connection, Handler, Inbound, Response, Server};

    use super::*;

    /// Whoever the address leads to.
    #[derive(Default)]
    struct Replica {
        is_master: AtomicBool,
        asked: AtomicUsize,
    }

    impl Handler for Replica {
        fn handle(&self, _: &Arc<Connection>, batch: &mut Vec<Inbound>) {
            for Inbound { request, ticket } in batch.drain(..) {
                assert_eq!(request.code, request::GET_BROKER_RUNTIME_INFO);
                let active = self.is_master.load(Ordering::SeqCst).to_string();
                let info = KvTable { table: BTreeMap::from([("brokerActive".to_owned(), active)]) };
                ticket.reply(Response::success().with_body(gantry_remoting::body::to_json(&info).unwrap()));
                self.asked.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    #[tokio::test]
    async fn an_address_leads_to_a_master_when_the_one_that_answers_there_says_that_it_is() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let waiting = tokio::spawn(leads_to_a_master(address));
        let replica = Arc::new(Replica::default());
        let _server = Server::bind(address, Limits::default(), Arc::clone(&replica) as Arc<dyn Handler>).await.unwrap();
        while replica.asked.load(Ordering::SeqCst) < 2 {
            assert!(!waiting.is_finished(), "a slave answers there");
            tokio::task::yield_now().await;
        }
        replica.is_master.store(true, Ordering::SeqCst);
        waiting.await.unwrap();
    }
}
