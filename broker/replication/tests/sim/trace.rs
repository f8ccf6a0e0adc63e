//! What happened, as one number for comparing runs, and as lines for people.

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    /// Lines are kept only when somebody wants to read them.
    pub(crate) lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(tell: bool) -> Self {
        Self { hash: 0, lines: tell.then(Vec::new) }
    }

    /// Mixes numbers into the hash (FNV-1a over words).
    pub(crate) fn mix(&mut self, words: &[u64]) {
        for word in words {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    pub(crate) fn line(&mut self, now: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{now:>7} {}", line()));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
