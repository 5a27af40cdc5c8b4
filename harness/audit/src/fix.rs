//! `--fix`: inserts the lines of the remedies. Anchored blocks, and services defined in another
//! file, are left to the user, with a note.

use std::collections::BTreeMap;

use similar::TextDiff;

use super::{remedy::Keep, subject::Audit, subject::Placed};
use crate::remedy;
use lockproof_compose::{Project, Service, Span, yaml::Kind};
use lockproof_model::{
    error::{Error, Result},
    finding::Rule,
    state::State,
};

/// A file with its patched text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patched {
    /// The index of the file in the project's sources.
    pub file: u32,
    /// The current text, without a byte-order mark.
    pub before: String,
    /// The text with the remedies.
    pub after: String,
}

/// The changes, and what is left to the user.
#[derive(Clone, Debug, Default)]
pub struct Fixes {
    /// The files that change.
    pub files: Vec<Patched>,
    /// What has to be fixed by hand, with the reason.
    pub left: Vec<String>,
}

/// One change of a file.
struct Edit {
    file: u32,
    start: usize,
    end: usize,
    text: String,
}

/// The changes that the findings of an audit require.
pub fn fixes(project: &Project, audit: &Audit) -> Fixes {
    let mut edits: Vec<Edit> = Vec::new();
    let mut left = Vec::new();
    let mut declared: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for subject in &audit.subjects {
        let Some(service) = project.service(&subject.service) else { continue };
        let live =
            |rule: Rule| audit.findings.iter().any(|(f, _)| f.rule == rule && f.subject == subject.name && !f.accepted);
        let mut keeps: Vec<Keep> = Vec::new();
        for reading in &subject.readings {
            let lost = reading.survives.values().any(|s| *s == Some(false));
            let wanted = match reading.state {
                State::Plugin => live(Rule::PersistPlugin),
                State::Deps => live(Rule::PersistDeps),
                State::Credential => live(Rule::PersistCredential),
                State::SessionKey => live(Rule::PersistSessionKey),
                State::Data => live(Rule::PersistData),
            } || live(Rule::PersistAnonymousVolume)
                || live(Rule::PersistTmpfs);
            if !lost || !wanted {
                continue;
            }
            let more = remedy::keep(reading, &subject.facts);
            if more.is_empty() {
                let words = remedy::words(&service.name, reading, &subject.facts);
                let first = words.lines().next().unwrap_or_default();
                left.push(format!("{}: fix {} by hand: {first}", subject.name, reading.state));
            }
            for keep in more {
                if !keeps.iter().any(|k| k.target == keep.target) {
                    keeps.push(keep);
                }
            }
        }
        if !keeps.is_empty() {
            match volumes(project, service, &keeps) {
                Some(edit) => {
                    declared.entry(edit.file).or_default().extend(keeps.into_iter().map(|k| k.volume));
                    edits.push(edit);
                }
                None => left.push(format!(
                    "{}: its volumes are defined elsewhere; add by hand\n{}",
                    subject.name,
                    remedy::lines(&service.name, &keeps)
                )),
            }
        }
    }
    for (finding, placed) in audit.findings.iter().filter(|(f, _)| !f.accepted) {
        let Placed::At(span) = placed else { continue };
        let change = match finding.rule {
            Rule::DeployPublishedPort => port,
            Rule::DeployHealthcheck => health,
            _ => continue,
        };
        let subject = audit.subjects.iter().find(|s| s.name == finding.subject);
        let block = subject.and_then(|s| own_block(project, project.service(&s.service)?));
        // An anchored block is shared with other services.
        match change(project, *span).filter(|_| block.is_some_and(|block| within(*span, block))) {
            Some(edit) => edits.push(edit),
            None => left.push(format!("{}: fix {} by hand", finding.subject, finding.rule)),
        }
    }
    for (file, names) in declared {
        edits.extend(declare(project, file, &names));
    }
    Fixes { files: apply(project, edits), left }
}

