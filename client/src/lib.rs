//! A typed client of the Kubernetes API, in process or over HTTPS.
