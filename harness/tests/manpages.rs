//! Manual pages can be made of the command line as it is.

#[test]
fn each_command_has_a_manual_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let command = lockproof::cli::command();
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    clap_mangen::generate_to(command, directory.path()).expect("they are written");
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let page = std::fs::read_to_string(directory.path().join(format!("lockproof-{name}.1")));
        assert!(page.is_ok_and(|page| page.contains(".SH SYNOPSIS")), "{name}");
    }
}
