//! What waits to be written to one peer.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::frame::{EncodeError, Head, encode_head};
use crate::header::Fields;
use crate::payload::Body;

/// Bodies up to this size are copied behind their header: one slice more to write costs more than the copy.
const COPIED_BODY_BYTES: usize = 2048;

/// Encoded frames in order. Small ones gather in `tail`; large bodies stay slices of their own.
///
/// Invariant: `bytes` is the length of all `slices` and `tail`.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    slices: Vec<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Outbox {
    /// Encodes a frame at the end; on an error nothing has changed.
    pub(crate) fn push(
        &mut self,
        head: &Head<'_>,
        fields: &impl Fields,
        body: Body,
        max_frame_bytes: usize,
    ) -> Result<(), EncodeError> {
        let body_bytes = body.len();
        let before = self.tail.len();
        encode_head(&mut self.tail, head, fields, body_bytes, max_frame_bytes)?;
        self.bytes += self.tail.len() - before + body_bytes;
        for part in body.into_parts() {
            if part.len() <= COPIED_BODY_BYTES {
                self.tail.extend_from_slice(&part);
            } else {
                self.seal();
                self.slices.push(part);
            }
        }
        Ok(())
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes everything that waits, in order; `into` is empty before.
    pub(crate) fn take(&mut self, into: &mut SmallVec<[Bytes; 8]>) -> usize {
        self.seal();
        into.extend(self.slices.drain(..));
        std::mem::take(&mut self.bytes)
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.slices.push(self.tail.split().freeze());
        }
    }
}
