//! What etcd's and gRPC's errors mean for the port.

use crate::{Error, Reason};
use tonic::{Code, Status};

/// Where a call goes after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The answer stands, whichever member is asked.
    Stop,
    /// Another member may answer; the request was surely not carried out.
    NotDone,
    /// Another member may answer; the request may have been carried out.
    MaybeDone,
    /// A new token is needed; the request was not carried out.
    LogIn,
}

/// Phrases of etcd's messages, with what they mean. The first that fits counts.
const PHRASES: &[(&str, Reason, Next)] = &[
    ("has been compacted", Reason::Compacted, Next::Stop),
    ("is a future revision", Reason::FutureRevision, Next::Stop),
    ("duplicate key", Reason::Invalid, Next::Stop),
    ("key is not provided", Reason::Invalid, Next::Stop),
    ("too many operations", Reason::TooLarge, Next::Stop),
    ("request is too large", Reason::TooLarge, Next::Stop),
    ("larger than max", Reason::TooLarge, Next::Stop),
    ("database space exceeded", Reason::NoSpace, Next::Stop),
    ("invalid auth token", Reason::Unavailable, Next::LogIn),
    ("auth: revision in header is old", Reason::Unavailable, Next::LogIn),
    ("user name is empty", Reason::Failed, Next::Stop),
    ("no leader", Reason::Unavailable, Next::NotDone),
    ("too many requests", Reason::Unavailable, Next::NotDone),
    ("not capable", Reason::Unavailable, Next::NotDone),
    ("rpc not supported for learner", Reason::Unavailable, Next::NotDone),
    ("corrupt cluster", Reason::Corrupt, Next::Stop),
];

/// What a failed call means, and what to do next.
pub(super) fn judge(status: &Status) -> (Reason, Next) {
    let message = status.message();
    if let Some((_, reason, next)) = PHRASES.iter().find(|(phrase, ..)| message.contains(phrase)) {
        return (*reason, *next);
    }
    if never_sent(status) {
        return (Reason::Unavailable, Next::NotDone);
    }
    match status.code() {
        Code::DeadlineExceeded => (Reason::Timeout, Next::MaybeDone),
        Code::Unauthenticated => (Reason::Failed, Next::LogIn),
        Code::InvalidArgument => (Reason::Invalid, Next::Stop),
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::Aborted => {
            (Reason::Unavailable, Next::MaybeDone)
        }
        Code::DataLoss => (Reason::Corrupt, Next::Stop),
        Code::Unimplemented => (Reason::Unsupported, Next::Stop),
        _ => (Reason::Failed, Next::Stop),
    }
}

/// Whether the connection could not be made, so that nothing was sent.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The port's error for a call that failed at a member.
pub(super) fn told(url: &str, status: Status) -> Error {
    let (reason, _) = judge(&status);
    let words = if status.message().is_empty() { status.code().description() } else { status.message() };
    let mut words = format!("etcd at {url}: {words}");
    // What lies at the bottom (a refused connection, a bad certificate) says more than what tonic makes of it.
    let mut cause = std::error::Error::source(&status);
    while let Some(next) = cause.and_then(std::error::Error::source) {
        cause = Some(next);
    }
    if let Some(bottom) = cause.map(ToString::to_string).filter(|bottom| !words.contains(bottom.as_str())) {
        words = format!("{words}: {bottom}");
    }
    Error::new(reason, words).with_source(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: Code, message: &str, reason: Reason, next: Next) {
        assert_eq!(judge(&Status::new(code, message)), (reason, next), "{message}");
    }

    #[test]
    fn errors_say_what_to_do_next() {
        use Reason::*;
        check(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
            Compacted,
            Next::Stop,
        );
        check(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
            FutureRevision,
            Next::Stop,
        );
        check(Code::InvalidArgument, "etcdserver: request is too large", TooLarge, Next::Stop);
        check(
            Code::ResourceExhausted,
            "grpc: received message larger than max (9 vs. 5)",
            TooLarge,
            Next::Stop,
        );
        check(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", NoSpace, Next::Stop);
        check(Code::Unavailable, "etcdserver: no leader", Unavailable, Next::NotDone);
        check(Code::Unavailable, "etcdserver: leader changed", Unavailable, Next::MaybeDone);
        check(Code::Unavailable, "etcdserver: request timed out", Unavailable, Next::MaybeDone);
        check(Code::Unauthenticated, "etcdserver: invalid auth token", Unavailable, Next::LogIn);
        check(Code::PermissionDenied, "etcdserver: permission denied", Failed, Next::Stop);
        check(Code::Unavailable, "connection reset", Unavailable, Next::MaybeDone);
    }
}
