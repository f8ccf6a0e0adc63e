//! The task that writes a connection's outbox to its socket.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::timeout;

use crate::connection::{Connection, WriterStep};

/// Slices given to one system call.
const SLICES_PER_WRITE: usize = 64;

/// Writes until the connection is closed, or drained: then the end of this task ends this direction of the socket, and
/// the reader goes on until the peer has ended the other.
pub(crate) async fn run(connection: Arc<Connection>, socket: OwnedWriteHalf) {
    let mut batch = SmallVec::new();
    loop {
        match connection.take_outgoing(&mut batch) {
            WriterStep::Write => {}
            WriterStep::Wait => {
                connection.wait_for_outgoing().await;
                continue;
            }
            WriterStep::End => break,
        }
        tokio::select! {
            biased;
            result = write_all(&connection, &socket, &mut batch) => {
                if let Err(error) = result {
                    break connection.close(&format!("write failed: {error}"));
                }
            }
            () = connection.closed() => break,
        }
    }
}

/// Writes all slices in order and empties `batch`.
async fn write_all(
    connection: &Connection,
    socket: &OwnedWriteHalf,
    batch: &mut SmallVec<[Bytes; 8]>,
) -> io::Result<()> {
    let mut first = 0;
    while first < batch.len() {
        match try_write(socket, &batch[first..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                connection.wrote(written);
                first = advance(batch, first, written);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_writable(connection, socket).await?,
            Err(error) => return Err(error),
        }
    }
    batch.clear();
    Ok(())
}

fn try_write(socket: &OwnedWriteHalf, slices: &[Bytes]) -> io::Result<usize> {
    let slices: SmallVec<[IoSlice<'_>; SLICES_PER_WRITE]> =
        slices.iter().take(SLICES_PER_WRITE).map(|slice| IoSlice::new(slice)).collect();
    socket.try_write_vectored(&slices)
}

/// Drops `written` bytes off the front; written slices are released at once. Returns the first slice that isn't done.
fn advance(batch: &mut [Bytes], mut first: usize, mut written: usize) -> usize {
    while written > 0 && written >= batch[first].len() {
        written -= batch[first].len();
        batch[first] = Bytes::new();
        first += 1;
    }
    if written > 0 {
        batch[first].advance(written);
    }
    while first < batch.len() && batch[first].is_empty() {
        first += 1;
    }
    first
}

async fn wait_writable(connection: &Connection, socket: &OwnedWriteHalf) -> io::Result<()> {
    let patience = connection.limits().write_stall_timeout;
    timeout(patience, socket.writable()).await.unwrap_or_else(|_elapsed| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("the peer has read nothing for {patience:?}")))
    })
}
