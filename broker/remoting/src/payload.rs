//! The bytes after a frame's header.

use bytes::{Bytes, BytesMut};
use smallvec::{SmallVec, smallvec};

/// A frame's body: one or several slices, written one after the other without being copied together, so that a pull's
/// answer leaves as the log's pages.
#[derive(Debug, Clone, Default)]
pub struct Body {
    parts: SmallVec<[Bytes; 1]>,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Length of all parts in bytes.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Whether there is not one byte.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }

    /// The parts in order.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// The whole as one slice: free for a body of one part (every received one), a copy otherwise.
    pub fn to_bytes(&self) -> Bytes {
        match self.parts.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            parts => {
                let mut joined = BytesMut::with_capacity(self.len());
                for part in parts {
                    joined.extend_from_slice(part);
                }
                joined.freeze()
            }
        }
    }

    pub(crate) fn into_parts(self) -> SmallVec<[Bytes; 1]> {
        self.parts
    }
}

/// Two bodies are equal when their bytes are, however they are cut into parts.
impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Body {}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Self { parts: smallvec![bytes] } }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(parts: Vec<Bytes>) -> Self {
        Self { parts: parts.into() }
    }
}

impl From<SmallVec<[Bytes; 1]>> for Body {
    fn from(parts: SmallVec<[Bytes; 1]>) -> Self {
        Self { parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_its_bytes_however_it_is_cut() {
        let whole = Body::from(Bytes::from_static(b"abcdef"));
        let cut = Body::from(vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"def")]);
        assert_eq!(whole, cut);
        assert_eq!(cut.len(), 6);
        assert_eq!(cut.to_bytes(), Bytes::from_static(b"abcdef"));
        assert_ne!(whole, Body::from(Bytes::from_static(b"abcdeg")));
        assert!(Body::from(Bytes::new()).is_empty() && Body::from(vec![Bytes::new()]).is_empty());
    }
}
