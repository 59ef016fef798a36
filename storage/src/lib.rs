//! Volumes and the Container Storage Interface.
