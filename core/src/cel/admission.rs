//! Expressions about writes: what admission policies and the match conditions of webhooks may refer to, and their compiled form.

use super::env::Env;
use super::program::Program;
use super::types::{Decl, Field, Object, Type};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// The slot of `object`.
pub const OBJECT: usize = 0;
/// The slot of `oldObject`.
pub const OLD_OBJECT: usize = 1;
/// The slot of `request`.
pub const REQUEST: usize = 2;
/// The slot of `namespaceObject`.
pub const NAMESPACE_OBJECT: usize = 3;
/// The slot of `params`.
pub const PARAMS: usize = 4;
/// The slot of `authorizer`.
pub const AUTHORIZER: usize = 5;
/// The slot of `authorizer.requestResource`.
pub const REQUEST_RESOURCE: usize = 6;

/// What all the expressions of one policy may cost on one write.
pub const POLICY_BUDGET: u64 = 10_000_000;
/// The longest message that an expression may give, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// Which variables there are beside those about the write itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmissionScope {
    /// `params`.
    pub params: bool,
    /// `authorizer`.
    pub authorizer: bool,
    /// `Object{}` and `JSONPatch{}`.
    pub messages: bool,
    /// `namespaceObject`, which webhooks' conditions lack.
    pub namespace: bool,
}

/// The variables of admission, each at its slot; what is not in scope has no name there.
pub fn admission_env(scope: AdmissionScope) -> Env {
    static SHARED: OnceLock<(Arc<Decl>, Arc<Decl>)> = OnceLock::new();
    let (request, namespace) = SHARED.get_or_init(|| (Arc::new(request()), Arc::new(namespace())));
    let opaque = |name: &'static str| Decl::of(Type::Opaque(name));
    let named = |there: bool, name: &'static str| if there { name } else { "" };
    let env = Env::new()
        .with("object", Decl::of(Type::Dyn))
        .with("oldObject", Decl::of(Type::Dyn))
        .with_shared("request", request.clone())
        .with_shared(named(scope.namespace, "namespaceObject"), namespace.clone())
        .with(named(scope.params, "params"), Decl::of(Type::Dyn))
        .with(named(scope.authorizer, "authorizer"), opaque("kubernetes.authorization.Authorizer"))
        .with(
            named(scope.authorizer, "authorizer.requestResource"),
            opaque("kubernetes.authorization.ResourceCheck"),
        );
    if scope.messages { env.with_messages() } else { env }
}

/// The declaration of `request`.
pub fn request_decl() -> &'static Decl {
    static DECL: OnceLock<Decl> = OnceLock::new();
    DECL.get_or_init(request)
}

/// The declaration of `namespaceObject`.
pub fn namespace_decl() -> &'static Decl {
    static DECL: OnceLock<Decl> = OnceLock::new();
    DECL.get_or_init(namespace)
}

fn object(name: &str, fields: Vec<(&str, Type)>) -> Type {
    let fields = fields.into_iter().map(|(name, ty)| {
        // A name that is a word of the language has another in expressions.
        let escaped = super::types::escape(name).unwrap_or_else(|| name.to_owned());
        (escaped.into(), Field { property: name.into(), decl: Arc::new(Decl::of(ty)) })
    });
    Type::Object(Arc::new(Object { name: name.to_owned(), fields: fields.collect() }))
}

