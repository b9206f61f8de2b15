//! What does an expression say? The parser's tree turned into one whose names are resolved and whose shape is checked,
//! so that evaluating it looks nothing up and can only fail on data.

use std::sync::{Arc, LazyLock};

use cel_interpreter::common::ast::operators;
use cel_interpreter::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo};
use cel_interpreter::{Env, ParseError};
use regex::RegexBuilder;

use super::pattern::Pattern;
use super::stdlib::{self, Function};
use super::value::{Text, Value};
use super::{Condition, Refused};

/// One step of an evaluation.
#[derive(Debug)]
pub(super) enum Node {
    And(Box<[Node]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    /// A standard function that the `cel` crate evaluates.
    Call(Box<Function>, Box<[Node]>),
    /// `range.filter(x, keep)`, `range.map(x, item)` and `range.map(x, keep, item)`.
    Collect(Box<Collect>),
    Compare(Comparison, Box<[Node; 2]>),
    Conditional(Box<[Node; 3]>),
    Equal(Box<[Node; 2]>),
    Fold(Fold, Box<Comprehension>),
    Has(Box<Node>, Box<str>),
    In(Box<[Node; 2]>),
    Index(Box<[Node; 2]>),
    List(Box<[Node]>),
    Literal(Value<'static>),
    /// The variable of the nth comprehension around it, outermost first.
    Local(usize),
    Map(Box<[(Node, Node)]>),
    /// `matches` with a pattern that was compiled at load.
    Matches(Box<Node>, Pattern),
    /// `matches` with a pattern that depends on the request.
    MatchesDynamic(Box<[Node; 2]>),
    Negate(Box<Node>),
    Not(Box<Node>),
    Or(Box<[Node]>),
    Select(Box<Node>, Box<str>),
    Size(Box<Node>),
    Search(Search, Box<[Node; 2]>),
    TypeOf(Box<Node>),
    Variable(Variable),
}

/// `+ - * / %`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Divide,
    Multiply,
    Remainder,
    Subtract,
}

/// `< <= > >=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// The macros that end in one `bool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    All,
    Exists,
    ExistsOne,
}

/// The string functions that look for a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    Contains,
    EndsWith,
    StartsWith,
}

/// A range and what is asked of each element of it.
#[derive(Debug)]
pub(super) struct Comprehension {
    pub(super) range: Node,
    pub(super) body: Node,
}

/// A range, which elements are kept, and what becomes of them; `None`: all, and the element itself.
#[derive(Debug)]
pub(super) struct Collect {
    pub(super) range: Node,
    pub(super) keep: Option<Node>,
    pub(super) item: Option<Node>,
}

macro_rules! variables {
    ($($variant:ident = $($path:literal)|+ ;)*) => {
        /// What a rule may read, by path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Variable { $($variant,)* }

        impl Variable {
            /// Every readable path.
            const PATHS: &[(&str, Self)] = &[$($(($path, Self::$variant),)+)*];
        }
    };
}

variables! {
    Agent = "agent";
    Args = "args";
    Bytes = "request.bytes";
    Claims = "claims" | "request.auth.jwt.claims";
    ClientCertificate = "request.client_certificate";
    ClientIp = "request.client_ip";
    Headers = "request.headers";
    HeadersAll = "request.headers_all";
    Host = "request.host";
    HttpMethod = "request.method";
    Issuer = "principal.issuer";
    Meta = "meta";
    Method = "method" | "request.mcp.method";
    Now = "now";
    Params = "request.mcp.params";
    Path = "request.path";
    Principal = "principal";
    ProtocolVersion = "request.protocol_version";
    Region = "request.region";
    Scopes = "scopes" | "request.auth.jwt.scopes";
    Server = "tool.server" | "request.mcp.backend";
    ServerIdentity = "tool.server_identity";
    Subject = "principal.subject";
    Tool = "tool";
    ToolName = "tool.name" | "request.mcp.tool";
}

