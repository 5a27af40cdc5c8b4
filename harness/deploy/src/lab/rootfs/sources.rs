//! Selects the apt sources of the machine's own distribution.
//!
//! Pure functions: text in, entries out. Both formats are read (`*.list`, one entry per line, and
//! `*.sources`, deb822 stanzas). The output is always deb822, because only this format can contain
//! an inline key.

use std::fmt::Write as _;

/// The components of Debian and Ubuntu. An entry with any other is a third-party archive.
const COMPONENTS: [&str; 7] =
    ["main", "contrib", "non-free", "non-free-firmware", "restricted", "universe", "multiverse"];

/// The distribution, from `/etc/os-release`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    /// `ID`, then `ID_LIKE`: `["ubuntu", "debian"]`.
    pub(super) ids: Vec<String>,
    /// The code name of the distribution, then that of its parent.
    pub(super) codenames: Vec<String>,
}

impl Release {
    /// Parses os-release(5).
    pub(super) fn parse(text: &str) -> Self {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.trim().split_once('='))
                .filter(|(name, _)| *name == key)
                .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_lowercase())
                .find(|value| !value.is_empty())
        };
        let words = |keys: &[&str]| {
            let mut found: Vec<String> = Vec::new();
            for word in keys.iter().filter_map(|key| value(key)) {
                for word in word.split_whitespace() {
                    if !found.iter().any(|known| known == word) {
                        found.push(word.to_owned());
                    }
                }
            }
            found
        };
        Self {
            ids: words(&["ID", "ID_LIKE"]),
            codenames: words(&["VERSION_CODENAME", "UBUNTU_CODENAME", "DEBIAN_CODENAME"]),
        }
    }

    /// Whether the system uses apt.
    pub(super) fn is_debian_like(&self) -> bool {
        self.ids.iter().any(|id| id == "debian" || id == "ubuntu")
    }

    /// The distribution's name, for messages.
    pub(super) fn name(&self) -> &str {
        self.ids.first().map_or("unknown", String::as_str)
    }
}

/// One entry for binary packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) uris: Vec<String>,
    pub(super) suites: Vec<String>,
    pub(super) components: Vec<String>,
    /// The other options, as deb822 fields: `("Signed-By", "/usr/share/keyrings/….gpg")`.
    pub(super) options: Vec<(String, String)>,
}

impl Entry {
    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Keeps the suites of the release itself: a base system does not need back-ports, proposed
    /// updates and third-party suites.
    fn narrowed_to(&self, codename: &str) -> Option<Self> {
        let own = ["", "-updates", "-security", "/updates"].map(|rest| format!("{codename}{rest}"));
        let suites: Vec<String> = self.suites.iter().filter(|suite| own.contains(suite)).cloned().collect();
        let components_known = self.components.iter().all(|component| COMPONENTS.contains(&component.as_str()));
        let reachable = self
            .uris
            .iter()
            // apt in the new root would look for these paths inside it.
            .all(|uri| !["cdrom:", "file:", "copy:"].iter().any(|scheme| uri.starts_with(scheme)));
        (!suites.is_empty() && !self.components.is_empty() && components_known && reachable)
            .then(|| Self { suites, ..self.clone() })
    }

    /// Whether the entry clearly belongs to the distribution: signed with its archive key or,
    /// without a named key, below a path with its name. The latter also applies to personal
    /// archives, which are recognised by their path.
    fn is_plainly_of(&self, ids: &[String]) -> bool {
        match self.option("Signed-By") {
            Some(keys) => keys.split([' ', ',', '\n']).any(|key| {
                let file = key.rsplit('/').next().unwrap_or(key);
                ids.iter().any(|id| file.starts_with(&format!("{id}-archive")))
            }),
            None => self.uris.iter().all(|uri| ids.iter().any(|id| uri.contains(id.as_str())) && !uri.contains("ppa")),
        }
    }
}

/// The distribution's entries, and their code name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) codename: String,
    pub(super) entries: Vec<Entry>,
}

