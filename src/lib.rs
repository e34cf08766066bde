//! sexton: a container's init. It forwards every signal, reaps every orphan, stops what is left, says why it ended.
//!
//! # The way of a start
//!
//! [`init::start`] is the whole of it: block all signals, read the words ([`cli`]), resolve them ([`plan`]), do the
//! setup ([`setup`]), start the command ([`spawn`]), stay until it and all it left have ended ([`supervise`]), and turn
//! its status into ours ([`exit`]).
//!
//! # The rooms
//!
//! | room | what it is for |
//! |---|---|
//! | [`signal`] | a signal's number and names |
//! | [`cli`] | words to options: one table row an option; [`cli::personality`]: the names sexton answers to |
//! | [`plan`] | options to a plan: nothing done yet |
//! | [`setup`] | what the command is given: [`setup::Stage`] has the order of all steps, each room below it its own: namespaces, idmap, mount, cgroup, network, credentials, capability, environment, limits, seccomp |
//! | [`spawn`] | the command's start: prepared first, then clone and exec without an allocation between |
//! | [`supervise`] | the one loop; in it [`supervise::signals`], [`supervise::reap`], [`supervise::stop`] and [`supervise::terminal`] decide, without I/O |
//! | [`everyone`] | signals to all that is left |
//! | [`foreground`] | the terminal's foreground, handed over and taken back |
//! | [`exit`] | what an end means; [`exit::refusal`]: why a command could not be executed |
//! | [`procfs`] | what /proc tells |
//! | [`cgroupfs`] | which cgroups there are |
//! | [`log`] | lines on stderr that never block and never kill |
//! | [`sys`] | the only unsafe code: one system call a wrapper |
//! | `lab` | sexton-lab, for those who test containers, not in sexton: `subject`, `check`, `audit`, `bench`, `deny` |
#![deny(unsafe_code)]

pub mod cgroupfs;
pub mod cli;
pub mod everyone;
pub mod exit;
pub mod foreground;
pub mod init;
#[cfg(feature = "lab")]
pub mod lab;
pub mod log;
pub mod plan;
pub mod procfs;
pub mod setup;
pub mod signal;
pub mod spawn;
pub mod supervise;
#[allow(unsafe_code)]
pub mod sys;
