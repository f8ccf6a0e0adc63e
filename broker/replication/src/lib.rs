//! Replication and election as pure state machines. Knows no socket, no disk, no Kubernetes.