/// The block of a service in its own file, up to the end of its last line: only this part may be
/// changed.
fn own_block(project: &Project, service: &Service) -> Option<Span> {
    let file = service.at.file;
    let text = &project.sources.get(file)?.text;
    let start = service.at.start as usize;
    let indent = start - line_start(text, start);
    let mut at = after_line(text, service.at.end as usize);
    let mut end = at;
    for line in text[at..].split_inclusive('\n') {
        at += line.len();
        let plain = line.trim();
        if plain.is_empty() || plain.starts_with('#') {
            continue;
        }
        if line.len() - line.trim_start().len() <= indent {
            break;
        }
        end = at;
    }
    Some(Span { end: u32::try_from(end).ok()?, ..service.at })
}

fn line_start(text: &str, offset: usize) -> usize {
    text[..offset].rfind('\n').map_or(0, |n| n + 1)
}

fn within(span: Span, block: Span) -> bool {
    span.file == block.file && span.start >= block.start && span.end <= block.end
}

fn volumes(project: &Project, service: &Service, keeps: &[Keep]) -> Option<Edit> {
    let block = own_block(project, service)?;
    let text = &project.sources.get(block.file)?.text;
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let lines = |indent: &str| -> String {
        keeps.iter().map(|k| format!("{indent}- {}:{}{newline}", k.volume, k.target)).collect()
    };
    let entry = service.node.entries().iter().find(|e| e.key == "volumes");
    if let Some(entry) = entry.filter(|e| !e.value.is_null()) {
        let Kind::List(items) = &entry.value.kind else { return None };
        let last = items.iter().filter(|i| within(i.span, block)).max_by_key(|i| i.span.end)?;
        if !within(entry.at, block) || items.iter().any(|i| !within(i.span, block)) {
            return None;
        }
        let start = line_start(text, last.span.start as usize);
        let lead = &text[start..last.span.start as usize];
        // A flow list, `[a, b]`, has no separate line for each entry.
        let dash = lead.find('-').filter(|n| lead[..*n].trim().is_empty() && lead[n + 1..].trim().is_empty())?;
        let end = after_line(text, last.span.end as usize);
        let gap = if text[..end].ends_with('\n') { "" } else { newline };
        return Some(Edit { file: block.file, start: end, end, text: format!("{gap}{}", lines(&lead[..dash])) });
    }
    if entry.is_some() {
        return None;
    }
    let first = service.node.entries().iter().filter(|e| within(e.at, block)).min_by_key(|e| e.at.start)?;
    let start = line_start(text, first.at.start as usize);
    let indent = &text[start..first.at.start as usize];
    if !indent.trim().is_empty() {
        return None;
    }
    let end = block.end as usize;
    let gap = if text[..end].ends_with('\n') { "" } else { newline };
    Some(Edit {
        file: block.file,
        start: end,
        end,
        text: format!("{gap}{indent}volumes:{newline}{}", lines(&format!("{indent}  "))),
    })
}

fn after_line(text: &str, offset: usize) -> usize {
    text[offset..].find('\n').map_or(text.len(), |n| offset + n + 1)
}

/// Declares top-level volumes in the service's file.
fn declare(project: &Project, file: u32, names: &[String]) -> Option<Edit> {
    let text = &project.sources.get(file)?.text;
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut missing: Vec<&String> = names.iter().filter(|n| !project.volumes.iter().any(|v| v.name == **n)).collect();
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return None;
    }
    // Insert after the last declaration in block form, with the indentation of the first one.
    let mut offset = 0;
    let mut place: Option<(usize, Option<String>)> = None;
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let plain = line.trim_end();
        if plain.starts_with("volumes:") {
            inside = plain.trim_start_matches("volumes:").trim_start().is_empty() || plain.contains(" #");
            if inside {
                place = Some((offset + line.len(), None));
            }
        } else if inside && !plain.is_empty() && !plain.trim_start().starts_with('#') {
            if line.starts_with([' ', '\t']) {
                let indent = line[..line.len() - line.trim_start().len()].to_owned();
                let first = place.take().and_then(|(_, indent)| indent);
                place = Some((offset + line.len(), Some(first.unwrap_or(indent))));
            } else {
                inside = false;
            }
        }
        offset += line.len();
    }
    let (at, indent, head) = match place {
        Some((at, indent)) => (at, indent.unwrap_or_else(|| "  ".to_owned()), String::new()),
        None => (text.len(), "  ".to_owned(), format!("volumes:{newline}")),
    };
    let gap = if text[..at].ends_with('\n') { "" } else { newline };
    let lines: String = missing.iter().map(|n| format!("{indent}{n}:{newline}")).collect();
    Some(Edit { file, start: at, end: at, text: format!("{gap}{head}{lines}") })
}

