//! Connections over real sockets on the loopback.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gantry_remoting::code::response;
use gantry_remoting::frame::{self, MAX_FRAME_BYTES};
use gantry_remoting::{
    Client, ClientError, Command, Connection, Handler, Inbound, InvokeError, Limits, Response, SendError, Server,
    Ticket, connect,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const ECHO: i32 = 1;
const FORGET: i32 = 2;
const HOLD: i32 = 3;
const CALL_BACK: i32 = 4;
const HUGE: i32 = 5;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_mins(1);

/// Echoes, forgets, holds tickets for the test, or asks back.
struct Peer {
    held: mpsc::UnboundedSender<Ticket>,
    requests: AtomicUsize,
    most_in_flight: AtomicUsize,
    opened: AtomicUsize,
    closed: AtomicUsize,
}

impl Peer {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Ticket>) {
        let (held, tickets) = mpsc::unbounded_channel();
        let zero = AtomicUsize::default;
        (Arc::new(Self { held, requests: zero(), most_in_flight: zero(), opened: zero(), closed: zero() }), tickets)
    }
}

impl Handler for Peer {
    fn handle(&self, connection: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        self.most_in_flight.fetch_max(connection.in_flight(), Ordering::SeqCst);
        for Inbound { request, ticket } in batch.drain(..) {
            self.requests.fetch_add(1, Ordering::SeqCst);
            match request.code {
                ECHO => ticket.reply(Response { ext: request.ext, body: request.body, ..Response::default() }),
                FORGET => drop(ticket),
                HOLD => self.held.send(ticket).unwrap(),
                HUGE => ticket.reply(Response::success().with_body(vec![0; MAX_FRAME_BYTES])),
                CALL_BACK => {
                    tokio::spawn(async move {
                        let answer = ticket.connection().invoke(Command::request(ECHO), PATIENCE).await.unwrap();
                        ticket.reply(Response::code(answer.code));
                    });
                }
                _ => panic!("a request that this handler can't bear"),
            }
        }
    }

    fn opened(&self, _: &Arc<Connection>) {
        self.opened.fetch_add(1, Ordering::SeqCst);
    }

    fn closed(&self, _: &Arc<Connection>) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn serve(limits: Limits) -> (Server, Arc<Peer>, mpsc::UnboundedReceiver<Ticket>) {
    let (peer, tickets) = Peer::new();
    let server = Server::bind(loopback(), limits, Arc::clone(&peer) as Arc<dyn Handler>).await.unwrap();
    (server, peer, tickets)
}

async fn dial(server: &Server) -> Arc<Connection> {
    connect(&server.local_addr().to_string(), Limits::default(), None).await.unwrap()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came of it")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.unwrap_or_else(|_| panic!("{what} never happened"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_pipelined_requests_get_their_own_answers() {
    const CALLERS: i32 = 8;
    let (server, _peer, _tickets) = serve(Limits::default()).await;
    let connection = dial(&server).await;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let connection = Arc::clone(&connection);
        callers.spawn(async move {
            for round in 0..50 {
                let calls: Vec<_> =
                    (0..250).map(|call| echo(&connection, format!("{caller}-{round}-{call}"))).collect();
                for call in calls {
                    call.await.unwrap();
                }
            }
        });
    }
    in_time(callers.join_all()).await;
    assert_eq!(server.connections()[0].in_flight(), 0);
}

/// Sends at once; the answer is looked at when it is awaited.
fn echo(connection: &Arc<Connection>, text: String) -> tokio::task::JoinHandle<()> {
    let connection = Arc::clone(connection);
    tokio::spawn(async move {
        let request = Command::request(ECHO).with_body(text.clone().into_bytes());
        let answer = connection.invoke(request, PATIENCE).await.unwrap();
        assert_eq!(answer.body.to_bytes(), text.as_bytes());
    })
}

#[tokio::test]
async fn a_request_that_its_handler_forgets_is_answered_system_error() {
    let (server, _peer, _tickets) = serve(Limits::default()).await;
    let answer = dial(&server).await.invoke(Command::request(FORGET), PATIENCE).await.unwrap();
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert_eq!(answer.remark.unwrap(), "request code 2 was not answered by its handler");
}