/// Selects the entries of the distribution; `None` if they do not contain the release.
///
/// Third-party archives use the distribution's code name as their suite, so the suite alone does
/// not identify the distribution:
///
/// | entry | selected |
/// |---|---|
/// | another suite, component or medium | never |
/// | signed with the distribution's key, or no named key and a path with its name | always |
/// | anything else (such as a company's mirror with its own key) | if the line above has no release |
pub(super) fn select(entries: &[Entry], release: &Release) -> Option<Selection> {
    release.codenames.iter().find_map(|codename| {
        let candidates: Vec<Entry> = entries.iter().filter_map(|entry| entry.narrowed_to(codename)).collect();
        let plain: Vec<Entry> = candidates.iter().filter(|entry| entry.is_plainly_of(&release.ids)).cloned().collect();
        [plain, candidates]
            .into_iter()
            .find(|entries| entries.iter().any(|entry| entry.suites.contains(codename)))
            .map(|entries| Selection { codename: codename.clone(), entries })
    })
}

/// Renders entries as deb822.
pub(super) fn render(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let fields = [("URIs", &entry.uris), ("Suites", &entry.suites), ("Components", &entry.components)];
        text.push_str("Types: deb\n");
        for (name, words) in fields {
            let _infallible = writeln!(text, "{name}: {}", words.join(" "));
        }
        for (name, value) in &entry.options {
            let _infallible = writeln!(text, "{name}: {value}");
        }
        text.push('\n');
    }
    text
}

/// Parses the one-line format: `deb [signed-by=KEY] URI SUITE COMPONENT…`.
pub(super) fn parse_one_line(text: &str) -> Vec<Entry> {
    text.lines().filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None; // deb-src
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Entry {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        options: options.split_whitespace().filter_map(one_line_option).collect(),
    })
}

/// Field names are case-insensitive, so only abbreviated ones need their long form. `arch+=…` and
/// `arch-=…` are ignored: the new root has one architecture.
fn one_line_option(option: &str) -> Option<(String, String)> {
    let (name, value) = option.split_once('=')?;
    if name.ends_with(['+', '-']) {
        return None;
    }
    let name = match name {
        "arch" => "Architectures",
        "lang" => "Languages",
        "target" => "Targets",
        "signed-by" => "Signed-By",
        other => other,
    };
    Some((name.to_owned(), value.replace(',', " ")))
}

/// Parses deb822 stanzas, without disabled entries and source packages.
pub(super) fn parse_deb822(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut stanza: Vec<(String, String)> = Vec::new();
    // The empty line at the end closes the last stanza.
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            entries.extend(stanza_entry(std::mem::take(&mut stanza)));
        } else if line.starts_with('#') {
            // A comment may be inside a stanza.
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line.trim_end());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    entries
}

fn stanza_entry(stanza: Vec<(String, String)>) -> Option<Entry> {
    let mut entry = Entry::default();
    let mut binary = false;
    for (name, value) in stanza {
        let words = || value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match name.to_lowercase().as_str() {
            "types" => binary = words().iter().any(|kind| kind == "deb"),
            "uris" => entry.uris = words(),
            "suites" => entry.suites = words(),
            "components" => entry.components = words(),
            "enabled" if ["no", "false", "without", "off", "disable", "0"].contains(&value.to_lowercase().as_str()) => {
                return None;
            }
            "enabled" => {}
            name if name.starts_with("x-") => {}
            _ => entry.options.push((name, value)),
        }
    }
    (binary && !entry.uris.is_empty()).then_some(entry)
}

