//! What is counted of authentication and authorization, under upstream's names.

use super::authorizer::Decision;
use crate::counts::Histogram;
use crate::meter::head;
use crate::ports::MetricSource;
use kubewright_core::{ApiError, UserInfo};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How decisions fall out.
const DECISIONS: [&str; 3] = ["allowed", "denied", "no-opinion"];

/// Decisions on requests, and how long they took.
#[derive(Debug, Default)]
pub(crate) struct AuthorizationCounts([Histogram; DECISIONS.len()]);

impl AuthorizationCounts {
    pub(crate) fn count(&self, decision: &Decision, took: Duration) {
        let at = match decision {
            Decision::Allow => 0,
            Decision::Deny(_) => 1,
            Decision::NoOpinion(_) => 2,
        };
        self.0[at].observe(took);
    }
}

impl MetricSource for AuthorizationCounts {
    fn write(&self, out: &mut String) {
        let (total, seconds) = ("authorization_attempts_total", "authorization_duration_seconds");
        head(out, "counter", total, "Authorization attempts, by result.");
        for (result, of) in DECISIONS.iter().zip(&self.0).filter(|(_, of)| of.count() > 0) {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{total}{{result=\"{result}\"}} {}", of.count());
        }
        head(out, "histogram", seconds, "How long authorization took, by result.");
        for (result, of) in DECISIONS.iter().zip(&self.0) {
            of.write(out, seconds, &format!("result=\"{result}\","));
        }
    }
}

/// How attempts fall out.
const ATTEMPTS: [&str; 3] = ["success", "failure", "error"];
/// Users that upstream tells apart; all others are told as one of the last two.
const USERS: [&str; 7] = [
    "admin",
    "client",
    "kube_proxy",
    "kubelet",
    "system:serviceaccount:kube-system:default",
    "email_id",
    "other",
];

/// Who was let in, and how long it took to know.
#[derive(Debug, Default)]
pub(crate) struct AuthenticationCounts {
    attempts: [Histogram; ATTEMPTS.len()],
    users: [AtomicU64; USERS.len()],
}

impl AuthenticationCounts {
    /// Counts an attempt: a user, nobody, or an error.
    pub(crate) fn count(&self, found: &Result<Option<Arc<UserInfo>>, ApiError>, took: Duration) {
        let at = match found {
            Ok(Some(user)) => {
                let name = user.username.as_deref().unwrap_or("");
                let known = USERS[..5].iter().position(|u| *u == name);
                let user = known.unwrap_or(if name.contains('@') { 5 } else { 6 });
                self.users[user].fetch_add(1, Ordering::Relaxed);
                0
            }
            Ok(None) => 1,
            Err(e) if e.code() == 401 => 1,
            Err(_) => 2,
        };
        self.attempts[at].observe(took);
    }
}

impl MetricSource for AuthenticationCounts {
    fn write(&self, out: &mut String) {
        let users = "authenticated_user_requests";
        head(out, "counter", users, "Authenticated requests, by user.");
        for (user, count) in USERS.iter().zip(&self.users) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "{users}{{username=\"{user}\"}} {count}");
            }
        }
        let (total, seconds) = ("authentication_attempts", "authentication_duration_seconds");
        head(out, "counter", total, "Authentication attempts, by result.");
        for (result, of) in ATTEMPTS.iter().zip(&self.attempts).filter(|(_, of)| of.count() > 0) {
            let _ = writeln!(out, "{total}{{result=\"{result}\"}} {}", of.count());
        }
        head(out, "histogram", seconds, "How long authentication took, by result.");
        for (result, of) in ATTEMPTS.iter().zip(&self.attempts) {
            of.write(out, seconds, &format!("result=\"{result}\","));
        }
    }
}