fn port(project: &Project, span: Span) -> Option<Edit> {
    let written = project.sources.text(span);
    let quote = written.chars().next().filter(|c| matches!(c, '"' | '\''));
    let plain = written.trim_matches(['"', '\'']);
    if plain.contains(['\n', '{', ' ']) && !plain.contains("${") || plain.contains('\n') {
        return None;
    }
    let without = plain.strip_prefix("0.0.0.0:").unwrap_or(plain);
    let depth = lockproof_compose::volume::split(without).len();
    let text = match depth {
        1 => format!("127.0.0.1::{without}"),
        2 => format!("127.0.0.1:{without}"),
        _ => return None,
    };
    let quote = quote.unwrap_or('"');
    Some(Edit {
        file: span.file,
        start: span.start as usize,
        end: span.end as usize,
        text: format!("{quote}{text}{quote}"),
    })
}

fn health(project: &Project, span: Span) -> Option<Edit> {
    let written = project.sources.text(span);
    if written.matches("://").count() != 1 {
        return None;
    }
    let at = written.find("://")? + 3;
    let end =
        written[at..].find(|c: char| c.is_whitespace() || "'\")];|`,".contains(c)).map_or(written.len(), |n| at + n);
    let url = &written[at..end];
    let host = url.split('/').next().unwrap_or(url);
    let start = span.start as usize;
    Some(Edit { file: span.file, start: start + at, end: start + end, text: format!("{host}/login") })
}

fn apply(project: &Project, mut edits: Vec<Edit>) -> Vec<Patched> {
    edits.sort_by_key(|e| (e.file, e.start, e.end));
    let mut files: Vec<Patched> = Vec::new();
    for edit in edits.into_iter().rev() {
        let Some(source) = project.sources.get(edit.file) else { continue };
        if !files.iter().any(|f| f.file == edit.file) {
            files.push(Patched { file: edit.file, before: source.text.to_string(), after: source.text.to_string() });
        }
        if let Some(file) = files.iter_mut().find(|f| f.file == edit.file)
            && file.after.is_char_boundary(edit.start)
            && file.after.is_char_boundary(edit.end)
        {
            file.after.replace_range(edit.start..edit.end, &edit.text);
        }
    }
    files.sort_by_key(|f| f.file);
    files
}

impl Patched {
    /// The change in the format of `diff -u`.
    pub fn diff(&self, name: &str) -> String {
        TextDiff::from_lines(&self.before, &self.after)
            .unified_diff()
            .context_radius(3)
            .header(&format!("a/{name}"), &format!("b/{name}"))
            .to_string()
    }

    /// Writes the file through a temporary file beside it, so that it is never half written.
    ///
    /// # Errors
    /// An environment error if it cannot be written.
    pub fn write(&self, project: &Project) -> Result<()> {
        let Some(source) = project.sources.get(self.file) else { return Ok(()) };
        let failed = |e: &dyn std::fmt::Display| Error::environment(format!("cannot write {}", source.name)).detail(e);
        // A symbolic link: write its target.
        let path = source.path.canonicalize().map_err(|e| failed(&e))?;
        let directory = path.parent().unwrap_or(std::path::Path::new("/"));
        let about = std::fs::metadata(&path).map_err(|e| failed(&e))?;
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|e| failed(&e))?;
        let bom = if source.bom { "\u{feff}" } else { "" };
        std::io::Write::write_all(&mut file, format!("{bom}{}", self.after).as_bytes()).map_err(|e| failed(&e))?;
        file.as_file().set_permissions(about.permissions()).map_err(|e| failed(&e))?;
        file.persist(&path).map_err(|e| failed(&e))?;
        Ok(())
    }
}
