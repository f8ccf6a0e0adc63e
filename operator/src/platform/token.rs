//! Secrets by which the replicas of a group and its elector know each other.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};

/// Bytes of a token; its text is twice as long.
pub(super) const TOKEN_BYTES: usize = 32;

/// A new one, in hexadecimal digits.
pub(super) fn random() -> io::Result<String> {
    let mut random = [0; TOKEN_BYTES];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random))?;
    let mut token = String::with_capacity(2 * TOKEN_BYTES);
    for byte in random {
        // Writing to a String can't fail.
        write!(token, "{byte:02x}").ok();
    }
    Ok(token)
}
