//! API objects and the seams between Kubewright's crates, with no I/O.
