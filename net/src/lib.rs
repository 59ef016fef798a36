//! The Container Network Interface, pod addresses and the Service proxy.
