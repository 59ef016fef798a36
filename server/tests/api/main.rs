//! Black-box tests of the API server: requests in, answers out, over a store in memory, or the one that `KUBEWRIGHT_TEST_STORE` names
//! (`memory`, `redb`, `sled`, `etcd`).

mod apply;
mod cluster;
mod common;
mod conformance;
mod crud;
mod kinds;
mod kube;
mod kubectl;
mod list;
mod nodes;
mod openapi;
mod optional;
mod paths;
mod plugins;
mod policies;
mod quota;
mod reference;
mod rules;
mod services;
mod stores;
mod watch;
