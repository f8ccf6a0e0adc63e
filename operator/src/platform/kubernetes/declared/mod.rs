//! Topics and consumer groups: what is declared once is carried out at the master of every broker group of a cluster.
//!
//! - [`kinds`]: what the two are, and how each is asked for.
//! - [`groups`]: which broker groups there are, and where their masters.
//! - [`masters`]: what a master has, read once for all who want to know; and what it is asked to do.
//! - [`reconcile`]: one object, once.
//! - [`keep`]: all objects, for as long as this operator leads.

mod groups;
mod keep;
mod kinds;
mod masters;
mod reconcile;
#[cfg(test)]
mod tests;

pub(super) use keep::keep;
