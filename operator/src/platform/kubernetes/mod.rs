//! Kubernetes: the group record in a `BrokerGroup`'s status, pods and what belongs to them, one leading operator.
//!
//! - [`lease`]: which of the operators leads. Every write asks it first.
//! - [`record_status`]: the group record, by compare-and-set.
//! - [`board`]: what the elector says becomes the slice behind the master's Service, and Events.
//! - [`apply`]: server-side apply of what is planned.
//! - [`claims`]: the volumes.
//! - [`orders`]: the switchover that an annotation asks for.
//! - [`evidence`]: what kubelets say of ended containers.
//! - [`nodes`]: which nodes are about to be drained.
//! - [`places`]: zones and addresses of nodes.
//! - [`reconcile`]: read, plan, apply, one step, status.
//! - [`watched`]: a reconcile with an end, seen by metrics.
//! - [`guard`]: objects that can't be read say so, and hold up no other.
//! - [`name_servers`]: the same for name servers.
//! - [`declared`]: topics and consumer groups, at the masters of broker groups.
//! - [`run`]: all of it, for as long as this operator leads.
//!
//! What it asks of the API, for whoever grants it, is in charts/gantry/templates/rbac.yaml, with a reason each; without `nodes` it
//! does, where it may not.

mod api;
mod apply;
mod board;
mod claims;
mod declared;
mod evidence;
#[cfg(test)]
mod fault_tests;
mod guard;
mod http;
mod lease;
#[cfg(test)]
mod mock;
mod name_servers;
mod nodes;
mod orders;
mod places;
mod reconcile;
mod record_status;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod rig;
pub mod run;
mod slices;
mod status;
mod unreadable;
mod watched;
