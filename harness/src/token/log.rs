//! Finds the token in a server's log: ComfyUI-Login prints it at each start.

use std::sync::OnceLock;

use regex::Regex;

/// The token in a log: after the last `token=`, else the last bcrypt hash. The log also contains
/// tokens of earlier starts; even the last one may be outdated.
pub fn token_in_log(text: &str) -> Option<String> {
    static NAMED: OnceLock<Option<Regex>> = OnceLock::new();
    static HASH: OnceLock<Option<Regex>> = OnceLock::new();
    let named = NAMED.get_or_init(|| Regex::new(r"\btoken=([!-~]*[./A-Za-z0-9])").ok()).as_ref()?;
    let hash = HASH.get_or_init(|| Regex::new(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}").ok()).as_ref()?;
    // Lines with colour codes, and JSON with the log as one string.
    let hash_in = |text: &str| hash.find_iter(text).last().map(|found| found.as_str().to_owned());
    hash_in(text).or_else(|| {
        let found = named.captures_iter(text).filter_map(|c| c.get(1)).last()?;
        Some(found.as_str().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2b$12$abcdefghijklmnopqrstuuC1B2./DEFGHIJKLMNOPQRSTUVWXYZ1a";

    #[test]
    fn the_last_token_of_a_log_is_meant() {
        let old = HASH.replace("abc", "old");
        let text =
            format!("start\nFor direct API calls, use token={old}\nstart\nFor direct API calls, use token={HASH}\n");
        assert_eq!(token_in_log(&text).as_deref(), Some(HASH));
        assert_eq!(token_in_log(&format!("{{\"m\": \"use token={HASH}\\n\"}}")).as_deref(), Some(HASH));
        assert_eq!(token_in_log("use token=plain-Token_1.\n").as_deref(), Some("plain-Token_1."));
        assert_eq!(token_in_log("no password is set yet\n"), None);
    }
}
