//! `gantry hand-over`: waits until the broker beside it may be stopped. A preStop hook: while it waits, whoever decides who is master sees that
//! the pod is to go, and makes a slave master as planned.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

/// For one question and its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Between one question and the next.
const PAUSE: Duration = Duration::from_millis(50);
/// The answer is one line.
const MAX_ANSWER: u64 = 16 << 10;

/// Arguments of `gantry hand-over`.
#[derive(Args)]
pub struct HandOverArgs {
    /// Where the broker answers probes (metricsPromExporterHost): its brokerIP1, by default.
    #[arg(long, value_name = "ADDRESS", env = "POD_IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// And the port (metricsPromExporterPort).
    #[arg(long, value_name = "PORT", default_value_t = 5557)]
    port: u16,
    /// How many seconds to wait at most. It is an error then, and the broker still master.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    within: u64,
}

/// Waits; why the broker may be stopped, as a line.
pub fn run(args: &HandOverArgs) -> Result<String> {
    let at = SocketAddr::new(args.host, args.port);
    let give_up = Instant::now() + Duration::from_secs(args.within);
    loop {
        match ask(at) {
            Ok(Answer::Stay(why)) if Instant::now() >= give_up => {
                bail!("{why}: it still is master after {} s", args.within)
            }
            Err(error) if Instant::now() >= give_up => {
                return Err(error).with_context(|| format!("the broker's probes at {at} don't answer"));
            }
            Ok(Answer::Leave(why)) => return Ok(why + "\n"),
            Ok(Answer::Stay(_)) | Err(_) => sleep(PAUSE),
        }
    }
}

enum Answer {
    Leave(String),
    Stay(String),
}

fn ask(at: SocketAddr) -> Result<Answer> {
    let mut stream = match TcpStream::connect_timeout(&at, ANSWER_WITHIN) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return Ok(Answer::Leave("no broker is there".to_owned()));
        }
        connected => connected?,
    };
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"GET /leavez HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    let (head, why) = text.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let why = why.trim().to_owned();
    match head.split(' ').nth(1) {
        Some("200") => Ok(Answer::Leave(why)),
        Some("503") => Ok(Answer::Stay(why)),
        _ => bail!("it was answered {:?}", head.lines().next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Gives the answers in their order, and then listens no more.
    fn broker(answers: &'static [(&'static str, &'static str)]) -> (SocketAddr, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            for (status, why) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).unwrap();
                assert!(request[..read].starts_with(b"GET /leavez "));
                write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{why}\n").unwrap();
            }
        });
        (address, serving)
    }

    fn wait(at: SocketAddr, within: u64) -> Result<String> {
        run(&HandOverArgs { host: at.ip(), port: at.port(), within })
    }

    #[test]
    fn a_master_is_waited_for_until_it_has_handed_over() {
        const MASTER: (&str, &str) = ("503 Service Unavailable", "master of epoch 1");
        let (at, serving) = broker(&[MASTER, MASTER, ("200 OK", "it is not master")]);
        assert_eq!(wait(at, 60).unwrap(), "it is not master\n");
        serving.join().unwrap();
    }

    #[test]
    fn a_broker_that_ends_meanwhile_is_waited_for_no_longer() {
        let (at, serving) = broker(&[("503 Service Unavailable", "master of epoch 1")]);
        assert_eq!(wait(at, 60).unwrap(), "no broker is there\n");
        serving.join().unwrap();
    }

    #[test]
    fn a_master_that_nobody_replaces_is_an_error_in_the_end() {
        let (at, serving) = broker(&[("503 Service Unavailable", "master of epoch 1")]);
        let said = wait(at, 0).unwrap_err().to_string();
        assert_eq!(said, "master of epoch 1: it still is master after 0 s");
        serving.join().unwrap();
    }
}
