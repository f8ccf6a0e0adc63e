//! Frames that are none: they close their own connection, and hurt nobody else.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::Context;
use gantry_e2e::client::Library;
use gantry_e2e::group::{Group, Options};
use gantry_e2e::logs;
use gantry_e2e::scene::{self, CLIENT_WITHIN};

/// A frame with a header of `serialize` type.
fn frame(serialize: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + header.len() + body.len()) as u32).to_be_bytes().to_vec();
    bytes.push(serialize);
    bytes.extend_from_slice(&(header.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(body);
    bytes
}

/// What breaks the framing or the header: the connection must be closed for each of them.
fn broken(random: &mut fastrand::Rng) -> Vec<(&'static str, Vec<u8>)> {
    let noise: Vec<u8> = (0..4096).map(|_| random.u8(..)).collect();
    let mut long_header = 100_u32.to_be_bytes().to_vec();
    long_header.extend_from_slice(&[0, 0xFF, 0xFF, 0xFF]);
    long_header.resize(104, b' ');
    vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a length above the limit", vec![0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]),
        ("a negative length", vec![0xFF; 64]),
        ("an empty frame", vec![0; 64]),
        ("a header longer than its frame", long_header),
        ("a header that is no JSON", frame(0, b"{\"code\":", b"")),
        ("a header that is no object", frame(0, b"[1,2,3]", b"")),
        ("a header that is not UTF-8", frame(0, b"{\"code\":10,\"remark\":\"\xFF\xFE\"}", b"")),
        ("an unknown serialization", frame(9, b"{}", b"")),
        ("a binary header that is cut off", frame(1, &[0, 10, 0, 0], b"")),
        ("noise with a length that fits", frame(0, &noise, &noise)),
    ]
}

/// Sends it and waits until the other end has closed; an answer before that is fine.
fn expect_closed(address: &str, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut answer = Vec::new();
    let closed = match stream.write_all(bytes).and_then(|()| stream.read_to_end(&mut answer)) {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
    };
    anyhow::ensure!(closed, "{address} left the connection open after {name}");
    Ok(())
}

/// Whole frames with nonsense inside, and connections that end in the middle of one: answered or not, but survived.
fn survive(address: &str, random: &mut fastrand::Rng) -> anyhow::Result<()> {
    let nonsense: [&[u8]; 5] = [
        br#"{"code":310,"flag":0,"opaque":1,"version":513,"language":"JAVA","extFields":{"e":"x"}}"#,
        br#"{"code":11,"flag":0,"opaque":2,"version":513,"language":"JAVA","extFields":{"queueOffset":"-9223372036854775808"}}"#,
        br#"{"code":34,"flag":0,"opaque":3,"version":513,"language":"KLINGON"}"#,
        br#"{"code":-2147483648,"flag":-1,"opaque":-1,"version":-1,"language":"JAVA"}"#,
        br#"{"code":99999,"flag":0,"opaque":5,"version":513,"language":"JAVA"}"#,
    ];
    for header in nonsense {
        let whole = frame(0, header, b"\x00\x01\x02");
        let mut stream = TcpStream::connect(address)?;
        let cut = random.usize(1..whole.len());
        stream.write_all(&whole)?;
        stream.write_all(&whole[..cut])?;
        stream.shutdown(Shutdown::Write).context("half-closing")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).with_context(|| format!("{address} kept a connection that had ended"))?;
    }
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn malformed_frames_close_their_own_connection_and_hurt_nobody_else() -> anyhow::Result<()> {
    let seed = scene::number("GANTRY_SEED", fastrand::u64(..1_000_000))?;
    logs::say(&format!("GANTRY_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let group = Group::start(&Options::default())?;
    let before = group.status()?;
    let pids = group.pids();
    let mut pair = scene::job(&group, Library::Java5, "pair", "Undisturbed")?
        .with("group", "undisturbed")
        .with("messages", 6_000)
        .with("rate", 1_000)
        .start()?;
    pair.wait_acked(500, CLIENT_WITHIN)?;
    let mut addresses = vec![group.nameserver().to_owned(), group.address().to_owned()];
    addresses.extend(before.replicas.iter().filter_map(|replica| replica.address.clone()));
    for address in &addresses {
        for (name, bytes) in broken(&mut random) {
            expect_closed(address, name, &bytes)?;
        }
        survive(address, &mut random)?;
    }
    let outcome = pair.finish(CLIENT_WITHIN)?;
    let verdict = scene::judge(&[&outcome], &scene::drained())?;
    assert_eq!((outcome.progress.errors, verdict.counts.deliveries), (0, 6_000), "{outcome}\n{verdict}");
    let after = group.status()?;
    assert_eq!((after.epoch, &after.master), (before.epoch, &before.master), "malformed frames caused a failover");
    assert_eq!(group.pids(), pids, "a process ended");
    Ok(())
}