impl Variable {
    /// Whether two calls of the same thing by the same caller may read different values.
    fn differs_between_calls(self) -> bool {
        match self {
            Self::Agent
            | Self::Claims
            | Self::Issuer
            | Self::Method
            | Self::Principal
            | Self::Scopes
            | Self::Server
            | Self::Subject
            | Self::Tool
            | Self::ToolName => false,
            Self::Args
            | Self::Bytes
            | Self::ClientCertificate
            | Self::ClientIp
            | Self::Headers
            | Self::HeadersAll
            | Self::Host
            | Self::HttpMethod
            | Self::Meta
            | Self::Now
            | Self::Params
            | Self::Path
            | Self::ProtocolVersion
            | Self::Region
            // It is renewed in the background.
            | Self::ServerIdentity => true,
        }
    }
}

/// Names that stand for types, with what `type(x)` calls them.
const TYPES: &[&str] =
    &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "timestamp", "duration", "type", "uint"];

/// Deepest tree that is evaluated by recursion; a chain of `&&` or `||` counts once.
const DEPTH_MAX: usize = 100;

/// Compiled size of a regular expression that was written in a rule.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// The parser and the standard functions. Macros are left as calls: [`Lowering::call`] knows them.
pub(super) static ENV: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

pub(super) fn lower(source: &str) -> Result<Condition, Refused> {
    let program = ENV.compile(source).map_err(|errors| {
        let first = errors.errors.first();
        Refused(first.map_or_else(|| "not a CEL expression".to_owned(), syntax_error))
    })?;
    let mut lowering = Lowering { locals: Vec::new(), depth: 0, reads_request: false };
    match lowering.node(program.expression()) {
        Ok(root) => Ok(Condition { root, reads_request: lowering.reads_request }),
        Err(problem) => {
            let (line, column) = position(source, program.source_info(), problem.id);
            Err(Refused(format!("line {line}, column {column}: {}", problem.what)))
        }
    }
}

/// The parser's limit on recursion arrives as a syntax error without a place.
fn syntax_error(error: &ParseError) -> String {
    if error.msg.contains("Recursion limit") {
        return "nested too deeply".to_owned();
    }
    format!("line {}, column {}: {}", error.pos.0, error.pos.1, error.msg.trim())
}

/// Line and column, counted from 1, in characters.
fn position(source: &str, info: &SourceInfo, id: u64) -> (usize, usize) {
    let offset = info.offset_for(id).map_or(0, |(start, _)| usize::try_from(start).unwrap_or(0));
    // The parser counts bytes.
    let before = source.get(..offset).unwrap_or_default();
    before.chars().fold((1, 1), |(line, column), char| if char == '\n' { (line + 1, 1) } else { (line, column + 1) })
}

struct Problem {
    id: u64,
    what: String,
}

struct Lowering<'s> {
    locals: Vec<&'s str>,
    depth: usize,
    reads_request: bool,
}

impl<'s> Lowering<'s> {
    fn node(&mut self, at: &'s IdedExpr) -> Result<Node, Problem> {
        if self.depth == DEPTH_MAX {
            return Err(problem(at, format!("nested more than {DEPTH_MAX} deep")));
        }
        self.depth += 1;
        let node = match &at.expr {
            Expr::Call(call) => self.call(at, call),
            Expr::Ident(_) | Expr::Select(SelectExpr { test: false, .. }) => self.name(at),
            Expr::List(list) => self.nodes(&list.elements).map(Node::List),
            Expr::Literal(literal) => Ok(Node::Literal(literal_value(literal))),
            Expr::Map(map) => self.map(at, map.entries.iter().map(|entry| &entry.expr)),
            Expr::Comprehension(_) | Expr::Select(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(problem(at, "messages cannot be built here"))
            }
        };
        self.depth -= 1;
        node
    }

    fn nodes(&mut self, all: &'s [IdedExpr]) -> Result<Box<[Node]>, Problem> {
        all.iter().map(|one| self.node(one)).collect()
    }

