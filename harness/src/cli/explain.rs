//! `lockproof explain`.

use clap::Args;

use super::{output::print, style::Style};
use lockproof_model::{error::Result, exit, finding::Rule};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The rule, such as lock/open. Without it, all rules are listed.
    rule: Option<String>,
}

pub(super) fn run(arguments: &Arguments, style: &Style) -> Result<u8> {
    let text = match &arguments.rule {
        None => Rule::ALL
            .iter()
            .map(|rule| format!("{:<26} {:<8} {}\n", rule.id(), rule.severity().to_string(), rule.facts().title))
            .collect(),
        Some(name) => page(name.parse()?, style),
    };
    print(&text)?;
    Ok(exit::OK)
}

fn page(rule: Rule, style: &Style) -> String {
    let facts = rule.facts();
    let heading = |text: &str| if style.stdout_colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() };
    let mut page = format!("{} ({})\n{}\n", heading(rule.id()), rule.severity(), facts.title);
    for (name, text) in [("Why", &facts.why), ("Evidence", &facts.evidence), ("Remedy", &facts.remedy)] {
        page.push_str(&format!("\n{}\n{}\n", heading(name), wrap(text, usize::from(style.width))));
    }
    if !rule.acceptable() {
        page.push_str("\nThis rule cannot be accepted with `accept:`.\n");
    }
    page
}

fn wrap(text: &str, width: usize) -> String {
    let mut lines = Vec::new();
    for paragraph in text.trim().lines() {
        // Leading white space marks code.
        if paragraph.starts_with(' ') {
            lines.push(paragraph.to_owned());
            continue;
        }
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join("\n")
}
