//! Running the expressions of a policy: within a budget, and again where the authorizer had to be asked first.

use super::AuthorizerSlot;
use super::input::Input;
use crate::auth::{Attributes, Authorizer, Decision};
use kubewright_core::UserInfo;
use kubewright_core::cel::admission::{Expression, POLICY_BUDGET, PolicyCode};
use kubewright_core::cel::{self, Answer, Check, Evaluation, FaultKind, Program, Val};
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// An evaluation is repeated at most so often for checks that it asks for; upstream's price of a check allows fewer.
const ROUNDS_MAX: usize = 64;

/// What the authorizer said about the checks of one request so far.
#[derive(Default)]
pub(crate) struct Asked(FxHashMap<Check, Answer>);

impl cel::Authorizer for Asked {
    fn answer(&self, check: &Check) -> Option<Answer> {
        self.0.get(check).cloned()
    }
}

/// Why a policy gives nothing.
#[derive(Debug)]
pub(super) enum Stop {
    /// An expression failed; the evaluation may go on with others.
    Error(String),
    /// Nothing more may be spent.
    Budget,
    /// The authorizer has to be asked first.
    Pending(Box<Check>),
}

impl Stop {
    pub(super) fn text(&self) -> String {
        match self {
            Stop::Error(text) => text.clone(),
            Stop::Budget => {
                "validation failed due to running out of cost budget, no further validation rules will be run"
                    .to_owned()
            }
            Stop::Pending(_) => "the authorizer was not asked".to_owned(),
        }
    }
}

/// One pass over the expressions of a policy.
pub(super) struct Pass<'v> {
    pub(super) run: Evaluation<'v>,
    pub(super) budget: u64,
}

impl<'v> Pass<'v> {
    pub(super) fn new(
        code: &'v PolicyCode,
        input: &'v Input<'_>,
        params: Option<&'v Value>,
        asked: &'v Asked,
    ) -> Self {
        let mut run = input.evaluation(params);
        run.compose(&code.variables);
        run.ask(asked);
        Pass { run, budget: POLICY_BUDGET }
    }

    /// Runs an expression.
    pub(super) fn eval(&mut self, expression: &'v Expression) -> Result<Val<'v>, Stop> {
        self.program(&expression.program).map_err(|stop| match stop {
            Stop::Error(why) => {
                Stop::Error(format!("expression '{}' resulted in error: {why}", expression.text))
            }
            other => other,
        })
    }

    fn program(&mut self, program: &'v Program) -> Result<Val<'v>, Stop> {
        let result = self.run.run(program);
        let spent = self.run.cost();
        if spent > self.budget {
            return Err(Stop::Budget);
        }
        self.budget -= spent;
        result.map_err(|fault| match fault.kind() {
            FaultKind::Pending(check) => Stop::Pending(check.clone()),
            _ => Stop::Error(fault.to_string()),
        })
    }

    /// Whether the match conditions hold. One that does not is enough, whatever errors others meet.
    pub(super) fn conditions(&mut self, code: &'v PolicyCode) -> Result<bool, Stop> {
        let mut failed = Vec::new();
        for (_, condition) in &code.conditions {
            match self.eval(condition) {
                Ok(Val::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(Stop::Error(why)) => failed.push(why),
                Err(stop) => return Err(stop),
            }
        }
        match failed.as_slice() {
            [] => Ok(true),
            [one] => Err(Stop::Error(one.clone())),
            many => Err(Stop::Error(format!("[{}]", many.join(", ")))),
        }
    }
}

/// Runs a pass, and again with each answer of the authorizer that it lacked.
pub(super) async fn with_answers<T>(
    asked: &mut Asked,
    authorizer: &AuthorizerSlot,
    user: &UserInfo,
    pass: impl Fn(&Asked) -> Result<T, Stop>,
) -> Result<T, Stop> {
    for _ in 0..ROUNDS_MAX {
        match pass(asked) {
            Err(Stop::Pending(check)) => {
                let answer = ask(authorizer.load_full(), user, &check).await;
                asked.0.insert(*check, answer);
            }
            done => return done,
        }
    }
    Err(Stop::Error("too many authorization checks".to_owned()))
}

async fn ask(authorizer: Option<Arc<Arc<dyn Authorizer>>>, user: &UserInfo, check: &Check) -> Answer {
    let Some(authorizer) = authorizer else {
        return Answer { allowed: true, ..Answer::default() };
    };
    let user = match &check.service_account {
        Some((namespace, name)) => Cow::Owned(service_account(namespace, name)),
        None => Cow::Borrowed(user),
    };
    let attributes = if check.is_path() {
        Attributes { user, verb: &check.verb, path: Some(&check.path), ..Attributes::default() }
    } else {
        Attributes {
            user,
            verb: &check.verb,
            group: &check.group,
            version: "*",
            resource: &check.resource,
            subresource: &check.subresource,
            namespace: &check.namespace,
            name: &check.name,
            field_selector: Some(check.field_selector.as_str()).filter(|s| !s.is_empty()),
            path: None,
        }
    };
    match authorizer.authorize(&attributes).await {
        Decision::Allow => Answer { allowed: true, ..Answer::default() },
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Answer { reason, ..Answer::default() },
    }
}

fn service_account(namespace: &str, name: &str) -> UserInfo {
    UserInfo {
        username: Some(format!("system:serviceaccount:{namespace}:{name}")),
        groups: Some(vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ]),
        ..UserInfo::default()
    }
}
