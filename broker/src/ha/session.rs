//! What both ends of an HA connection do alike: frames in with a deadline, frames out vectored.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Buf;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::frame::{Frame, FrameError};
use super::tls::Handshake;

/// A peer that may not be served: it is another group's, a copy, or says what can't be.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// A peer that took nothing of what was written to it.
#[derive(Debug, Error)]
#[error("the peer took nothing for {0:?}")]
pub(super) struct SendTimeout(Duration);

/// Writes a frame; a peer that doesn't take it within `patience` is given up.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &Frame, patience: Duration) -> Result<()> {
    let (head, tail) = frame.encode()?;
    let mut both = head.freeze().chain(tail);
    // TLS holds back what it could not send at once: without the flush a frame's end would wait there for the next frame.
    let whole = async {
        to.write_all_buf(&mut both).await?;
        to.flush().await
    };
    match timeout(patience, whole).await {
        Ok(written) => written.context("writing failed"),
        Err(_elapsed) => Err(SendTimeout(patience).into()),
    }
}

/// Reads a frame of at most `max_bytes`; a peer that says nothing for `patience` is given up.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin), max_bytes: u32, patience: Duration) -> Result<Frame> {
    match timeout(patience, Frame::read(from, max_bytes)).await {
        Ok(frame) => Ok(frame?),
        Err(_elapsed) => anyhow::bail!("the peer said nothing for {patience:?}"),
    }
}

/// Whether an error is the peer's doing, and not that of the network or of a change of roles.
pub(super) fn is_peers_fault(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Refused>()
            || cause.is::<Handshake>()
            || cause.downcast_ref::<FrameError>().is_some_and(|error| !matches!(error, FrameError::Io(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::frame::Fenced;
    use super::*;
    use tokio::io::{AsyncReadExt, BufWriter};

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_frame_reaches_the_peer_although_the_stream_holds_back_what_is_written() {
        let (mut here, there) = tokio::io::duplex(1 << 10);
        // As TLS does; it is not dropped before the frame was read, for that would lose what it holds.
        let mut holding = BufWriter::with_capacity(1 << 10, there);
        let fenced = Frame::Fenced(Fenced { reason: "no longer master".to_owned() });
        write(&mut holding, &fenced, PATIENCE).await.unwrap();
        let mut first = [0];
        let arrived = timeout(PATIENCE, here.read_exact(&mut first)).await;
        assert!(arrived.is_ok_and(|read| read.is_ok()), "nothing of the frame has left the stream");
    }
}
