//! Kubewright: an SDK for building container orchestrators.
