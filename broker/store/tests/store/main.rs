//! The store from outside: what a broker, a replica, a crash and a failing disk see.

#[cfg(test)]
mod basics;
#[cfg(test)]
mod batches;
#[cfg(test)]
mod cold_reads;
#[cfg(test)]
mod common;
#[cfg(test)]
mod crash_fs;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod every_call;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod from_outside;
#[cfg(test)]
mod hook_fs;
#[cfg(test)]
mod index;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod retention;
