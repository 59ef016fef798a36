//! Informers, work queues and the Reconciler trait.
