//! What must not die alone.

/// Held by threads and tasks without which the broker only seems to live: if one panics (an invariant did not hold), the whole
/// process ends at once, as a crash would end it, and its group takes over. Requests of clients aren't among them: a panic there ends
/// their connection.
pub(crate) struct Fatal(pub(crate) &'static str);

impl Drop for Fatal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(part = self.0, "an invariant did not hold; the broker stops as by a crash");
            std::process::abort();
        }
    }
}