#[tokio::test]
async fn a_one_way_request_gets_no_answer() {
    let (server, peer, mut tickets) = serve(Limits::default()).await;
    let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
    let oneway = |code| Command { flag: 2, opaque: 7, ..Command::request(code) };
    for command in [oneway(ECHO), oneway(FORGET), oneway(HOLD), Command { opaque: 8, ..Command::request(ECHO) }] {
        socket.write_all(&frame::encode(&command, MAX_FRAME_BYTES).unwrap()).await.unwrap();
    }
    let ticket = in_time(tickets.recv()).await.unwrap();
    assert!(ticket.is_oneway());
    ticket.reply_success();
    let mut buffer = bytes::BytesMut::new();
    let first = loop {
        if let Some(command) = frame::decode(&mut buffer, MAX_FRAME_BYTES).unwrap() {
            break command;
        }
        assert!(in_time(socket.read_buf(&mut buffer)).await.unwrap() > 0, "closed without an answer");
    };
    assert_eq!((first.opaque, first.is_response(), buffer.len()), (8, true, 0));
    assert_eq!((peer.requests.load(Ordering::SeqCst), server.connections()[0].in_flight()), (4, 0));
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_a_timeout_and_its_late_coming_harms_nobody() {
    let (server, _peer, mut tickets) = serve(Limits::default()).await;
    let connection = dial(&server).await;
    let error = connection.invoke(Command::request(HOLD), Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(error, InvokeError::Timeout { code: HOLD, .. }), "{error}");
    in_time(tickets.recv()).await.unwrap().reply_success();
    assert_eq!(connection.invoke(Command::request(ECHO), PATIENCE).await.unwrap().code, response::SUCCESS);
}

#[tokio::test]
async fn reading_pauses_at_the_bound_of_requests_in_flight_and_goes_on_when_some_are_answered() {
    const BOUND: usize = 8;
    const REQUESTS: usize = 5 * BOUND;
    let (server, peer, mut tickets) = serve(Limits { max_in_flight: BOUND, ..Limits::default() }).await;
    let connection = dial(&server).await;
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS {
        let connection = Arc::clone(&connection);
        answers.spawn(async move { connection.invoke(Command::request(HOLD), PATIENCE).await.unwrap().code });
    }
    let mut held = Vec::new();
    for _ in 0..BOUND {
        held.push(in_time(tickets.recv()).await.unwrap());
    }
    for _ in BOUND..REQUESTS {
        held.pop().unwrap().reply_success();
        if held.is_empty() {
            held.push(in_time(tickets.recv()).await.unwrap());
        }
    }
    while !answers.is_empty() {
        tokio::select! {
            Some(ticket) = tickets.recv() => held.push(ticket),
            Some(code) = answers.join_next() => assert_eq!(code.unwrap(), response::SUCCESS),
        }
        held.drain(..).for_each(Ticket::reply_success);
    }
    // All lay in the socket from the start, so that without the bound they would have been taken together.
    assert_eq!(peer.most_in_flight.load(Ordering::SeqCst), BOUND);
    assert_eq!(server.connections()[0].in_flight(), 0);
}

#[tokio::test]
async fn a_malformed_frame_closes_its_connection_and_no_other() {
    let (server, peer, _tickets) = serve(Limits::default()).await;
    let good = dial(&server).await;
    good.invoke(Command::request(ECHO), PATIENCE).await.unwrap();
    let oversized = (MAX_FRAME_BYTES as u32 + 1).to_be_bytes();
    let nonsense: [&[u8]; 4] =
        [&oversized, b"\0\0\0\x04\x09\0\0\0", b"\0\0\0\x06\0\0\0\x02{x", b"\x16\x03\x01\x02\0\x01\0\x01"];
    for bytes in nonsense {
        let mut bad = TcpStream::connect(server.local_addr()).await.unwrap();
        bad.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // A reset is as good an end as a close.
        let _end = in_time(bad.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{bytes:?} was answered with {rest:?}");
    }
    until("the bad connections' end", || peer.closed.load(Ordering::SeqCst) == nonsense.len()).await;
    assert_eq!(good.invoke(Command::request(ECHO), PATIENCE).await.unwrap().code, response::SUCCESS);
    assert_eq!((server.connections().len(), peer.opened.load(Ordering::SeqCst)), (1, nonsense.len() + 1));
}

#[tokio::test]
async fn whole_requests_before_a_malformed_frame_are_still_handled() {
    let (server, peer, _tickets) = serve(Limits::default()).await;
    let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
    let mut bytes = frame::encode(&Command { flag: 2, ..Command::request(ECHO) }, MAX_FRAME_BYTES).unwrap().to_vec();
    bytes.extend_from_slice(&[0xff; 8]);
    socket.write_all(&bytes).await.unwrap();
    until("the connection's end", || peer.closed.load(Ordering::SeqCst) == 1).await;
    assert_eq!(peer.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_too_large_for_a_frame_is_told_as_an_error() {
    let (server, _peer, _tickets) = serve(Limits::default()).await;
    let answer = dial(&server).await.invoke(Command::request(HUGE), PATIENCE).await.unwrap();
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("the limit is 16777216"));
}

#[tokio::test]
async fn the_server_may_ask_the_client_on_the_same_connection() {
    let (server, _peer, _tickets) = serve(Limits::default()).await;
    let (client_side, _client_tickets) = Peer::new();
    let connection = connect(&server.local_addr().to_string(), Limits::default(), Some(client_side)).await.unwrap();
    assert_eq!(connection.invoke(Command::request(CALL_BACK), PATIENCE).await.unwrap().code, response::SUCCESS);
    // A client without a handler says that it can't.
    let deaf = dial(&server).await;
    let answer = deaf.invoke(Command::request(CALL_BACK), PATIENCE).await.unwrap();
    assert_eq!(answer.code, response::REQUEST_CODE_NOT_SUPPORTED);
}

#[tokio::test]
async fn large_bodies_go_through_in_both_directions() {
    let (server, _peer, _tickets) = serve(Limits::default()).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|index| index as u8).collect();
    let answer = dial(&server).await.invoke(Command::request(ECHO).with_body(body.clone()), PATIENCE).await.unwrap();
    assert!(answer.body.to_bytes() == body);
}

#[tokio::test]
async fn who_waits_for_an_answer_learns_that_the_connection_has_ended() {
    let (server, peer, mut tickets) = serve(Limits::default()).await;
    let connection = dial(&server).await;
    let waiting = tokio::spawn({
        let connection = Arc::clone(&connection);
        async move { connection.invoke(Command::request(HOLD), PATIENCE).await }
    });
    let ticket = in_time(tickets.recv()).await.unwrap();
    server.connections()[0].close("test");
    assert!(matches!(in_time(waiting).await.unwrap(), Err(InvokeError::Closed { code: HOLD, .. })));
    in_time(connection.closed()).await;
    assert!(connection.send(Command::request(ECHO)).is_err());
    until("the handler's notice", || peer.closed.load(Ordering::SeqCst) == 1).await;
    ticket.reply_success();
}

#[tokio::test]
async fn a_shutdown_writes_what_waits_before_it_closes() {
    let (server, _peer, mut tickets) = serve(Limits::default()).await;
    let connection = dial(&server).await;
    let waiting = tokio::spawn({
        let connection = Arc::clone(&connection);
        async move { connection.invoke(Command::request(HOLD), PATIENCE).await }
    });
    in_time(tickets.recv()).await.unwrap().reply(Response::success().with_body(vec![7; 1_000_000]));
    in_time(server.shutdown(PATIENCE)).await;
    assert_eq!(in_time(waiting).await.unwrap().unwrap().body.len(), 1_000_000);
    in_time(connection.closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_loses_no_answer_to_a_peer_that_goes_on_asking() {
    let (server, _peer, mut tickets) = serve(Limits::default()).await;
    let (mut reading, mut writing) = TcpStream::connect(server.local_addr()).await.unwrap().into_split();
    writing.write_all(&frame::encode(&Command::request(HOLD), MAX_FRAME_BYTES).unwrap()).await.unwrap();
    let ticket = in_time(tickets.recv()).await.unwrap();
    // Closing over unread bytes would reset the connection, which discards what is on its way to the peer: so there
    // are always some, until the peer has everything and ends itself.
    let oneway = Command { flag: 2, ..Command::request(ECHO).with_body(vec![0; 100_000]) };
    let flood = frame::encode(&oneway, MAX_FRAME_BYTES).unwrap();
    let flooding = tokio::spawn(async move { while writing.write_all(&flood).await.is_ok() {} });
    ticket.reply(Response::success().with_body(vec![7; 5_000_000]));
    let stopping = tokio::spawn(server.shutdown(PATIENCE));
    let mut answer = Vec::new();
    let ended = in_time(reading.read_to_end(&mut answer)).await;
    assert!(ended.is_ok() && answer.len() > 5_000_000, "{ended:?} after {} bytes", answer.len());
    flooding.abort();
    drop(reading);
    in_time(stopping).await.unwrap();
}

#[tokio::test]
async fn a_handler_s_panic_ends_its_connection_and_no_other() {
    let (server, peer, _tickets) = serve(Limits::default()).await;
    let (victim, other) = (dial(&server).await, dial(&server).await);
    let answer = victim.invoke(Command::request(99), PATIENCE).await;
    assert!(answer.is_err() || answer.unwrap().code == response::SYSTEM_ERROR);
    in_time(victim.closed()).await;
    until("the handler's notice", || peer.closed.load(Ordering::SeqCst) == 1).await;
    other.invoke(Command::request(ECHO), PATIENCE).await.unwrap();
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_held_back_and_then_cut_off() {
    let limits =
        Limits { max_outbox_bytes: 1 << 20, write_stall_timeout: Duration::from_millis(200), ..Limits::default() };
    let (server, peer, _tickets) = serve(limits).await;
    let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
    let request = frame::encode(&Command::request(ECHO).with_body(vec![1; 256 << 10]), MAX_FRAME_BYTES).unwrap();
    // Writes until the server reads no more and cuts the connection: an endless success would be an endless memory.
    let cut = async { while socket.write_all(&request).await.is_ok() {} };
    in_time(cut).await;
    until("the end", || peer.closed.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn requests_to_a_peer_that_does_not_read_are_refused_in_the_end() {
    let listener = tokio::net::TcpListener::bind(loopback()).await.unwrap();
    let limits = Limits { max_outbox_bytes: 1 << 20, ..Limits::default() };
    let connection = connect(&listener.local_addr().unwrap().to_string(), limits, None).await.unwrap();
    let (_deaf, _) = listener.accept().await.unwrap();
    let refused = async {
        loop {
            match connection.send(Command::request(ECHO).with_body(vec![0; 100_000])) {
                Ok(()) => tokio::task::yield_now().await,
                Err(refused) => break refused,
            }
        }
    };
    let refused = in_time(refused).await;
    assert!(matches!(refused, SendError::OutboxFull { waiting_bytes } if waiting_bytes < 2 << 20), "{refused}");
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let (server, peer, _tickets) = serve(Limits { idle_timeout: Duration::from_millis(50), ..Limits::default() }).await;
    let _silent = TcpStream::connect(server.local_addr()).await.unwrap();
    until("the silent one's end", || peer.closed.load(Ordering::SeqCst) == 1).await;
    assert!(server.connections().is_empty());
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_as_they_come() {
    let (server, _peer, _tickets) = serve(Limits { max_connections: 1, ..Limits::default() }).await;
    let first = dial(&server).await;
    first.invoke(Command::request(ECHO), PATIENCE).await.unwrap();
    let second = dial(&server).await;
    in_time(second.closed()).await;
    first.invoke(Command::request(ECHO), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_client_bounds_what_it_has_in_flight() {
    let (server, _peer, mut tickets) = serve(Limits::default()).await;
    let limits = Limits { max_in_flight: 1, ..Limits::default() };
    let connection = connect(&server.local_addr().to_string(), limits, None).await.unwrap();
    let first = tokio::spawn({
        let connection = Arc::clone(&connection);
        async move { connection.invoke(Command::request(HOLD), PATIENCE).await }
    });
    let ticket = in_time(tickets.recv()).await.unwrap();
    let refused = connection.invoke(Command::request(ECHO), PATIENCE).await;
    assert!(matches!(refused, Err(InvokeError::TooManyInFlight { limit: 1, .. })));
    ticket.reply_success();
    in_time(first).await.unwrap().unwrap();
    connection.invoke(Command::request(ECHO), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_client_connects_again_after_its_server_came_back() {
    let (server, _peer, _tickets) = serve(Limits::default()).await;
    let addr = server.local_addr();
    let client = Client::new(addr.to_string(), Limits::default(), None);
    client.invoke(Command::request(ECHO), PATIENCE).await.unwrap();
    let connection = client.current().unwrap();
    server.shutdown(PATIENCE).await;
    in_time(connection.closed()).await;
    let error = client.invoke(Command::request(ECHO), PATIENCE).await.unwrap_err();
    assert!(matches!(&error, ClientError::Connect(_)) && error.to_string().contains(&addr.to_string()), "{error}");
    let (peer, _tickets) = Peer::new();
    let _back = Server::bind(addr, Limits::default(), peer).await.unwrap();
    client.invoke(Command::request(ECHO), PATIENCE).await.unwrap();
}