    fn map(&mut self, at: &IdedExpr, entries: impl Iterator<Item = &'s EntryExpr>) -> Result<Node, Problem> {
        let mut nodes = Vec::new();
        for entry in entries {
            match entry {
                EntryExpr::MapEntry(entry) => nodes.push((self.node(&entry.key)?, self.node(&entry.value)?)),
                EntryExpr::StructField(_) => return Err(problem(at, "messages cannot be built here")),
            }
        }
        Ok(Node::Map(nodes.into()))
    }

    /// An identifier, or a chain of field selections that may start with one.
    fn name(&mut self, at: &'s IdedExpr) -> Result<Node, Problem> {
        let Some((root, path)) = path_of(at) else {
            let Some((of, field)) = selection(at) else { return Err(problem(at, "not a name")) };
            return Ok(Node::Select(Box::new(self.node(of)?), field.into()));
        };
        if self.depth + path.len() > DEPTH_MAX {
            return Err(problem(at, format!("nested more than {DEPTH_MAX} deep")));
        }
        // As in cel-go, the innermost variable wins, and a comprehension's variable hides ours of the same name.
        let Some((mut node, taken)) = self.variable(at, root, &path)? else {
            return Err(problem(first_of(at), format!("unknown variable `{root}`; there are {}", roots())));
        };
        for field in path.get(taken..).unwrap_or_default() {
            node = Node::Select(Box::new(node), (*field).into());
        }
        Ok(node)
    }

    /// The node of the longest known path from `root`, and how many fields of `path` it takes.
    fn variable(&mut self, at: &IdedExpr, root: &str, path: &[&str]) -> Result<Option<(Node, usize)>, Problem> {
        if let Some(depth) = self.locals.iter().rposition(|local| *local == root) {
            return Ok(Some((Node::Local(depth), 0)));
        }
        let mut known = None;
        let mut name = root.trim_start_matches('.').to_owned();
        if let Some(variable) = Self::lookup(&name) {
            known = Some((variable, 0));
        }
        for (index, field) in path.iter().enumerate() {
            name.push('.');
            name.push_str(field);
            if let Some(variable) = Self::lookup(&name) {
                known = Some((variable, index + 1));
            }
        }
        let root = root.trim_start_matches('.');
        let Some((variable, taken)) = known else {
            let prefix = format!("{root}.");
            if Variable::PATHS.iter().any(|(path, _)| path.starts_with(&prefix)) {
                return Err(problem(at, unknown_member(root, path)));
            }
            let name = path.iter().fold(root.to_owned(), |name, field| name + "." + field);
            let type_name = match name.as_str() {
                "google.protobuf.Timestamp" => Some(name.as_str()),
                "google.protobuf.Duration" => Some(name.as_str()),
                _ if path.is_empty() => TYPES.iter().copied().find(|known| *known == name),
                _ => None,
            };
            return Ok(type_name.map(|name| (Node::Literal(Value::Type(type_value(name))), path.len())));
        };
        if matches!(variable, Variable::Principal | Variable::Tool) && taken < path.len() {
            return Err(problem(at, unknown_member(root, path)));
        }
        self.reads_request |= variable.differs_between_calls();
        Ok(Some((Node::Variable(variable), taken)))
    }

    fn lookup(name: &str) -> Option<Variable> {
        Variable::PATHS.iter().find(|(path, _)| *path == name).map(|(_, variable)| *variable)
    }

    fn call(&mut self, at: &'s IdedExpr, call: &'s CallExpr) -> Result<Node, Problem> {
        match (&call.target, call.args.as_slice()) {
            (None, [left, right]) => self.binary(at, &call.func_name, left, right),
            (None, [of]) => match call.func_name.as_str() {
                operators::LOGICAL_NOT => Ok(Node::Not(Box::new(self.node(of)?))),
                operators::NEGATE => Ok(Node::Negate(Box::new(self.node(of)?))),
                "has" => self.has(of),
                "dyn" => self.node(of),
                "size" => Ok(Node::Size(Box::new(self.node(of)?))),
                "type" => Ok(Node::TypeOf(Box::new(self.node(of)?))),
                name => self.function(at, name, None, &call.args),
            },
            (None, [test, then, otherwise]) if call.func_name == operators::CONDITIONAL => {
                Ok(Node::Conditional(Box::new([self.node(test)?, self.node(then)?, self.node(otherwise)?])))
            }
            (None, _) => self.function(at, &call.func_name, None, &call.args),
            (Some(of), args) => self.member(at, &call.func_name, of, args),
        }
    }

