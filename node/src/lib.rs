//! The node agent: what the kubelet does.
