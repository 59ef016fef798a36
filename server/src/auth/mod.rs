//! Who asks and what they may do.
//!
//! Authentication belongs to the HTTP codec (a caller in the same process has its user set); authorization is a layer around
//! the API service, so that every caller passes it.

mod access;
mod authenticator;
mod authorizer;
mod bearer_tokens;
mod bootstrap_tokens;
mod counts;
mod front_proxy;
mod impersonate;
mod layer;
pub(crate) mod node;
mod objects;
mod oidc;
mod rbac;
mod reviews;
mod tokens;
mod webhook;

pub use access::Access;
pub(crate) use authenticator::add_authenticated;
pub use authenticator::{Authenticator, StaticTokens, anonymous, authenticated};
pub use authorizer::{AlwaysAllow, Attributes, Authorizer, Decision, RuleList};
pub use bearer_tokens::{BearerTokens, TokenAuthenticator};
pub use bootstrap_tokens::BootstrapTokens;
pub(crate) use counts::AuthenticationCounts;
pub use front_proxy::{FrontProxy, FrontProxyName};
pub use impersonate::Impersonation;
pub use layer::{AuthorizationLayer, Authorized};
pub use node::NodeAuthorizer;
pub use objects::ObjectReader;
pub use oidc::{AuthenticationConfiguration, ConfigurationError, Oidc, OidcIssuer};
pub use rbac::{Escalation, RbacAuthorizer, Union, ensure_bootstrap_policy, keep_aggregated};
pub use reviews::{Review, ReviewKind};
pub use tokens::{DEFAULT_ISSUER, ServiceAccountTokens, SigningKey, TokenBinding, VerifyingKey};
pub use webhook::{WebhookAuthorizer, WebhookEndpoint, WebhookEndpointError, WebhookFailure, WebhookTokens};
