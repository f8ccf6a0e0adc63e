//! A real Kubernetes: a cluster of one node or several, the chart on it, a group, and clients in a pod.
//!
//! [`cluster::Cluster`] is started by e2e/cluster/up, or is the one that KUBECONFIG names. [`installation::Installation`] is a namespace
//! on it with everything in it; [`client`] runs the Java program of e2e/clients in a pod there.

pub mod bad_manifests;
pub mod client;
pub mod cluster;
pub mod declared;
pub mod follow;
pub mod forward;
pub mod installation;
mod life;
pub mod twins;
