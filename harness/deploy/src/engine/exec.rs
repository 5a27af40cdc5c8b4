//! Runs commands in a running container.

use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, StartExecResults},
};
use futures_util::StreamExt;

use super::{Engine, failed};
use lockproof_model::error::{Error, Result};

/// The size limit of a command's output, in bytes.
const LARGEST: usize = 64 * 1024 * 1024;

/// The output of a command.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The exit code; 126 or 127, as in a shell, if the command could not run.
    pub code: i64,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether the exit code is 0.
    pub fn ok(&self) -> bool {
        self.code == 0
    }

    /// Adds output of the command. Both streams together may have at most `limit` bytes.
    fn take(&mut self, chunk: &LogOutput, limit: usize) -> Result<()> {
        let (stream, message) = match chunk {
            LogOutput::StdErr { message } => (&mut self.stderr, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => (&mut self.stdout, message),
            LogOutput::StdIn { .. } => return Ok(()),
        };
        stream.push_str(&String::from_utf8_lossy(message));
        if self.stdout.len() + self.stderr.len() <= limit {
            return Ok(());
        }
        Err(Error::environment(format!("the command printed more than {limit} bytes"))
            .detail(self.tail(1).chars().take(200).collect::<String>())
            .fix("run it in the container to see what it prints"))
    }

    /// The last `count` lines of both streams, for an error message.
    pub fn tail(&self, count: usize) -> String {
        let both = format!("{}\n{}", self.stdout.trim_end(), self.stderr.trim_end());
        let lines: Vec<&str> = both.lines().filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// A command to run in a container.
#[derive(Clone, Debug, Default)]
pub struct Command {
    words: Vec<String>,
    env: Vec<String>,
    user: Option<String>,
    directory: Option<String>,
}

impl Command {
    /// A command of these `words`, run as the container's own user.
    pub fn new<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Runs as another user.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Runs in another directory.
    #[must_use]
    pub fn directory(mut self, directory: &str) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }
}

impl Engine {
    /// Runs a command in a running container and waits for it.
    ///
    /// # Errors
    /// An environment error if the container is not running or the engine fails. A command that
    /// fails is not an error: see [`Output::code`].
    pub async fn exec(&self, container: &str, command: Command) -> Result<Output> {
        let doing = format!("running `{}` in the container", command.words.join(" "));
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.words),
            env: Some(command.env),
            user: command.user,
            working_dir: command.directory,
            ..Default::default()
        };
        let id = self.docker.create_exec(container, options).await.map_err(|e| failed(&doing, &e))?.id;
        let mut output = Output::default();
        match self.docker.start_exec(&id, None).await.map_err(|e| failed(&doing, &e))? {
            StartExecResults::Detached => {}
            StartExecResults::Attached { output: mut stream, .. } => {
                while let Some(chunk) = stream.next().await {
                    output.take(&chunk.map_err(|e| failed(&doing, &e))?, LARGEST).map_err(|e| e.or_at(&doing))?;
                }
            }
        }
        let ended = self.docker.inspect_exec(&id).await.map_err(|e| failed(&doing, &e))?;
        output.code = ended.exit_code.unwrap_or(-1);
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_prints_without_end_is_an_error_that_names_the_limit() {
        let mut output = Output::default();
        let chunk = |text: &'static str| LogOutput::StdOut { message: text.into() };
        output.take(&chunk("yes\n"), 10).expect("it is short");
        output.take(&LogOutput::StdErr { message: "no\n".into() }, 10).expect("it is short");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("yes\n", "no\n"));
        let error = output.take(&chunk("yes\n"), 10).expect_err("11 bytes");
        assert!(error.to_string().contains("printed more than 10 bytes"), "{error}");
    }
}
