//! Progress output: one bar per subject on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::style::Style;
use crate::gate::Listener;
use lockproof_model::{report::EventReport, secret};

/// Progress and diagnostics on standard error.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    bars: MultiProgress,
    subjects: Arc<Mutex<BTreeMap<String, ProgressBar>>>,
    begun: Instant,
    moving: bool,
    quiet: bool,
}

impl Talk {
    /// Sets up progress output. Log lines go through it too, so that they do not break the bars.
    pub(super) fn begin(style: &Style, verbose: u8, quiet: bool) -> Self {
        let moving = style.bars && !quiet && verbose == 0;
        let target = if moving { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let talk = Self {
            bars: MultiProgress::with_draw_target(target),
            subjects: Arc::default(),
            begun: Instant::now(),
            moving,
            quiet,
        };
        let level = match (quiet, verbose) {
            (true, _) => "lockproof=warn",
            (false, 0) => "lockproof=info",
            (false, 1) => "lockproof=debug",
            (false, _) => "lockproof=trace,bollard=debug",
        };
        let filter = EnvFilter::try_from_env("LOCKPROOF_LOG").unwrap_or_else(|_| EnvFilter::new(level));
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(LogWriter(talk.clone()))
            .with_ansi(style.stderr_colour)
            .without_time()
            .with_target(false)
            .finish();
        // A second run in the same process, as in tests, keeps the first subscriber.
        let _already = tracing::subscriber::set_global_default(subscriber);
        talk
    }

    /// Whether progress bars are drawn.
    pub(super) fn shows_bars(&self) -> bool {
        self.moving
    }

    /// Prints one line above the bars.
    pub(super) fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        let text = secret::redact(text);
        if self.moving {
            let _hidden = self.bars.println(text);
        } else {
            let _unwritable = writeln!(std::io::stderr(), "{text}");
        }
    }

    fn bar(&self, subject: &str) -> ProgressBar {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        subjects
            .entry(subject.to_owned())
            .or_insert_with(|| {
                let bar = self.bars.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:20} {wide_msg} {elapsed}") {
                    bar.set_style(style);
                }
                bar.set_prefix(subject.to_owned());
                if self.moving {
                    bar.enable_steady_tick(Duration::from_millis(120));
                }
                bar
            })
            .clone()
    }
}

impl Listener for Talk {
    fn step(&self, subject: &str, step: &str) {
        if self.moving {
            self.bar(subject).set_message(step.to_owned());
        } else {
            tracing::debug!("{subject}: {step}");
        }
    }

    fn event(&self, subject: &str, event: &EventReport) {
        let what = match (&event.verdict, &event.skipped, &event.undecided) {
            (Some(verdict), _, _) => verdict.to_string(),
            (_, Some(why), _) => format!("skipped: {why}"),
            (_, _, Some(why)) => format!("undecided: {why}"),
            (None, None, None) => String::new(),
        };
        let mark = match event.as_it_must_be() {
            Some(false) => "✗",
            Some(true) => "✓",
            None => "–",
        };
        let seconds = self.begun.elapsed().as_secs_f32();
        self.line(&format!("{seconds:>6.1}s {mark} {subject}: {:<10} {what}", event.event));
    }

    fn done(&self, subject: &str) {
        if self.moving {
            self.bar(subject).finish_and_clear();
        }
    }
}

/// Writes log lines above the bars, with secrets redacted.
#[derive(Clone)]
struct LogWriter(Talk);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = secret::redact(&String::from_utf8_lossy(bytes));
        if self.0.moving {
            self.0.bars.println(text.trim_end())?;
        } else {
            std::io::stderr().write_all(text.as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}
