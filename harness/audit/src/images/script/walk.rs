//! Walks through a script: sequences, branches, loops, functions. Nothing is run: a branch whose
//! test is unknown is walked conditionally, and a loop over a pattern is walked once.

use std::collections::BTreeMap;

use brush_parser::ast::{
    AndOr, AndOrList, Assignment, Command, CommandPrefixOrSuffixItem, CompoundCommand, CompoundList, FunctionBody,
    IoFileRedirectKind, IoFileRedirectTarget, IoRedirect, Pipeline, Program, SeparatorOperator, SimpleCommand,
};

use super::{
    Environment, Script,
    condition::{Condition, Test},
    expand::{Scope, UNKNOWN, Value, is_unknown},
    parse,
};
use crate::images::script::{condition, expand};
use lockproof_compose::in_container;

/// The maximum number of commands; scripts that call each other could be endless.
const STEPS: usize = 20_000;
/// The maximum depth of function and script calls.
const DEEPEST: usize = 12;
/// The maximum number of words for which a loop is unrolled.
const UNROLLED: usize = 64;

/// Whether the script continues after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    /// `return`: ends the function or the sourced file.
    Returns,
    /// `exit` or `exec`: ends the process.
    Ends,
}

/// The effect of a command's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// As set by `set -e`.
    ByState,
    /// The start stops.
    Stops,
    /// The start continues.
    Ignored,
}

/// The state of the shell.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) here: Option<String>,
    pub(super) before: Option<String>,
    pub(super) stack: Vec<Option<String>>,
    pub(super) variables: BTreeMap<String, Value>,
    pub(super) arguments: Vec<String>,
    pub(super) strict: bool,
    pub(super) pipefail: bool,
    /// The active virtual environment.
    pub(super) active: Option<String>,
}

/// The number of conditional exits so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leaves {
    all: usize,
    /// The number of these that ended the process.
    for_good: usize,
}

impl Leaves {
    fn since(self, before: Self) -> (usize, usize) {
        (self.all.saturating_sub(before.all), self.for_good.saturating_sub(before.for_good))
    }
}

