//! Driving an OCI runtime: bundles, cgroups, logs, exec, stats.
