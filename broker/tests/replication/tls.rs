//! TLS between replicas.

use std::path::Path;

use gantry_broker::ha::{Tls, TlsFiles};
use gantry_replication::Epoch;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::hostile::{refused, say};
use crate::rig::Node;

/// A group's authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A replica's settings: its certificate, for that name, is signed by this authority; it trusts `trusted`.
    fn replica(&self, dir: &Path, name: &str, trusted: &Self) -> Tls {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let files = TlsFiles {
            certificate: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            authority: dir.join("ca.pem"),
            name: "broker-a".to_owned(),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::write(&files.authority, &trusted.pem).unwrap();
        Tls::load(&files).unwrap()
    }
}

async fn node(name: &str, authority: &Authority, of: &str, trusted: &Authority) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let tls = authority.replica(dir.path(), of, trusted);
    Node::open_with(dir, name, Some(tls)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_one_authority_follow_each_other() {
    let ours = Authority::new();
    let a = node("a", &ours, "broker-a", &ours).await;
    let b = node("b", &ours, "broker-a", &ours).await;
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    let body = "x".repeat(60_000);
    for _ in 0..30 {
        a.acked(&body).await;
    }
    assert!(a.log() == b.log());
    assert_eq!(b.core.report().last_epoch, Epoch(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_of_the_group_is_refused_by_either_side() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let a = node("a", &ours, "broker-a", &ours).await;
    let record = a.lead(1, &[]).await;
    assert!(say(&a, b"G is not how TLS begins").await.len() < 10, "an alert at most");
    a.until("the plain peer to be refused", |a| refused(a) >= 1).await;
    let plain = Node::start("plain").await;
    plain.follow(&record, &a).await;
    let stranger = node("stranger", &theirs, "broker-a", &ours).await;
    stranger.follow(&record, &a).await;
    a.until("both to be refused", |a| refused(a) >= 3).await;
    assert!(a.core.slaves().is_empty());

    // And the other way round: a slave follows nobody whose certificate is another authority's, or another group's.
    for (authority, of) in [(&theirs, "broker-a"), (&ours, "broker-b")] {
        let imposter = node("imposter", authority, of, &ours).await;
        let record = imposter.lead(1, &[]).await;
        let b = node("b", &ours, "broker-a", &ours).await;
        b.follow(&record, &imposter).await;
        imposter.until("the slave to leave", |imposter| refused(imposter) >= 1).await;
        assert!(imposter.core.slaves().is_empty());
    }
}
