//! The derive macro of kubewright-core's Resource trait.
