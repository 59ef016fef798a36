//! What gRPC's codes mean for the port.

use crate::{Error, Reason};
use tonic::{Code, Status};

fn words(status: &Status) -> String {
    if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        status.message().to_owned()
    }
}

/// The reason of a failed call; `other` for what the runtime calls merely an error.
fn reason(status: &Status, other: Reason) -> Reason {
    match status.code() {
        Code::NotFound => Reason::NotFound,
        Code::AlreadyExists => Reason::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => Reason::Invalid,
        Code::FailedPrecondition => Reason::FailedPrecondition,
        Code::DeadlineExceeded => Reason::Timeout,
        Code::Unavailable | Code::Cancelled | Code::ResourceExhausted | Code::Aborted => Reason::TryAgain,
        Code::Unimplemented => Reason::Unsupported,
        _ => other,
    }
}

/// The error of a failed call.
pub(super) fn told(status: Status) -> Error {
    told_as(Reason::Failed)(status)
}

/// The error of a failed call, whose unspecific failures have this reason.
pub(super) fn told_as(other: Reason) -> impl Fn(Status) -> Error {
    move |status| Error::new(reason(&status, other), words(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_reasons() {
        let check = |code: Code, want: Reason| {
            assert_eq!(told_as(Reason::StartFailed)(Status::new(code, "x")).reason(), want, "{code:?}");
        };
        check(Code::NotFound, Reason::NotFound);
        check(Code::Unknown, Reason::StartFailed);
        check(Code::Internal, Reason::StartFailed);
        check(Code::DeadlineExceeded, Reason::Timeout);
        check(Code::Unavailable, Reason::TryAgain);
        check(Code::Unimplemented, Reason::Unsupported);
        assert!(!told(Status::new(Code::Unknown, "")).to_string().is_empty());
    }
}
