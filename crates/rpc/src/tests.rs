//! Nodes in one process: real managers on disks in memory, real TLS over loopback.

mod cluster;
mod directory;
mod errands;
mod hostile;
mod joining;
mod logs;
mod rig;
mod swarmkit;
