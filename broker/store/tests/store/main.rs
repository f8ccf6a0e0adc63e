//! The store from outside: what a broker, a replica, a crash and a failing disk see.

mod basics;
mod common;
mod crash_fs;
mod faults;
mod recovery;
mod replicas;