    fn binary(
        &mut self,
        at: &'s IdedExpr,
        name: &'s str,
        left: &'s IdedExpr,
        right: &'s IdedExpr,
    ) -> Result<Node, Problem> {
        if name == operators::LOGICAL_AND || name == operators::LOGICAL_OR {
            let operands = operands(at, name).into_iter().map(|one| self.node(one)).collect::<Result<_, _>>()?;
            return Ok(if name == operators::LOGICAL_AND { Node::And(operands) } else { Node::Or(operands) });
        }
        let mut pair = || Ok(Box::new([self.node(left)?, self.node(right)?]));
        Ok(match name {
            operators::EQUALS => Node::Equal(pair()?),
            operators::NOT_EQUALS => Node::Not(Box::new(Node::Equal(pair()?))),
            operators::LESS => Node::Compare(Comparison::Less, pair()?),
            operators::LESS_EQUALS => Node::Compare(Comparison::LessOrEqual, pair()?),
            operators::GREATER => Node::Compare(Comparison::Greater, pair()?),
            operators::GREATER_EQUALS => Node::Compare(Comparison::GreaterOrEqual, pair()?),
            operators::IN => Node::In(pair()?),
            operators::INDEX => return self.index(at, left, right),
            operators::ADD => Node::Arithmetic(Arithmetic::Add, pair()?),
            operators::SUBSTRACT => Node::Arithmetic(Arithmetic::Subtract, pair()?),
            operators::MULTIPLY => Node::Arithmetic(Arithmetic::Multiply, pair()?),
            operators::DIVIDE => Node::Arithmetic(Arithmetic::Divide, pair()?),
            operators::MODULO => Node::Arithmetic(Arithmetic::Remainder, pair()?),
            "matches" => return self.matches(left, right),
            _ => return Err(unknown_function(at, name, 2)),
        })
    }

    /// `of[index]`; with a literal key it is a field selection, so that `request["method"]` is `request.method`.
    fn index(&mut self, at: &'s IdedExpr, of: &'s IdedExpr, index: &'s IdedExpr) -> Result<Node, Problem> {
        if path_of(at).is_some() {
            return self.name(at);
        }
        if let Expr::Literal(LiteralValue::String(key)) = &index.expr {
            return Ok(Node::Select(Box::new(self.node(of)?), key.inner().into()));
        }
        Ok(Node::Index(Box::new([self.node(of)?, self.node(index)?])))
    }

    fn member(
        &mut self,
        at: &'s IdedExpr,
        name: &'s str,
        of: &'s IdedExpr,
        args: &'s [IdedExpr],
    ) -> Result<Node, Problem> {
        let search = match name {
            "contains" => Some(Search::Contains),
            "endsWith" => Some(Search::EndsWith),
            "startsWith" => Some(Search::StartsWith),
            _ => None,
        };
        match (name, args) {
            ("size", []) => Ok(Node::Size(Box::new(self.node(of)?))),
            ("matches", [pattern]) => self.matches(of, pattern),
            ("all", [local, body]) => self.fold(Fold::All, of, local, body),
            ("exists", [local, body]) => self.fold(Fold::Exists, of, local, body),
            ("exists_one" | "existsOne", [local, body]) => self.fold(Fold::ExistsOne, of, local, body),
            ("filter", [local, keep]) => self.collect(of, local, Some(keep), None),
            ("map", [local, item]) => self.collect(of, local, None, Some(item)),
            ("map", [local, keep, item]) => self.collect(of, local, Some(keep), Some(item)),
            (_, [with]) if search.is_some() => match search {
                Some(search) => Ok(Node::Search(search, Box::new([self.node(of)?, self.node(with)?]))),
                None => Err(unknown_function(at, name, 1)),
            },
            _ => self.function(at, name, Some(of), args),
        }
    }