fn request() -> Decl {
    let texts = |names: &[&'static str]| names.iter().map(|n| (*n, Type::Text)).collect::<Vec<_>>();
    let kind = || object("kubernetes.GroupVersionKind", texts(&["group", "version", "kind"]));
    let resource = || object("kubernetes.GroupVersionResource", texts(&["group", "version", "resource"]));
    let user = object(
        "kubernetes.UserInfo",
        vec![
            ("username", Type::Text),
            ("uid", Type::Text),
            ("groups", Type::list(Type::Text)),
            ("extra", Type::map(Type::Text, Type::list(Type::Text))),
        ],
    );
    let mut fields = vec![
        ("kind", kind()),
        ("resource", resource()),
        ("subResource", Type::Text),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("requestSubResource", Type::Text),
        ("name", Type::Text),
        ("operation", Type::Text),
        ("userInfo", user),
        ("dryRun", Type::Bool),
        ("options", Type::Dyn),
    ];
    fields.push(("namespace", Type::Text));
    let mut ty = object("kubernetes.AdmissionRequest", fields);
    // Upstream knows this field under its own name, though that is a word of the language.
    if let Type::Object(object) = &mut ty
        && let Some(object) = Arc::get_mut(object)
        && let Some(field) = object.fields.get("__namespace__").cloned()
    {
        object.fields.insert("namespace".into(), field);
    }
    Decl::of(ty)
}

fn namespace() -> Decl {
    let labels = || Type::map(Type::Text, Type::Text);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        vec![
            ("name", Type::Text),
            ("generateName", Type::Text),
            ("labels", labels()),
            ("annotations", labels()),
            ("uid", Type::Text),
            ("resourceVersion", Type::Text),
            ("generation", Type::Int),
            ("creationTimestamp", Type::Timestamp),
            ("deletionTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("finalizers", Type::list(Type::Text)),
        ],
    );
    let spec = object("kubernetes.NamespaceSpec", vec![("finalizers", Type::list(Type::Text))]);
    let status = object("kubernetes.NamespaceStatus", vec![("phase", Type::Text)]);
    Decl::of(object("kubernetes.Namespace", vec![("metadata", metadata), ("spec", spec), ("status", status)]))
}

/// A compiled expression with its text.
#[derive(Debug)]
pub struct Expression {
    /// The text, trimmed.
    pub text: String,
    /// The code.
    pub program: Program,
}

/// What a policy or a webhook's conditions say, compiled.
#[derive(Debug, Default)]
pub struct PolicyCode {
    /// `matchConditions`, each with its name.
    pub conditions: Vec<(String, Expression)>,
    /// The expressions behind `variables`, in order.
    pub variables: Vec<Program>,
    /// `validations`.
    pub validations: Vec<ValidationCode>,
    /// `auditAnnotations`, each with its key.
    pub annotations: Vec<(String, Expression)>,
    /// `mutations`.
    pub mutations: Vec<MutationCode>,
    /// What does not compile.
    pub problems: Vec<PolicyProblem>,
}

/// One validation.
#[derive(Debug)]
pub struct ValidationCode {
    /// What has to hold.
    pub expression: Expression,
    /// What is said otherwise, as text.
    pub message: String,
    /// What is said otherwise, as an expression.
    pub message_expression: Option<Expression>,
    /// The reason of the refusal; empty for the default.
    pub reason: String,
}

/// One mutation.
#[derive(Debug)]
pub struct MutationCode {
    /// Whether it gives JSON patches instead of an object to merge.
    pub json_patch: bool,
    /// What gives the change.
    pub expression: Expression,
}

/// An expression that does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// Where it stands: a list or field, its place there, and the field (`validations`, 0, `expression`).
    pub place: (&'static str, usize, &'static str),
    /// The expression.
    pub text: String,
    /// Why.
    pub detail: String,
}

#[derive(Default)]
struct Compiler {
    code: PolicyCode,
    composed: Vec<(String, Type)>,
    /// What `object` and `oldObject` are, and what `params` are, where that is known.
    object: Option<Arc<Decl>>,
    params: Option<Arc<Decl>>,
}

impl Compiler {
    /// Compiles an expression where one stands; notes what is wrong with it.
    fn expression(
        &mut self,
        scope: AdmissionScope,
        place: (&'static str, usize, &'static str),
        text: &str,
        wanted: &[Type],
    ) -> Option<Expression> {
        if text.trim().is_empty() {
            // Its being there at all is asked for elsewhere.
            return None;
        }
        let mut env = admission_env(scope);
        for (slot, known) in [(OBJECT, &self.object), (OLD_OBJECT, &self.object), (PARAMS, &self.params)] {
            if let (Some(known), Some((_, decl))) = (known, env.variables.get_mut(slot)) {
                *decl = known.clone();
            }
        }
        for (name, ty) in &self.composed {
            env.compose(name, ty);
        }
        let compiled = match env.compile(text) {
            Err(why) => Err(format!("compilation failed: {why}")),
            Ok(program) if wanted.is_empty() || wanted.iter().any(|w| program.ty().fits(w)) => Ok(program),
            Ok(_) => Err(must_be(wanted)),
        };
        match compiled {
            Ok(program) => Some(Expression { text: text.trim().to_owned(), program }),
            Err(detail) => {
                self.code.problems.push(PolicyProblem { place, text: text.to_owned(), detail });
                None
            }
        }
    }
}