/// The settings by which apt reaches its archives: proxies, certificates, time-outs, date checks.
/// Input and output have the format of `apt-config dump`.
///
/// Settings about what to download (desktop indexes, translations) are left out.
pub(super) fn transport_settings(dump: &str) -> String {
    const STAY: [&str; 7] =
        ["indextargets", "languages", "compressiontypes", "gzipindexes", "changelogs", "cdrom", "pdiffs"];
    let mut settings = String::new();
    for line in dump.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        let name = name.to_lowercase();
        let mut path = name.split("::");
        let is_transport = path.next() == Some("acquire")
            && path.next().is_some_and(|section| !section.is_empty() && !STAY.contains(&section));
        if is_transport && value != "\"\";" {
            settings.push_str(line);
            settings.push('\n');
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
    const UBUNTU: &str = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n";
    const MINT: &str = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_CODENAME=virginia\nUBUNTU_CODENAME=jammy\n";

    fn selected(entries: &[Entry], os_release: &str) -> Option<(String, Vec<String>)> {
        let selection = select(entries, &Release::parse(os_release))?;
        let shown = selection
            .entries
            .iter()
            .map(|entry| format!("{} {}", entry.uris.join(" "), entry.suites.join(" ")))
            .collect();
        Some((selection.codename, shown))
    }

    #[test]
    fn os_release_gives_names_and_code_names_once_each() {
        let mint = Release::parse(MINT);
        assert_eq!(mint.ids, ["linuxmint", "ubuntu", "debian"]);
        assert_eq!(mint.codenames, ["virginia", "jammy"]);
        assert_eq!(Release::parse(UBUNTU).codenames, ["noble"]);
        assert!(mint.is_debian_like());
        let fedora = Release::parse("ID=fedora\nVERSION_ID=42\nVERSION_CODENAME=\"\"\n");
        assert!(!fedora.is_debian_like());
        assert_eq!(fedora.name(), "fedora");
        assert_eq!(fedora.codenames, Vec::<String>::new());
    }

    #[test]
    fn one_line_entries_are_read_with_their_options() {
        let entries = parse_one_line(
            "# deb http://off.mirror.example/debian bookworm main\n\
             deb http://mirror.example/debian bookworm main contrib # trailing\n\
             deb-src http://mirror.example/debian bookworm main\n\
             deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/k.gpg arch+=i386] https://mirror.example/debian bookworm-updates main\n\
             deb cdrom:[Debian GNU/Linux 12 _Bookworm_]/ bookworm main\n\
             debug nonsense\n\
             deb http://half.mirror.example\n",
        );
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].components, ["main", "contrib"]);
        assert_eq!(
            entries[1].options,
            [
                ("Architectures".to_owned(), "amd64 arm64".to_owned()),
                ("Signed-By".to_owned(), "/usr/share/keyrings/k.gpg".to_owned()),
            ]
        );
        assert_eq!(entries[1].suites, ["bookworm-updates"]);
    }

    #[test]
    fn deb822_stanzas_are_read_with_comments_continuations_and_embedded_keys() {
        let text = "# head\n\
            Types: deb deb-src\n\
            # a comment within\n\
            URIs: http://mirror.example/ubuntu\n \x20http://second.mirror.example/ubuntu\n\
            suites: noble noble-updates noble-backports\n\
            Components: main universe\n\
            Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQIN\n -----END PGP PUBLIC KEY BLOCK-----\n\
            X-Repolib-Name: mine\n\
            \n\n\
            Types: deb-src\nURIs: http://mirror.example/ubuntu\nSuites: noble\nComponents: main\n\
            \n\
            Enabled: no\nTypes: deb\nURIs: http://mirror.example/ubuntu\nSuites: noble\nComponents: main\n";
        let entries = parse_deb822(text);
        assert_eq!(entries.len(), 1);
        let entry = &entries[0];
        assert_eq!(entry.uris, ["http://mirror.example/ubuntu", "http://second.mirror.example/ubuntu"]);
        assert_eq!(entry.suites, ["noble", "noble-updates", "noble-backports"]);
        assert_eq!(entry.options.len(), 1);
        assert_eq!(parse_deb822(&render(&entries)), entries);
    }

    #[test]
    fn both_formats_are_written_and_read_back_unchanged() {
        let entries = parse_one_line(
            "deb [signed-by=/k/a.gpg,/k/b.gpg trusted=yes] http://mirror.example/debian bookworm main\n",
        );
        assert_eq!(
            render(&entries),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n\
             Signed-By: /k/a.gpg /k/b.gpg\ntrusted: yes\n\n"
        );
        assert_eq!(parse_deb822(&render(&entries)), entries);
    }

    #[test]
    fn a_debian_machine_keeps_its_release_its_updates_and_its_security_fixes() {
        let entries = parse_one_line(
            "deb http://mirror.example/debian bookworm main non-free-firmware\n\
             deb http://mirror.example/debian bookworm-updates main\n\
             deb http://mirror.example/debian bookworm-backports main\n\
             deb http://security.mirror.example/debian-security bookworm-security main\n\
             deb [signed-by=/etc/apt/keyrings/engine.gpg] https://engine.example/linux/debian bookworm stable\n\
             deb [signed-by=/usr/share/keyrings/tools-archive-keyring.gpg] https://tools.example bookworm main\n\
             deb https://db.example/apt bookworm-db main\n\
             deb https://browser.example/chrome/deb stable main\n\
             deb cdrom:[x]/ bookworm main\n\
             deb http://mirror.example/debian bookworm/\n",
        );
        let (codename, shown) = selected(&entries, DEBIAN).expect("the release is there");
        assert_eq!(codename, "bookworm");
        assert_eq!(
            shown,
            [
                "http://mirror.example/debian bookworm",
                "http://mirror.example/debian bookworm-updates",
                "http://security.mirror.example/debian-security bookworm-security",
            ]
        );
    }

    #[test]
    fn an_ubuntu_machine_keeps_the_suites_of_a_stanza_that_it_needs_and_no_personal_archive() {
        let mut entries = parse_deb822(
            "Types: deb\nURIs: http://mirror.example/ubuntu/\nSuites: noble noble-updates noble-backports\n\
             Components: main restricted universe multiverse\n\
             Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n\n\
             Types: deb\nURIs: http://personal.example/somebody/ppa/ubuntu\nSuites: noble\nComponents: main\n\
             Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n ab\n -----END PGP PUBLIC KEY BLOCK-----\n",
        );
        entries.extend(parse_one_line("deb http://personal.example/other/ppa/ubuntu noble main\n"));
        let (codename, shown) = selected(&entries, UBUNTU).expect("the release is there");
        assert_eq!(codename, "noble");
        assert_eq!(shown, ["http://mirror.example/ubuntu/ noble noble-updates"]);
    }

    #[test]
    fn a_derivative_falls_back_to_the_release_below_it() {
        let entries = parse_one_line(
            "deb http://derived.example virginia main upstream import\n\
             deb http://mirror.example/ubuntu jammy main universe\n\
             deb http://mirror.example/ubuntu jammy-security main\n",
        );
        let (codename, shown) = selected(&entries, MINT).expect("the release is there");
        assert_eq!(codename, "jammy");
        assert_eq!(shown.len(), 2);
    }

    #[test]
    fn a_company_mirror_with_its_own_key_is_taken_when_nothing_plainer_is_there() {
        let mirror = "deb [signed-by=/etc/apt/keyrings/company.gpg] https://apt.company.example/remote bookworm main\n";
        let (_, shown) = selected(&parse_one_line(mirror), DEBIAN).expect("the mirror");
        assert_eq!(shown, ["https://apt.company.example/remote bookworm"]);
        let both = format!("{mirror}deb http://mirror.example/debian bookworm main\n");
        let (_, shown) = selected(&parse_one_line(&both), DEBIAN).expect("the distribution");
        assert_eq!(shown, ["http://mirror.example/debian bookworm"]);
    }

    #[test]
    fn nothing_is_selected_without_the_release_itself() {
        let updates = parse_one_line("deb http://mirror.example/debian bookworm-updates main\n");
        assert_eq!(selected(&updates, DEBIAN), None);
        assert_eq!(selected(&[], DEBIAN), None);
        assert_eq!(selected(&updates, "ID=debian\n"), None);
    }

    #[test]
    fn settings_of_the_transport_pass_and_settings_of_indexes_stay() {
        let dump = "Acquire \"\";\n\
            Acquire::http \"\";\n\
            Acquire::http::Proxy \"http://proxy.example:3128\";\n\
            acquire::https::CAInfo \"/etc/ssl/company.pem\";\n\
            Acquire::Check-Valid-Until \"false\";\n\
            Acquire::Languages:: \"none\";\n\
            Acquire::IndexTargets::deb::DEP-11::MetaKey \"x\";\n\
            APT::Install-Recommends \"1\";\n\
            AcquireX::y \"1\";\n";
        assert_eq!(
            transport_settings(dump),
            "Acquire::http::Proxy \"http://proxy.example:3128\";\n\
             acquire::https::CAInfo \"/etc/ssl/company.pem\";\n\
             Acquire::Check-Valid-Until \"false\";\n"
        );
    }
}