    fn function(
        &mut self,
        at: &'s IdedExpr,
        name: &str,
        of: Option<&'s IdedExpr>,
        args: &'s [IdedExpr],
    ) -> Result<Node, Problem> {
        let function =
            stdlib::find(name, of.is_some(), args.len()).ok_or_else(|| unknown_function(at, name, args.len()))?;
        // A zone that nobody knows would err with every request: found here, it is a problem of the file.
        if let (Some(_), [zone]) = (of, args)
            && let Expr::Literal(LiteralValue::String(text)) = &zone.expr
            && !function.knows_zone(text.inner())
        {
            return Err(problem(zone, format!("there is no time zone `{}`", text.inner())));
        }
        let args = of.into_iter().chain(args).map(|arg| self.node(arg)).collect::<Result<_, _>>()?;
        Ok(Node::Call(Box::new(function), args))
    }

    fn has(&mut self, of: &'s IdedExpr) -> Result<Node, Problem> {
        if !matches!(&of.expr, Expr::Select(select) if !select.test) {
            return Err(problem(of, "has() takes a field selection such as `args.folder`"));
        }
        if let Node::Select(operand, field) = self.name(of)? {
            return Ok(Node::Has(operand, field));
        }
        // A path that is always there, such as `request.method`.
        Ok(Node::Literal(Value::Bool(true)))
    }

    fn matches(&mut self, of: &'s IdedExpr, pattern: &'s IdedExpr) -> Result<Node, Problem> {
        let of = self.node(of)?;
        let Expr::Literal(LiteralValue::String(literal)) = &pattern.expr else {
            return Ok(Node::MatchesDynamic(Box::new([of, self.node(pattern)?])));
        };
        let regex = RegexBuilder::new(literal.inner()).size_limit(REGEX_BYTES_MAX).build();
        let regex = regex.map_err(|error| {
            // The crate's message draws the pattern over several lines; its last line says what is wrong.
            let message = error.to_string();
            let what = message.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
            problem(pattern, format!("not a regular expression: {what}"))
        })?;
        Ok(Node::Matches(Box::new(of), Pattern::of(regex)))
    }

    fn fold(
        &mut self,
        fold: Fold,
        range: &'s IdedExpr,
        local: &'s IdedExpr,
        body: &'s IdedExpr,
    ) -> Result<Node, Problem> {
        let range = self.node(range)?;
        let body = self.scoped(local, |lowering| lowering.node(body))?;
        Ok(Node::Fold(fold, Box::new(Comprehension { range, body })))
    }

    fn collect(
        &mut self,
        range: &'s IdedExpr,
        local: &'s IdedExpr,
        keep: Option<&'s IdedExpr>,
        item: Option<&'s IdedExpr>,
    ) -> Result<Node, Problem> {
        let range = self.node(range)?;
        let (keep, item) = self.scoped(local, |lowering| {
            let keep = keep.map(|keep| lowering.node(keep)).transpose()?;
            let item = item.map(|item| lowering.node(item)).transpose()?;
            Ok((keep, item))
        })?;
        Ok(Node::Collect(Box::new(Collect { range, keep, item })))
    }

    fn scoped<T>(
        &mut self,
        local: &'s IdedExpr,
        lower: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let Expr::Ident(name) = &local.expr else {
            return Err(problem(local, "the first argument of a macro is the name of its variable"));
        };
        self.locals.push(name);
        let lowered = lower(self);
        self.locals.pop();
        lowered
    }
}

