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
    match timeout(patience, to.write_all_buf(&mut both)).await {
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
