//! The Container Runtime Interface: its port, a gRPC client, an embedded runtime and a fake.