fn must_be(wanted: &[Type]) -> String {
    let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [one] => format!("must evaluate to {one}"),
        many => format!("must evaluate to one of [{}]", many.join(" ")),
    }
}

fn items<'v>(owner: &'v Value, field: &str) -> impl Iterator<Item = (usize, &'v Value)> {
    owner.get(field).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn text<'v>(owner: &'v Value, field: &str) -> &'v str {
    owner.get(field).and_then(Value::as_str).unwrap_or("")
}

/// Compiles the match conditions of a webhook.
pub fn compile_conditions(owner: &Value) -> PolicyCode {
    let mut compiler = Compiler::default();
    let scope = AdmissionScope { authorizer: true, ..AdmissionScope::default() };
    compiler.conditions(owner, scope);
    compiler.code
}

/// Compiles the `spec` of a policy, validating or mutating.
pub fn compile_policy(spec: &Value) -> PolicyCode {
    compile_with(spec, Compiler::default())
}

/// What does not compile in the `spec` of a policy where it is about objects of a known type, perhaps with parameters of one.
pub fn check_policy(spec: &Value, object: Arc<Decl>, params: Option<Arc<Decl>>) -> Vec<PolicyProblem> {
    compile_with(spec, Compiler { object: Some(object), params, ..Compiler::default() }).problems
}

fn compile_with(spec: &Value, mut compiler: Compiler) -> PolicyCode {
    let params = spec.get("paramKind").is_some_and(|k| !k.is_null());
    let messages = spec.get("mutations").is_some();
    let full = AdmissionScope { params, authorizer: true, messages, namespace: true };
    let plain = AdmissionScope { authorizer: false, ..full };
    for (i, variable) in items(spec, "variables") {
        let place = ("variables", i, "expression");
        let compiled = compiler.expression(full, place, text(variable, "expression"), &[]);
        let ty = compiled.as_ref().map_or(Type::Dyn, |e| e.program.ty().clone());
        if let Some(compiled) = compiled {
            compiler.code.variables.push(compiled.program);
            compiler.composed.push((text(variable, "name").to_owned(), ty));
        }
    }
    compiler.conditions(spec, full);
    for (i, validation) in items(spec, "validations") {
        let own = text(validation, "expression");
        let expression = compiler.expression(full, ("validations", i, "expression"), own, &[Type::Bool]);
        let place = ("validations", i, "messageExpression");
        let own = text(validation, "messageExpression");
        let message_expression = compiler.expression(plain, place, own, &[Type::Text]);
        let (message, reason) = (text(validation, "message").trim(), text(validation, "reason"));
        if let Some(expression) = expression {
            let (message, reason) = (message.to_owned(), reason.to_owned());
            compiler.code.validations.push(ValidationCode {
                expression,
                message,
                message_expression,
                reason,
            });
        }
    }
    for (i, annotation) in items(spec, "auditAnnotations") {
        let (place, own) = (("auditAnnotations", i, "valueExpression"), text(annotation, "valueExpression"));
        if let Some(value) = compiler.expression(plain, place, own, &[Type::Text, Type::Null]) {
            compiler.code.annotations.push((text(annotation, "key").to_owned(), value));
        }
    }
    for (i, mutation) in items(spec, "mutations") {
        compiler.mutation(full, i, mutation);
    }
    compiler.code
}

impl Compiler {
    fn conditions(&mut self, owner: &Value, scope: AdmissionScope) {
        for (i, condition) in items(owner, "matchConditions") {
            let (place, own) = (("matchConditions", i, "expression"), text(condition, "expression"));
            if let Some(expression) = self.expression(scope, place, own, &[Type::Bool]) {
                self.code.conditions.push((text(condition, "name").to_owned(), expression));
            }
        }
    }

    fn mutation(&mut self, scope: AdmissionScope, i: usize, mutation: &Value) {
        let json_patch = text(mutation, "patchType") == "JSONPatch";
        let (place, field) = if json_patch {
            (("mutations", i, "jsonPatch.expression"), "jsonPatch")
        } else {
            (("mutations", i, "applyConfiguration.expression"), "applyConfiguration")
        };
        let own = mutation.get(field).map_or("", |m| text(m, "expression"));
        let wanted = if json_patch { Type::list(Type::Opaque("JSONPatch")) } else { Type::Opaque("Object") };
        if let Some(expression) = self.expression(scope, place, own, &[wanted]) {
            self.code.mutations.push(MutationCode { json_patch, expression });
        }
    }
}
