//! What both ends of an HA connection do alike: frames in with a deadline, frames out vectored.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::frame::Frame;

/// Writes a frame; a peer that doesn't take it within `patience` is given up.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &Frame, patience: Duration) -> Result<()> {
    let (head, tail) = frame.encode()?;
    let mut both = head.freeze().chain(tail);
    match timeout(patience, to.write_all_buf(&mut both)).await {
        Ok(written) => written.context("writing failed"),
        Err(_elapsed) => bail!("the peer took nothing for {patience:?}"),
    }
}

/// Reads a frame; a peer that says nothing for `patience` is given up.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin), patience: Duration) -> Result<Frame> {
    match timeout(patience, Frame::read(from)).await {
        Ok(frame) => Ok(frame?),
        Err(_elapsed) => bail!("the peer said nothing for {patience:?}"),
    }
}
