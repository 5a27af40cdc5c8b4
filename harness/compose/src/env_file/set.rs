//! Sets or finds a variable in the text of a `.env` file.

use super::{Assignment, Spelling, assignments, spell};
use lockproof_model::error::{Error, Result};

/// `text` with `name` set to `value`: replaces the effective assignment, else appends one. Removes
/// earlier assignments of the same name, which have no effect. Keeps line endings, a missing final
/// newline, `export` and a comment after the value.
///
/// # Errors
/// A usage error if there is no spelling of `value` that all programs read in the same way, or if
/// an unclosed quote would include it.
pub fn set(text: &str, name: &str, value: &str, spelling: Spelling) -> Result<String> {
    let out = put(text, name, value, spelling)?;
    // An unclosed quote may end in or after the new line.
    if spelling == Spelling::Quoted && get(&out, name).is_none_or(|now| now.text != value) {
        let open = assignments(text).into_iter().find(|a| a.quote.is_none() && a.text.starts_with(['"', '\'']));
        let number = open.map_or(1, |a| a.number);
        return Err(Error::usage(format!("cannot read {name} back: an unclosed quote includes the lines after it"))
            .detail(format!("the quote opens in line {number}"))
            .fix("close that quote, or remove the line"));
    }
    Ok(out)
}

fn put(text: &str, name: &str, value: &str, spelling: Spelling) -> Result<String> {
    let spelled = spell::spell(value, spelling)?;
    let ours: Vec<Assignment> = assignments(text).into_iter().filter(|a| a.name == name).collect();
    let Some((last, shadowed)) = ours.split_last() else {
        return Ok(append(text, name, &spelled, spelling));
    };
    let mut out = String::with_capacity(text.len() + spelled.len());
    let mut at = 0;
    for assignment in shadowed {
        out.push_str(&text[at..assignment.line.start]);
        at = assignment.line.end;
    }
    out.push_str(&text[at..last.value.start]);
    // `NAME = value`, which a shell cannot read, becomes `NAME=value`.
    out.push('=');
    out.push_str(&spelled);
    let rest = &text[last.value.end..];
    // For literal readers, the comment would be part of the value.
    let rest = if spelling == Spelling::Literal { &text[last.line_content_end(text)..] } else { rest };
    let ends_with_cr = rest.starts_with("\r\n");
    if ends_with_cr && spelling == Spelling::Quoted {
        out.push_str(CR_GUARD);
    }
    out.push_str(rest);
    Ok(out)
}

/// In a file with CRLF, a shell reads the CR as part of the value unless it is in a comment.
const CR_GUARD: &str = " #";

fn append(text: &str, name: &str, spelled: &str, spelling: Spelling) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let guard = if newline == "\r\n" && spelling == Spelling::Quoted { CR_GUARD } else { "" };
    let line = format!("{name}={spelled}{guard}");
    match text {
        "" => format!("{line}\n"),
        _ if text.ends_with('\n') => format!("{text}{line}{newline}"),
        _ => format!("{text}{newline}{line}"),
    }
}