/// The operands of a chain of the same `&&` or `||`, left to right, however the parser has nested them.
fn operands<'s>(at: &'s IdedExpr, name: &str) -> Vec<&'s IdedExpr> {
    let mut operands = Vec::new();
    let mut rest = vec![at];
    while let Some(one) = rest.pop() {
        if let Expr::Call(CallExpr { func_name, target: None, args }) = &one.expr
            && func_name == name
        {
            rest.extend(args.iter().rev());
        } else {
            operands.push(one);
        }
    }
    operands
}

/// `a.b["c"]` as its first name and the fields after it; `None` for anything else.
fn path_of(at: &IdedExpr) -> Option<(&str, Vec<&str>)> {
    let mut fields = Vec::new();
    let mut at = at;
    loop {
        if let Expr::Ident(root) = &at.expr {
            fields.reverse();
            return Some((root, fields));
        }
        let (of, field) = selection(at)?;
        fields.push(field);
        at = of;
    }
}

/// `of.field` or `of["field"]`.
fn selection(at: &IdedExpr) -> Option<(&IdedExpr, &str)> {
    if let Expr::Select(SelectExpr { operand, field, test: false }) = &at.expr {
        return Some((operand, field));
    }
    let Expr::Call(CallExpr { func_name, target: None, args }) = &at.expr else { return None };
    let [of, key] = args.as_slice() else { return None };
    let Expr::Literal(LiteralValue::String(key)) = &key.expr else { return None };
    (func_name == operators::INDEX).then(|| (of, key.inner()))
}

/// The first name of a path.
fn first_of(mut at: &IdedExpr) -> &IdedExpr {
    while let Some((of, _)) = selection(at) {
        at = of;
    }
    at
}

fn literal_value(literal: &LiteralValue) -> Value<'static> {
    match literal {
        LiteralValue::Boolean(truth) => Value::Bool(*truth.inner()),
        LiteralValue::Bytes(bytes) => Value::Bytes(bytes.inner().into()),
        LiteralValue::Double(double) => Value::Double(*double.inner()),
        LiteralValue::Int(int) => Value::Int(*int.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(text) => Value::Text(Text::Shared(text.inner().into())),
        LiteralValue::UInt(uint) => Value::UInt(*uint.inner()),
    }
}

fn type_value(name: &str) -> Arc<str> {
    match name {
        "timestamp" => "google.protobuf.Timestamp".into(),
        "duration" => "google.protobuf.Duration".into(),
        name => name.into(),
    }
}

fn problem(at: &IdedExpr, what: impl Into<String>) -> Problem {
    Problem { id: at.id, what: what.into() }
}

fn unknown_function(at: &IdedExpr, name: &str, args: usize) -> Problem {
    problem(at, format!("there is no function `{name}` of this form with {args} argument(s)"))
}

/// `request.mcp.tol` is unknown, `request.mcp` has no value of its own: both name what there is.
fn unknown_member(root: &str, path: &[&str]) -> String {
    let mut parent = root.to_owned();
    let mut asked = root.to_owned();
    for field in path {
        asked = format!("{parent}.{field}");
        if !Variable::PATHS.iter().any(|(path, _)| path.starts_with(&format!("{asked}."))) {
            break;
        }
        parent.clone_from(&asked);
    }
    let prefix = format!("{parent}.");
    let members: Vec<&str> = Variable::PATHS
        .iter()
        .filter_map(|(path, _)| path.strip_prefix(&prefix))
        .filter_map(|rest| rest.split('.').next())
        .collect();
    let mut members: Vec<String> = members.into_iter().map(|member| format!("`{prefix}{member}`")).collect();
    members.sort_unstable();
    members.dedup();
    let members = members.join(", ");
    if asked == parent {
        format!("`{parent}` cannot be read as a whole; it has {members}")
    } else {
        format!("there is no `{asked}`; there are {members}")
    }
}

fn roots() -> String {
    let mut roots: Vec<String> =
        Variable::PATHS.iter().filter_map(|(path, _)| path.split('.').next()).map(|root| format!("`{root}`")).collect();
    roots.sort_unstable();
    roots.dedup();
    roots.join(", ")
}