pub(super) struct Walk<'a> {
    pub(super) environment: &'a Environment<'a>,
    pub(super) script: Script,
    pub(super) state: State,
    pub(super) conditions: Vec<Condition>,
    functions: BTreeMap<String, FunctionBody>,
    steps: usize,
    depth: usize,
    /// The number of starts of ComfyUI.
    pub(super) started: usize,
    /// A conditional exit, after which everything is conditional too.
    leaves: Leaves,
    /// The number of lines before the current program.
    offset: usize,
    /// The current text, and its local file name, if any.
    pub(super) source: String,
    pub(super) name: Option<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(environment: &'a Environment<'a>, state: State) -> Self {
        Self {
            environment,
            script: Script::default(),
            state,
            conditions: Vec::new(),
            functions: BTreeMap::new(),
            steps: 0,
            depth: 0,
            started: 0,
            leaves: Leaves::default(),
            offset: 0,
            source: String::new(),
            name: None,
        }
    }

    pub(super) fn text(&mut self, text: &str) -> Flow {
        let (programs, whole) = parse::programs(text);
        self.script.incomplete |= !whole;
        let outer = (self.offset, std::mem::replace(&mut self.source, text.to_owned()));
        let mut flow = Flow::On;
        for (offset, program) in &programs {
            self.offset = *offset;
            flow = self.program(program);
            if flow != Flow::On {
                break;
            }
        }
        (self.offset, self.source) = outer;
        flow
    }

    /// Walks a text within this one: `sh -c`, or a script that is run or sourced.
    pub(super) fn nested(&mut self, text: &str) -> Flow {
        if self.depth >= DEEPEST {
            self.script.incomplete = true;
            return Flow::On;
        }
        self.depth += 1;
        let flow = self.text(text);
        self.depth -= 1;
        flow
    }

    fn program(&mut self, program: &Program) -> Flow {
        for (n, list) in program.complete_commands.iter().enumerate() {
            let next = program.complete_commands.get(n + 1).and_then(|list| list.0.first());
            let minded = next.is_some_and(|next| minds_status(&next.0));
            let flow = self.list(list, if minded { Fate::Stops } else { Fate::ByState });
            if flow != Flow::On {
                return flow;
            }
        }
        Flow::On
    }

    fn list(&mut self, list: &CompoundList, fate: Fate) -> Flow {
        for (n, item) in list.0.iter().enumerate() {
            let minded = list.0.get(n + 1).is_some_and(|next| minds_status(&next.0));
            let fate = match item.1 {
                SeparatorOperator::Async => Fate::Ignored,
                SeparatorOperator::Sequence if minded && fate == Fate::ByState => Fate::Stops,
                SeparatorOperator::Sequence => fate,
            };
            let flow = self.and_or(&item.0, fate);
            if flow != Flow::On && matches!(item.1, SeparatorOperator::Sequence) {
                return flow;
            }
        }
        Flow::On
    }

    /// `a && b || c`.
    fn and_or(&mut self, list: &AndOrList, fate: Fate) -> Flow {
        let mut elements = vec![(true, &list.first)];
        elements.extend(list.additional.iter().map(|next| match next {
            AndOr::And(pipeline) => (true, pipeline),
            AndOr::Or(pipeline) => (false, pipeline),
        }));
        let outer = self.conditions.len();
        let before = self.leaves;
        let mut flow = Flow::On;
        let mut unless = Vec::new();
        for (n, (and, pipeline)) in elements.iter().enumerate() {
            // After a test, the next command depends on its result; after another command, on its
            // success.
            if n > 0 {
                let before = elements[n - 1].1;
                match (self.test_of(before), and) {
                    (Some(Test::Known(holds)), and) if holds != *and => continue,
                    (Some(Test::When(then, other)), and) => {
                        let (then, other) = if *and { (then, other) } else { (other, then) };
                        self.conditions.extend(then);
                        unless = if n == 1 { other } else { vec![Condition::Maybe] };
                    }
                    (None, and) => {
                        unless = vec![Condition::Maybe];
                        if !and && flow == Flow::On {
                            self.conditions.push(Condition::Maybe);
                        }
                    }
                    (Some(Test::Known(_)), _) => {}
                }
            }
            let handler = elements[n + 1..].iter().find(|(and, _)| !and).map(|(_, pipeline)| *pipeline);
            let own = match handler {
                Some(handler) if self.ends(handler) => Fate::Stops,
                Some(_) => Fate::Ignored,
                None if fate != Fate::ByState => fate,
                None if n + 1 < elements.len() => {
                    let starts = elements[n + 1..].iter().any(|(_, pipeline)| starts(&pipeline.to_string()));
                    if starts { Fate::Stops } else { Fate::Ignored }
                }
                None => Fate::ByState,
            };
            let started = self.started;
            let ended = self.pipeline(pipeline, own);
            if ended != Flow::On && !unless.is_empty() {
                // `[ -f X ] && return`: what comes behind is under the opposite. With `set -e`, a failure that
                // returns stops the start.
                self.conditions.truncate(outer);
                let stops = !and && ended == Flow::Returns && self.state.strict;
                if !stops && self.may_leave(ended, started) {
                    self.conditions.append(&mut unless);
                }
                return Flow::On;
            }
            // A command after `||` is not part of the successful path.
            if *and {
                flow = ended;
            }
            if flow != Flow::On {
                break;
            }
        }
        if elements.len() > 1 {
            self.close(outer, before);
        }
        flow
    }

    /// Whether an error handler ends the start: `exit 1`, `{ echo x; exit 1; }`, `die …`.
    fn ends(&self, pipeline: &Pipeline) -> bool {
        let text = pipeline.to_string();
        let ends = |text: &str| {
            text.split(|c: char| c.is_whitespace() || ";{}()".contains(c))
                .any(|w| matches!(w, "exit" | "return" | "false"))
        };
        let name = text.split_whitespace().next().unwrap_or_default();
        ends(&text) || self.functions.get(name).is_some_and(|body| ends(&body.0.to_string()))
    }

    /// The result of a pipeline as a test, if it is one.
    fn test_of(&self, pipeline: &Pipeline) -> Option<Test> {
        let [command] = pipeline.seq.as_slice() else { return None };
        let at = |path: &str| self.at(path).or_else(|| path.contains('*').then(|| path.to_owned()));
        let test = match command {
            Command::Simple(simple) => {
                let words = self.words_of(simple);
                match words.first().map(String::as_str) {
                    Some("[") => condition::test(&words[1..words.len().saturating_sub(1).max(1)], &at),
                    Some("test") => condition::test(&words[1..], &at),
                    Some("true" | ":") => Test::Known(true),
                    Some("false") => Test::Known(false),
                    _ => return None,
                }
            }
            Command::ExtendedTest(test, _) => self.scoped(|scope| condition::extended(&test.expr, scope, &at)),
            _ => return None,
        };
        Some(if pipeline.bang { test.not() } else { test })
    }

    fn pipeline(&mut self, pipeline: &Pipeline, fate: Fate) -> Flow {
        let last = pipeline.seq.len().saturating_sub(1);
        let mut fed = None;
        let mut flow = Flow::On;
        for (n, command) in pipeline.seq.iter().enumerate() {
            // The status of a pipeline is that of its last command.
            let own = if n < last && !self.state.pipefail { Fate::Ignored } else { fate };
            flow = self.command(command, own, fed.take());
            if n < last {
                fed = self.printed_by(command);
            }
        }
        if last > 0 { Flow::On } else { flow }
    }

    fn command(&mut self, command: &Command, fate: Fate, fed: Option<String>) -> Flow {
        self.steps += 1;
        if self.steps > STEPS {
            self.script.incomplete = true;
            return Flow::Ends;
        }
        match command {
            Command::Simple(simple) => self.simple(simple, fate, fed.as_deref()),
            Command::Compound(compound, redirects) => {
                let fed = fed.or_else(|| self.fed_by(redirects.as_ref()));
                self.compound(compound, fate, fed)
            }
            Command::Function(function) => {
                self.functions.insert(function.fname.value.clone(), function.body.clone());
                Flow::On
            }
            Command::ExtendedTest(..) => Flow::On,
        }
    }

    fn compound(&mut self, compound: &CompoundCommand, fate: Fate, fed: Option<String>) -> Flow {
        match compound {
            CompoundCommand::BraceGroup(group) => self.list(&group.list, fate),
            CompoundCommand::Subshell(shell) => {
                let before = self.state.clone();
                let entered = self.entered();
                self.list(&shell.list, fate);
                self.state = before;
                self.left_process(entered);
                Flow::On
            }
            CompoundCommand::ForClause(clause) => {
                let words: Vec<String> = match &clause.values {
                    Some(values) => values.iter().flat_map(|w| self.expand(&w.value)).collect(),
                    None => self.state.arguments.clone(),
                };
                let words = if words.len() > UNROLLED { vec![UNKNOWN.to_string()] } else { words };
                for word in words {
                    self.state.variables.insert(clause.variable_name.clone(), Value::Text(word));
                    let here = self.state.here.clone();
                    self.body(&clause.body.list, fate);
                    self.state.here = here;
                }
                Flow::On
            }
            CompoundCommand::WhileClause(clause) | CompoundCommand::UntilClause(clause) => {
                // `find … | while read -r file`: walked once for all files.
                let condition = clause.0.to_string();
                let mut names = condition.split_whitespace().skip_while(|w| *w != "read").skip(1);
                let name = names.find(|w| !w.starts_with('-') && !w.starts_with(['\'', '"']));
                let reads = name.is_some();
                if let Some(name) = name {
                    let value = fed.unwrap_or_else(|| UNKNOWN.to_string());
                    self.state.variables.insert(name.trim_end_matches(';').to_owned(), Value::Text(value));
                }
                let outer = self.conditions.len();
                if !reads {
                    self.conditions.push(Condition::Maybe);
                }
                let (here, leaves) = (self.state.here.clone(), self.leaves);
                self.body(&clause.1.list, fate);
                self.state.here = here;
                self.close(outer, leaves);
                Flow::On
            }
            CompoundCommand::IfClause(clause) => {
                let mut branches = vec![(Some(&clause.condition), &clause.then)];
                for other in clause.elses.iter().flatten() {
                    branches.push((other.condition.as_ref(), &other.body));
                }
                self.branches(&branches, fate)
            }
            CompoundCommand::CaseClause(clause) => {
                let value = self.scoped(|scope| expand::one(&clause.value.value, scope));
                let bodies: Vec<(bool, &CompoundList)> = clause
                    .cases
                    .iter()
                    .filter_map(|case| {
                        let patterns: Vec<String> =
                            case.patterns.iter().map(|w| self.scoped(|s| expand::one(&w.value, s))).collect();
                        let unknown = value.contains([UNKNOWN, '*']);
                        let fits = patterns.iter().any(|p| *p == value || p == "*");
                        let may = unknown || fits || patterns.iter().any(|p| p.contains(['*', '?', '[', UNKNOWN]));
                        Some((fits && !unknown, case.cmd.as_ref()?)).filter(|_| may)
                    })
                    .collect();
                if let Some((true, body)) = bodies.first() {
                    return self.list(body, fate);
                }
                let branches: Vec<(Option<&CompoundList>, &CompoundList)> =
                    bodies.into_iter().map(|(_, body)| (None, body)).collect();
                self.either(&branches, fate)
            }
            CompoundCommand::Arithmetic(_) => Flow::On,
            CompoundCommand::ArithmeticForClause(clause) => {
                let outer = self.conditions.len();
                let leaves = self.leaves;
                self.conditions.push(Condition::Maybe);
                self.body(&clause.body.list, fate);
                self.close(outer, leaves);
                Flow::On
            }
            CompoundCommand::Coprocess(process) => self.command(&process.body, Fate::Ignored, None),
        }
    }

    /// `if`, `elif`, `else`.
    fn branches(&mut self, branches: &[(Option<&CompoundList>, &CompoundList)], fate: Fate) -> Flow {
        let outer = self.conditions.len();
        let leaves = self.leaves;
        let mut ways: Vec<(State, Flow)> = Vec::new();
        let mut decided = false;
        let mut unless = Vec::new();
        for (n, (test, body)) in branches.iter().enumerate() {
            let test = match test {
                Some(list) => self.test(list, body),
                None => Test::Known(true),
            };
            match test {
                Test::Known(false) => continue,
                Test::Known(true) => {
                    let before = self.state.clone();
                    let flow = self.list(body, fate);
                    ways.push((std::mem::replace(&mut self.state, before), flow));
                    decided = true;
                    break;
                }
                Test::When(then, other) => {
                    let own = self.conditions.len();
                    self.conditions.extend(then);
                    let (before, started) = (self.state.clone(), self.started);
                    let flow = self.list(body, fate);
                    if self.may_leave(flow, started) {
                        unless.extend(if n == 0 { other.clone() } else { vec![Condition::Maybe] });
                    }
                    ways.push((std::mem::replace(&mut self.state, before), flow));
                    self.conditions.truncate(own);
                    self.conditions.extend(other);
                }
            }
        }
        // Only the first branch has a known opposite.
        let nested = self.leaves.since(leaves).0 > unless.len();
        self.conditions.truncate(outer);
        self.conditions.append(&mut unless);
        self.conditions.extend(nested.then_some(Condition::Maybe));
        if !decided {
            ways.push((self.state.clone(), Flow::On));
        }
        self.join(ways)
    }

    /// Several branches, of which any may be taken.
    fn either(&mut self, branches: &[(Option<&CompoundList>, &CompoundList)], fate: Fate) -> Flow {
        let mut ways = vec![(self.state.clone(), Flow::On)];
        let (outer, leaves) = (self.conditions.len(), self.leaves);
        self.conditions.push(Condition::Maybe);
        for (_, body) in branches {
            let (before, started) = (self.state.clone(), self.started);
            let flow = self.list(body, fate);
            self.may_leave(flow, started);
            ways.push((std::mem::replace(&mut self.state, before), flow));
        }
        self.close(outer, leaves);
        self.join(ways)
    }

    /// Keeps the parts of the state that are equal in all continuing branches.
    fn join(&mut self, ways: Vec<(State, Flow)>) -> Flow {
        let returns = ways.iter().any(|(_, flow)| *flow == Flow::Returns);
        let mut on = ways.into_iter().filter(|(_, flow)| *flow == Flow::On).map(|(state, _)| state);
        let Some(mut joined) = on.next() else { return if returns { Flow::Returns } else { Flow::Ends } };
        for other in on {
            if joined.here != other.here {
                joined.here = None;
            }
            for (name, value) in other.variables {
                match joined.variables.get(&name) {
                    Some(same) if *same == value => {}
                    _ => {
                        joined.variables.insert(name, Value::Text(UNKNOWN.to_string()));
                    }
                }
            }
            joined.strict &= other.strict;
            joined.pipefail &= other.pipefail;
            joined.active = joined.active.or(other.active);
        }
        self.state = joined;
        Flow::On
    }

    /// The condition of a branch; its commands are walked too.
    fn test(&mut self, list: &CompoundList, body: &CompoundList) -> Test {
        let minds =
            body.to_string().split(|c: char| c.is_whitespace() || c == ';').any(|w| w == "exit" || w == "return");
        let mut result = Test::maybe();
        for (n, item) in list.0.iter().enumerate() {
            let mut all: Option<Test> = None;
            let pipelines = std::iter::once((true, &item.0.first)).chain(item.0.additional.iter().map(|a| match a {
                AndOr::And(p) => (true, p),
                AndOr::Or(p) => (false, p),
            }));
            for (and, pipeline) in pipelines {
                let test = match self.test_of(pipeline) {
                    Some(test) => test,
                    None => {
                        let fate = if minds && pipeline.bang { Fate::Stops } else { Fate::Ignored };
                        self.pipeline(pipeline, fate);
                        Test::maybe()
                    }
                };
                all = Some(match all {
                    None => test,
                    Some(before) if and => before.and(test),
                    Some(before) => before.or(test),
                });
            }
            if n + 1 == list.0.len() {
                result = all.unwrap_or_else(Test::maybe);
            }
        }
        result
    }

    fn simple(&mut self, simple: &SimpleCommand, fate: Fate, fed: Option<&str>) -> Flow {
        let items = simple.prefix.iter().flat_map(|p| &p.0).chain(simple.suffix.iter().flat_map(|s| &s.0));
        let mut writes = Vec::new();
        let mut document = None;
        for item in items {
            if let CommandPrefixOrSuffixItem::IoRedirect(redirect) = item {
                match redirect {
                    IoRedirect::File(
                        _,
                        IoFileRedirectKind::Write | IoFileRedirectKind::Append | IoFileRedirectKind::Clobber,
                        IoFileRedirectTarget::Filename(word),
                    ) => writes.push(self.scoped(|scope| expand::one(&word.value, scope))),
                    IoRedirect::HereDocument(_, here) => document = Some(here.doc.value.clone()),
                    _ => {}
                }
            }
        }
        for path in &writes {
            self.written(path);
        }
        let words = self.words_of(simple);
        let prefix = simple.prefix.iter().flat_map(|p| &p.0);
        let assignments: Vec<&Assignment> = prefix
            .filter_map(|item| match item {
                CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) => Some(assignment),
                _ => None,
            })
            .collect();
        if words.is_empty() {
            for assignment in assignments {
                self.assign(assignment);
            }
            return Flow::On;
        }
        if matches!(words[0].as_str(), "export" | "declare" | "local" | "readonly" | "typeset") {
            for item in simple.suffix.iter().flat_map(|s| &s.0) {
                if let CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) = item {
                    self.assign(assignment);
                }
            }
            return Flow::On;
        }
        if let Some(body) = self.functions.get(&words[0]).cloned() {
            return self.call(&body, &words[1..], fate);
        }
        let line = simple.word_or_name.as_ref().and_then(|w| w.loc.as_ref()).map_or(1, |loc| loc.start.line);
        self.run(&words, line + self.offset, fate, fed, document.as_deref())
    }

    /// The body of a loop, which may not run at all.
    fn body(&mut self, list: &CompoundList, fate: Fate) {
        let started = self.started;
        let flow = self.list(list, fate);
        if self.may_leave(flow, started) {
            self.conditions.push(Condition::Maybe);
        }
    }

    /// Whether a conditional path reaches the start of ComfyUI without the following commands: by a `return`,
    /// or by its own start. An `exit` starts nothing.
    fn may_leave(&mut self, flow: Flow, started: usize) -> bool {
        let leaves = match flow {
            Flow::On => false,
            Flow::Returns => true,
            Flow::Ends => self.started > started,
        };
        if leaves {
            self.leaves.all += 1;
            self.leaves.for_good += usize::from(flow == Flow::Ends);
        }
        leaves
    }

    /// Leaves the inner conditions. If there was a conditional exit meanwhile, one condition remains.
    fn close(&mut self, outer: usize, before: Leaves) {
        self.conditions.truncate(outer);
        if self.leaves.since(before).0 > 0 {
            self.conditions.push(Condition::Maybe);
        }
    }

    /// The end of a function or a sourced file, which a `return` reaches too.
    pub(super) fn returned(&mut self, outer: usize, before: Leaves) {
        self.conditions.truncate(outer);
        let (_, for_good) = self.leaves.since(before);
        if for_good > 0 {
            self.conditions.push(Condition::Maybe);
        }
        self.leaves = Leaves { all: before.all + for_good, for_good: before.for_good + for_good };
    }

    /// The end of a subprocess: this process continues in any case.
    pub(super) fn left_process(&mut self, (outer, before): (usize, Leaves)) {
        self.conditions.truncate(outer);
        self.leaves = before;
    }

    /// The saved state for [`Walk::returned`].
    pub(super) fn entered(&self) -> (usize, Leaves) {
        (self.conditions.len(), self.leaves)
    }

    fn call(&mut self, body: &FunctionBody, arguments: &[String], fate: Fate) -> Flow {
        if self.depth >= DEEPEST {
            self.script.incomplete = true;
            return Flow::On;
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.state.arguments, arguments.to_vec());
        let (conditions, leaves) = (self.conditions.len(), self.leaves);
        let flow = self.compound(&body.0, fate, None);
        self.returned(conditions, leaves);
        self.state.arguments = outer;
        self.depth -= 1;
        // `return` ends only the function.
        if flow == Flow::Returns { Flow::On } else { flow }
    }

    pub(super) fn words_of(&self, simple: &SimpleCommand) -> Vec<String> {
        let suffix = simple.suffix.iter().flat_map(|s| &s.0).filter_map(|item| match item {
            CommandPrefixOrSuffixItem::Word(word) | CommandPrefixOrSuffixItem::AssignmentWord(_, word) => Some(word),
            _ => None,
        });
        simple.word_or_name.iter().chain(suffix).flat_map(|word| self.expand(&word.value)).collect()
    }

    pub(super) fn expand(&self, text: &str) -> Vec<String> {
        self.scoped(|scope| expand::words(text, scope))
    }

    pub(super) fn scoped<T>(&self, with: impl FnOnce(&Scope<'_>) -> T) -> T {
        let printed = |command: &str| self.prints(command);
        with(&Scope {
            environment: self.environment,
            variables: &self.state.variables,
            arguments: &self.state.arguments,
            here: self.state.here.as_deref(),
            printed: &printed,
        })
    }

    /// A path resolved against the current directory; `None` if either is unknown.
    pub(super) fn at(&self, path: &str) -> Option<String> {
        if is_unknown(path) {
            // A pattern below an unknown directory is still useful.
            return None;
        }
        if path.starts_with('/') {
            return Some(in_container(path));
        }
        self.state.here.as_deref().map(|here| in_container(&format!("{here}/{path}")))
    }
}

/// `if [ $? -ne 0 ]; then exit 1; fi` checks the command before it.
fn minds_status(next: &AndOrList) -> bool {
    let text = next.to_string();
    text.contains("$?") && (text.contains("exit") || text.contains("return"))
}

/// Whether the text of a command starts ComfyUI.
fn starts(text: &str) -> bool {
    text.contains("main.py") || text.contains("comfy launch") || text.contains("$@")
}