/// The effective assignment of `name`, as read by Compose v2 and a shell.
pub fn get(text: &str, name: &str) -> Option<Assignment> {
    assignments(text).into_iter().rfind(|a| a.name == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const TOKEN_VALUE: &str = "$2b$12$abcdefghijklmnopqrstuuC1B2./DEFGHIJKLMNOPQRSTUVWXYZ1a";

    #[rstest]
    #[case::empty("", "T='$a'\n")]
    #[case::others_stay("# a\nX=1\n\nY=\"a b\" # c\n", "# a\nX=1\n\nY=\"a b\" # c\nT='$a'\n")]
    #[case::no_final_newline("X=1", "X=1\nT='$a'")]
    #[case::crlf("X=1\r\n", "X=1\r\nT='$a' #\r\n")]
    #[case::replaced("X=1\nT=old\nY=2\n", "X=1\nT='$a'\nY=2\n")]
    #[case::replaced_at_the_end("X=1\nT=old", "X=1\nT='$a'")]
    #[case::replaced_in_crlf("T=old\r\nY=2\r\n", "T='$a' #\r\nY=2\r\n")]
    #[case::replaced_again_in_crlf("T='x' #\r\nY=2\r\n", "T='$a' #\r\nY=2\r\n")]
    #[case::export("  export T=\"old\"\n", "  export T='$a'\n")]
    #[case::spaces("T = old\n", "T='$a'\n")]
    #[case::comment("T=old # ours\n", "T='$a' # ours\n")]
    #[case::empty_value("T=\nX=1\n", "T='$a'\nX=1\n")]
    #[case::no_value("T\nX=1\n", "T\nX=1\nT='$a'\n")]
    #[case::twice("T=1\nX=1\nT=2\nY=1\n", "X=1\nT='$a'\nY=1\n")]
    #[case::commented_out("#T=old\n", "#T=old\nT='$a'\n")]
    #[case::another_name("XT=1\nT_=2\n", "XT=1\nT_=2\nT='$a'\n")]
    #[case::inside_another_value("X='\nT=inner\n'\n", "X='\nT=inner\n'\nT='$a'\n")]
    #[case::a_quote_that_does_not_end("X='a\nT=old\n", "X='a\nT='$a'\n")]
    #[case::over_two_lines("T='a\nb'\nX=1\n", "T='$a'\nX=1\n")]
    fn one_variable_is_set_and_all_else_stays(#[case] before: &str, #[case] after: &str) {
        assert_eq!(set(before, "T", "$a", Spelling::Quoted).ok().as_deref(), Some(after));
        let again = set(after, "T", "$a", Spelling::Quoted).ok();
        assert_eq!(again.as_deref(), Some(after), "a second time changes nothing");
    }

    #[test]
    fn a_quote_that_would_take_the_token_in_is_an_error_with_its_line() {
        let error = set("A=1\nY=\"\nT=\"\"\n\\\\\"", "T", TOKEN_VALUE, Spelling::Quoted).expect_err("refused");
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[rstest]
    #[case("T='old' # ours\n", "T=$a\n")]
    #[case("X=1\r\n", "X=1\r\nT=$a\r\n")]
    #[case("", "T=$a\n")]
    fn a_file_for_docker_run_holds_the_bytes_themselves(#[case] before: &str, #[case] after: &str) {
        assert_eq!(set(before, "T", "$a", Spelling::Literal).ok().as_deref(), Some(after));
    }

    #[rstest]
    #[case("it's")]
    #[case("a\\b")]
    #[case("${HOME}")]
    #[case("a\nb")]
    #[case("")]
    #[case("ü")]
    fn what_readers_would_read_differently_is_refused(#[case] value: &str) {
        assert!(set("", "T", value, Spelling::Quoted).is_err());
    }

    proptest! {
        /// Whatever stands in the file: the value is read back, a second write changes nothing, and
        /// no other assignment changes.
        #[test]
        fn a_written_value_is_read_back(
            lines in proptest::collection::vec("(T|X|export T|#T|  Y)?=?['\"]?[a-z$ #\\\\]{0,6}['\"]?", 0..8),
            newline in prop_oneof![Just("\n"), Just("\r\n")],
            last in any::<bool>(),
        ) {
            let mut text = lines.join(newline);
            if last { text.push_str(newline); }
            let Ok(written) = set(&text, "T", TOKEN_VALUE, Spelling::Quoted) else {
                // Only a quote that does not end keeps it from being written.
                let open = |a: &Assignment| a.quote.is_none() && a.text.starts_with(['"', '\'']);
                prop_assert!(assignments(&text).iter().any(open), "refused: {text:?}");
                return Ok(());
            };
            prop_assert_eq!(get(&written, "T").expect("it is there").text, TOKEN_VALUE);
            prop_assert_eq!(&set(&written, "T", TOKEN_VALUE, Spelling::Quoted).expect("again"), &written);
            let others = |text: &str| -> Vec<(String, String)> {
                assignments(text).into_iter().filter(|a| a.name != "T").map(|a| (a.name, a.text)).collect()
            };
            prop_assert_eq!(others(&text), others(&written));
        }
    }
}
