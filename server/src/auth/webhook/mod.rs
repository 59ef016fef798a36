//! Decisions made elsewhere: whose a token is, and who may do what, asked of webhooks by TokenReview and SubjectAccessReview.

mod access;
mod endpoint;
mod memory;
mod token;

pub use access::{WebhookAuthorizer, WebhookFailure};
pub use endpoint::{WebhookEndpoint, WebhookEndpointError};
pub use token::WebhookTokens;
