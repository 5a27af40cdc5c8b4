//! `--report FORMAT=PATH`: parsed from the command line, created before the work, written after it.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{format::Format, formats::FORMATS};
use lockproof_model::{
    error::{Error, Result},
    report::Report,
};

/// A requested report: its format and path.
#[derive(Clone)]
pub struct ReportTarget {
    format: &'static dyn Format,
    path: PathBuf,
}

impl fmt::Debug for ReportTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.format.name(), self.path.display())
    }
}

impl FromStr for ReportTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((name, path)) = text.split_once('=') else {
            return Err(Error::usage(format!("invalid report `{text}`"))
                .fix(format!("write FORMAT=PATH, for example {}", example(text))));
        };
        let format = find(name)?;
        if path.is_empty() {
            return Err(Error::usage(format!("the report `{text}` has no path"))
                .fix(format!("write {name}=PATH, for example {}", example(name))));
        }
        Ok(Self { format, path: PathBuf::from(path) })
    }
}

/// The format of that name.
fn find(name: &str) -> Result<&'static dyn Format> {
    if let Some(format) = FORMATS.into_iter().find(|format| format.name() == name) {
        return Ok(format);
    }
    let all = format!("supported formats: {}", FORMATS.map(Format::name).join(", "));
    let fix = match nearest(name) {
        Some(known) => format!("did you mean `{known}`? {all}"),
        None => all,
    };
    Err(Error::usage(format!("unknown report format `{name}`")).fix(fix))
}

/// The intended format: similar to `name`, or known by it as an alias.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    match name.as_str() {
        "xml" => return Some("junit"),
        "md" => return Some("markdown"),
        "jsonl" => return Some("ndjson"),
        "htm" => return Some("html"),
        _ => {}
    }
    FORMATS
        .into_iter()
        .map(|format| (strsim::damerau_levenshtein(format.name(), &name), format.name()))
        .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// A valid target, derived from the invalid one.
fn example(text: &str) -> String {
    let extension = Path::new(text).extension().and_then(|e| e.to_str());
    match (extension.and_then(nearest), nearest(text)) {
        (Some(format), _) => format!("{format}={text}"),
        (None, Some("junit")) => "junit=junit.xml".to_owned(),
        (None, Some("markdown")) => "markdown=report.md".to_owned(),
        (None, Some(format)) => format!("{format}=report.{format}"),
        (None, None) => "json=report.json".to_owned(),
    }
}

impl ReportTarget {
    /// Where it goes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of its format.
    pub fn format(&self) -> &'static str {
        self.format.name()
    }

    /// Creates the file, empty, before the work begins.
    ///
    /// Its old content is lost: a report of another run must not be mistaken for this one's. Read a
    /// `--baseline` first.
    ///
    /// # Errors
    /// A usage error if the file cannot be created.
    pub fn open(&self) -> Result<OpenReport> {
        let file = File::create(&self.path).map_err(|e| self.cannot_make(&e))?;
        Ok(OpenReport { target: self.clone(), file })
    }

    fn cannot_make(&self, error: &io::Error) -> Error {
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let fix = if self.path.is_dir() {
            "it is a directory: use a file in it".to_owned()
        } else if !directory.exists() {
            format!("create its directory first: mkdir -p {}", directory.display())
        } else {
            "use a writable path".to_owned()
        };
        Error::usage(format!("cannot create the report {}: {error}", self.path.display()))
            .at(format!("--report {self:?}"))
            .fix(fix)
    }
}

/// Creates the files of all targets.
///
/// # Errors
/// A usage error if one of them cannot be created, or two have the same path.
pub fn open_all(targets: &[ReportTarget]) -> Result<Vec<OpenReport>> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = targets.iter().find(|target| !seen.insert(&target.path)) {
        return Err(Error::usage(format!("two reports have the path {}", twice.path.display()))
            .at(format!("--report {twice:?}"))
            .fix("use a different path for each"));
    }
    targets.iter().map(ReportTarget::open).collect()
}

/// A report file that is created but not written yet.
#[derive(Debug)]
pub struct OpenReport {
    target: ReportTarget,
    file: File,
}

impl OpenReport {
    /// Writes the report at once, even after a failed run.
    ///
    /// # Errors
    /// An environment error if it cannot be written, for example because the disk is full.
    pub fn write(mut self, report: &Report) -> Result<()> {
        let bytes = self.target.format.render(report)?;
        self.file.write_all(&bytes).and_then(|()| self.file.flush()).map_err(|e| {
            Error::environment(format!("cannot write the report {}: {e}", self.target.path.display()))
                .at(format!("--report {:?}", self.target))
                .fix("check the disk space and permissions, or use another path")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use lockproof_model::error::ErrorKind;

    fn wrong(text: &str) -> String {
        let error = text.parse::<ReportTarget>().expect_err("it is wrong");
        assert_eq!(error.kind(), ErrorKind::Usage);
        error.to_string()
    }

    #[test]
    fn a_target_is_a_format_and_a_path_that_may_hold_an_equals_sign() {
        let target: ReportTarget = "json=out/a=b.json".parse().expect("it is right");
        assert_eq!((target.format(), target.path()), ("json", Path::new("out/a=b.json")));
    }

    #[test]
    fn a_wrong_target_says_what_would_be_right() {
        let shown = ["jsn=a", "xml=a", "pdf=a", "report.xml", "report", "json=", "="].map(wrong);
        insta::assert_snapshot!(shown.join("\n"), @r"
        unknown report format `jsn`
          = help: did you mean `json`? supported formats: json, junit, sarif, html, markdown, ndjson
        unknown report format `xml`
          = help: did you mean `junit`? supported formats: json, junit, sarif, html, markdown, ndjson
        unknown report format `pdf`
          = help: supported formats: json, junit, sarif, html, markdown, ndjson
        invalid report `report.xml`
          = help: write FORMAT=PATH, for example junit=report.xml
        invalid report `report`
          = help: write FORMAT=PATH, for example json=report.json
        the report `json=` has no path
          = help: write json=PATH, for example json=report.json
        unknown report format ``
          = help: supported formats: json, junit, sarif, html, markdown, ndjson
        ");
    }

    #[test]
    fn a_path_that_cannot_be_made_is_a_usage_error_before_the_work() {
        let directory = tempfile::tempdir().expect("a directory");
        for (path, help) in [("missing/r.json", "mkdir -p"), ("", "use a file in it")] {
            let path = directory.path().join(path);
            let target: ReportTarget = format!("json={}", path.display()).parse().expect("a target");
            let error = target.open().expect_err("it cannot be made");
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains(help), "{error}");
        }
    }

    #[test]
    fn two_reports_cannot_share_a_path() {
        let targets =
            ["json=/tmp/lockproof-same", "html=/tmp/lockproof-same"].map(|text| text.parse().expect("a target"));
        let error = open_all(&targets).expect_err("they are the same").to_string();
        assert!(error.contains("two reports have the path /tmp/lockproof-same"), "{error}");
    }

    #[test]
    fn a_report_replaces_what_the_file_held() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("r.json");
        std::fs::write(&path, "x".repeat(100_000)).expect("written");
        let target: ReportTarget = format!("json={}", path.display()).parse().expect("a target");
        let open = target.open().expect("made");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"");
        open.write(&sample::report()).expect("written");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(Report::from_json(&text, "r.json").expect("a report"), sample::report());
    }
}
