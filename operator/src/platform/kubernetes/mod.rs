//! Kubernetes: the group record in a `BrokerGroup`'s status, pods and what belongs to them, one leading operator.
//!
//! - [`lease`]: which of the operators leads. Every write asks it first.
//! - [`record_status`]: the group record, by compare-and-set.
//! - [`board`]: what the elector says becomes the slice behind the master's Service, and Events.
//! - [`claims`]: the volumes.
//! - [`orders`]: the switchover that an annotation asks for.
//! - [`evidence`]: what kubelets say of ended containers.
//! - [`nodes`]: which nodes are about to be drained.
//! - [`places`]: zones and addresses of nodes.
//! - [`reconcile`]: read, plan, apply, one step, status.
//! - [`watched`]: a reconcile with an end, seen by metrics.
//! - [`run`]: all of it, for as long as this operator leads.
//!
//! What it asks of the API, for whoever grants it: `brokergroups` get, list, watch, patch; `brokergroups/status` patch; `pods` list, watch,
//! create, delete; `persistentvolumeclaims` list, watch, create, patch, delete; `services`, `configmaps`, `poddisruptionbudgets`,
//! `networkpolicies` create, patch; `services` get, list, watch; `secrets` get, create; `endpointslices` get, list, watch, create, update;
//! `events.k8s.io/events` create, patch; `nodes` get, list, watch (it does without, where it may not); in its own namespace `leases` and
//! `endpointslices` get, create, update.

mod api;
mod board;
mod claims;
mod evidence;
#[cfg(test)]
mod fault_tests;
mod http;
mod lease;
#[cfg(test)]
mod mock;
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
