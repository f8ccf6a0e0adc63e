//! Tags as the consume queue knows them.

/// A tag's code in the consume queue: Java's `String.hashCode()`, which counts UTF-16 code units, widened with its
/// sign. An empty tag is 0.
///
/// ```
/// assert_eq!(gantry_store::tags::tags_code("TagA"), 2_598_919);
/// ```
pub fn tags_code(tag: &str) -> i64 {
    i64::from(java_hash(tag))
}

/// Java's `String.hashCode()`.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        // From jshell: "…".hashCode().
        assert_eq!(tags_code(""), 0);
        assert_eq!(tags_code("TagA"), 2_598_919);
        assert_eq!(tags_code("polygenelubricants"), i64::from(i32::MIN));
        assert_eq!(tags_code("标签"), 857_175);
    }

    #[test]
    fn characters_beyond_the_basic_plane_count_as_their_two_surrogates() {
        // U+1F600 is D83D DE00: 0xD83D * 31 + 0xDE00.
        assert_eq!(tags_code("\u{1F600}"), 0xD83D * 31 + 0xDE00);
        assert_eq!(tags_code("a\u{1F600}"), (97 * 31 + 0xD83D) * 31 + 0xDE00);
    }
}
