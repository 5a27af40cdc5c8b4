//! Reads a command line or an entry point: where and how it starts `main.py`, and which parts of
//! the lock each start restores.
//!
//! A script is parsed and walked, not run. If the result of a test is unknown, its branches are
//! conditional.

mod assign;
mod commands;
mod condition;
mod effects;
mod expand;
mod outcome;
mod parse;
mod print;
mod walk;

pub use self::outcome::{Come, Environment, Script, Swallowed};
use self::walk::{State, Walk};

/// Reads a command line or script that starts in `workdir`.
pub fn read(text: &str, workdir: Option<&str>, environment: &Environment<'_>) -> Script {
    let mut walk = Walk::new(environment, State { here: workdir.map(str::to_owned), ..State::default() });
    walk.text(text);
    walk.script
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn of(text: &str) -> Script {
        with(text, &|_| None)
    }

    fn with(text: &str, file: &dyn Fn(&str) -> Option<(String, String)>) -> Script {
        let variable = |name: &str| (name == "COMFYUI_DIR").then(|| "/srv/ComfyUI".to_owned());
        let environment = Environment { variable: &variable, complete: true, file };
        read(text, Some("/start"), &environment)
    }

    #[rstest]
    #[case(
        "cd /workspace/ComfyUI && source venv/bin/activate && python main.py --listen",
        Some("/workspace/ComfyUI"),
        Some("/workspace/ComfyUI/venv")
    )]
    #[case("/opt/venv/bin/python /opt/ComfyUI/main.py --port=9000", Some("/opt/ComfyUI"), Some("/opt/venv"))]
    #[case("python main.py", Some("/start"), None)]
    #[case("cd $COMFYUI_DIR; exec python3 main.py", Some("/srv/ComfyUI"), None)]
    #[case("ROOT=/x\ncd \"$ROOT\"\npython ./ComfyUI/main.py", Some("/x/ComfyUI"), None)]
    #[case("cd \"$(dirname x)\" && python main.py", Some("/start"), None)]
    #[case("cd \"$(git rev-parse --show-toplevel)\" && python main.py", None, None)]
    #[case("cd /app && cd /tmp && cd - && python main.py", Some("/app"), None)]
    #[case("cd /app; pushd /tmp; popd; python main.py", Some("/app"), None)]
    #[case("export PATH=\"/v/bin:$PATH\"\ncd ${DIR:-/app}\nexec python -u main.py", Some("/app"), Some("/v"))]
    #[case("run() { cd \"$1\"; python main.py; }\nrun /app", Some("/app"), None)]
    #[case("case \"${MODE:-gpu}\" in cpu) cd /cpu;; gpu) cd /gpu;; esac\npython main.py", Some("/gpu"), None)]
    #[case("if [ \"${A:-1}\" = 1 ]; then cd /a; else cd /b; fi; python main.py", Some("/a"), None)]
    #[case("if [ -d /a ]; then cd /a; else cd /b; fi; python main.py", None, None)]
    #[case("sh -c 'cd /app && exec python main.py'", Some("/app"), None)]
    #[case("gosu app python /app/main.py", Some("/app"), None)]
    #[case("if [ -d venv ]; then . venv/bin/activate; fi; python main.py", Some("/start"), Some("/start/venv"))]
    #[case("cat main.py; ls /x/main.py", None, None)]
    fn where_it_is_started(#[case] text: &str, #[case] code_dir: Option<&str>, #[case] environment: Option<&str>) {
        let script = of(text);
        assert_eq!((script.code_dir.as_deref(), script.environment.as_deref()), (code_dir, environment), "{text}");
    }

    proptest::proptest! {
        /// Whatever stands in somebody's file, reading it ends, and says something or nothing.
        #[test]
        fn any_text_is_read(parts in proptest::collection::vec("[ -~]{0,12}|\\PC{0,4}|if |fi\n|for x in \\*; do |done\n|\\$\\(|\\)|\"|'|\n|cd |pip install -r |custom_nodes/", 0..40)) {
            let _ = of(&parts.concat());
        }
    }

    #[test]
    fn with_which_arguments_it_is_started() {
        let script = of(
            "python main.py --base-directory /data --port 8190 --output-directory=/out --listen &\npython api.py --port 8000",
        );
        assert_eq!((script.base_directory.as_deref(), script.port), (Some("/data"), Some(8190)));
        assert_eq!(script.directories.get("output").map(String::as_str), Some("/out"));
        assert!(script.arguments && script.plain_python);
        assert!(!of("python main.py").arguments);
        assert_eq!(of("comfy --workspace=/c launch -- --listen --port \"${PORT:-7860}\"").port, Some(7860));
        assert_eq!(of("comfy --workspace /c launch").code_dir.as_deref(), Some("/c"));
        assert_eq!(of("python main.py --enable-cors-header").cors.as_deref(), Some(""));
    }

    #[rstest]
    #[case("for r in /app/custom_nodes/*/requirements.txt; do pip install -r \"$r\"; done", Come::Always)]
    #[case(
        "for d in \"$NODES\"/*/; do [ -f \"$d/requirements.txt\" ] && pip install -r \"$d/requirements.txt\"; done",
        Come::Always
    )]
    #[case("find custom_nodes -name requirements.txt | while read -r f; do pip install -r \"$f\"; done", Come::Always)]
    #[case(
        "while read f; do uv pip install -r \"$f\"; done < <(find /a/custom_nodes -name requirements.txt)",
        Come::Always
    )]
    #[case("find /a/custom_nodes -name requirements.txt -exec pip install -r {} \\;", Come::Always)]
    #[case(
        "cd custom_nodes; for d in */; do cd $d; python -m pip install -r requirements.txt; cd ..; done",
        Come::Always
    )]
    #[case("for d in $(ls /a/custom_nodes); do pip install -r /a/custom_nodes/$d/requirements.txt; done", Come::Always)]
    #[case("python cm-cli.py restore-dependencies", Come::Always)]
    // Of one node that is named, and of ComfyUI itself.
    #[case("pip install -r /app/custom_nodes/ComfyUI-Manager/requirements.txt", Come::Never)]
    #[case("pip install -r requirements.txt", Come::Never)]
    #[case("for d in /app/*; do pip install -r $d/requirements.txt; done", Come::Never)]
    // Once, and then no more.
    #[case(
        "if [ ! -f /u/.done ]; then for r in custom_nodes/*/requirements.txt; do pip install -r $r; done; touch /u/.done; fi",
        Come::Unless(vec!["/u/.done".to_owned()])
    )]
    #[case("[ -e /u/x ] || for r in custom_nodes/*/requirements.txt; do pip install -r $r; done", Come::Unless(vec!["/u/x".to_owned()]))]
    #[case("if curl -s x; then for r in custom_nodes/*/requirements.txt; do pip install -r $r; done; fi", Come::Maybe)]
    #[case(
        "if [ -n \"$NOBODY\" ]; then for r in custom_nodes/*/requirements.txt; do pip install -r $r; done; fi",
        Come::Never
    )]
    fn when_every_nodes_requirements_are_installed(#[case] text: &str, #[case] when: Come) {
        let found = of(text).requirements.into_iter().map(|(_, when)| when).max().unwrap_or_default();
        assert_eq!(found, when, "{text}");
    }

    #[rstest]
    #[case("pip install aiohttp_session bcrypt || true\npython main.py", Some(0))]
    #[case("set -eu\npip install bcrypt\npython main.py", None)]
    #[case("pip install bcrypt && python main.py", None)]
    #[case("pip install bcrypt; python main.py", Some(0))]
    #[case("pip install bcrypt || exit 1\npython main.py", None)]
    #[case("die() { echo $1; exit 1; }\npip install bcrypt || die no\npython main.py", None)]
    #[case("if ! pip install bcrypt; then exit 1; fi\npython main.py", None)]
    #[case("pip install bcrypt\nif [ $? -ne 0 ]; then exit 1; fi\npython main.py", None)]
    #[case("set -e\npip install bcrypt | tee log\npython main.py", Some(1))]
    #[case("set -eo pipefail\npip install bcrypt | tee log\npython main.py", None)]
    #[case("sh -ec 'pip install \\\n  bcrypt\npython main.py'", None)]
    #[case("set -e\nsh -c 'pip install bcrypt\npython main.py'", Some(0))]
    #[case("set -e\npip install bcrypt \\\n  pillow || echo never mind\npython main.py", Some(1))]
    #[case("pip install numpy || true\npython main.py", None)]
    fn whether_it_minds(#[case] text: &str, #[case] line: Option<usize>) {
        let script = of(text);
        assert_eq!(script.swallowed.map(|s| s.line), line, "{text}");
    }

    #[test]
    fn what_each_start_puts_in_place() {
        let strict = of("set -eu\ngit clone https://example/ComfyUI-Login custom_nodes/ComfyUI-Login\npython main.py");
        assert_eq!((strict.plugin, strict.swallowed), (Come::Always, None));
        let once = of("[ -d /n/login ] || git clone https://example/ComfyUI-Login /n/login");
        assert_eq!(once.plugin, Come::Unless(vec!["/n/login".to_owned()]));
        assert_eq!(of("mkdir -p login && printf %s \"$X\" > login/PASSWORD").credential, Come::Always);
        let code = of("git clone https://github.com/comfyanonymous/ComfyUI /w/ComfyUI");
        assert_eq!(code.cloned_to.as_deref(), Some("/w/ComfyUI"));
    }

    #[rstest]
    #[case::a_token_in_the_url("git clone https://oauth2:$TOKEN@git.example/group/any-node /n/any-node", Come::Never)]
    #[case::a_host("git clone https://auth.example/any-node custom_nodes/any-node", Come::Never)]
    #[case::an_owner("git clone https://github.com/some-author/any-node custom_nodes/any-node", Come::Never)]
    #[case::a_home("cp -r /home/author/any-node custom_nodes/", Come::Never)]
    #[case::a_word_that_begins_alike("git clone https://example/ComfyUI-AuthorTools custom_nodes/x", Come::Never)]
    #[case::the_plugin("git clone https://oauth2:$TOKEN@git.example/group/ComfyUI-Login.git", Come::Always)]
    #[case::its_directory("git clone https://git.example/mirror/42 custom_nodes/ComfyUI-Login", Come::Always)]
    #[case::another_plugin("git clone https://example/comfyui_basic_auth custom_nodes/x", Come::Always)]
    #[case::a_copy("cp -r /plugins/ComfyUI-Login/* /n/custom_nodes/", Come::Always)]
    fn only_the_name_of_a_plugin_says_that_it_is_the_lock(#[case] text: &str, #[case] when: Come) {
        assert_eq!(of(text).plugin, when, "{text}");
    }

    #[rstest]
    #[case("pip install bcrypt==4.2", Come::Always)]
    #[case("pip install 'aiohttp_session[secure]>=2'", Come::Always)]
    #[case("pip install bcryptography-tools", Come::Never)]
    fn only_the_packages_of_the_lock_are_its_dependencies(#[case] text: &str, #[case] when: Come) {
        assert_eq!(of(text).dependencies, when, "{text}");
    }

    #[rstest]
    #[case::a_word("say() { echo executing $1; return 0; }\nsay x")]
    #[case::a_branch("say() { if [ \"$1\" = y ]; then exit 1; fi; return 0; }\nsay x")]
    #[case::a_condition("say() { [ -n \"$1\" ] || exit 1; echo execute; }\nsay x")]
    #[case::a_file_that_returns(". /lib.sh")]
    fn a_function_that_returns_does_not_end_the_script(#[case] before: &str) {
        let file = |path: &str| {
            (path == "/lib.sh").then(|| ("lib.sh".to_owned(), "true || exit 1\nreturn 0\necho exec\n".to_owned()))
        };
        let script = with(&format!("{before}\npip install bcrypt\ncd /app && exec python main.py"), &file);
        assert_eq!((script.dependencies, script.code_dir.as_deref()), (Come::Always, Some("/app")), "{before}");
    }

    #[rstest]
    #[case::exit("end() { echo x; exit 0; }\nend")]
    #[case::exec("end() { exec sleep 1; }\nend")]
    #[case::both_ways("end() { if [ -f /x ]; then exit 1; else exec sleep 1; fi; }\nend")]
    fn a_function_that_ends_the_process_ends_the_script(#[case] before: &str) {
        assert_eq!(of(&format!("{before}\npip install bcrypt")).dependencies, Come::Never, "{before}");
    }

    #[rstest]
    #[case::a_mark("put() { [ -f /u/.done ] && return; pip install bcrypt; }\nput", Come::Unless(vec!["/u/.done".to_owned()]))]
    #[case::a_branch("put() { if [ -f /u/.done ]; then return; fi; pip install bcrypt; }\nput", Come::Unless(vec!["/u/.done".to_owned()]))]
    #[case::a_nested_branch(
        "put() { if curl x; then if curl y; then return; fi; fi; pip install bcrypt; }\nput",
        Come::Maybe
    )]
    #[case::a_loop(
        "put() { for x in *; do curl $x && return; done; curl y || return; pip install bcrypt; }\nput",
        Come::Maybe
    )]
    #[case::a_failure("put() { curl y || return; pip install bcrypt; }\nput", Come::Maybe)]
    #[case::a_failure_that_stops("set -e\nput() { curl y || return 1; pip install bcrypt; }\nput", Come::Always)]
    #[case::a_case("put() { case \"$(uname)\" in L*) return;; esac; pip install bcrypt; }\nput", Come::Maybe)]
    #[case::a_start("if [ -f /u/.done ]; then exec python main.py; fi\npip install bcrypt", Come::Unless(vec!["/u/.done".to_owned()]))]
    #[case::a_start_in_a_function("go() { curl x && exec python main.py; }\ngo\npip install bcrypt", Come::Maybe)]
    #[case::an_error_ends_the_start("[ -d /models ] || exit 1\npip install bcrypt", Come::Always)]
    #[case::another_function("log() { [ -t 1 ] || return; echo x; }\nlog\npip install bcrypt", Come::Always)]
    #[case::another_process(
        "(curl x && exit)\nsh -c 'curl x && exec python main.py'\npip install bcrypt",
        Come::Always
    )]
    fn what_comes_behind_a_way_out_is_under_its_opposite(#[case] text: &str, #[case] when: Come) {
        assert_eq!(of(&format!("{text}\npython main.py")).dependencies, when, "{text}");
    }

    #[test]
    fn a_script_of_which_a_line_cannot_be_parsed_is_incomplete() {
        let script = of("pip install bcrypt\nif true; then\ncd /app && python main.py\n");
        assert_eq!((script.incomplete, script.dependencies), (true, Come::Always));
        assert!(!of("pip install bcrypt\npython main.py").incomplete);
    }

    #[test]
    fn links_are_followed_through_the_tables_that_images_keep_them_in() {
        let script = of(
            "declare -A MOUNTS\nMOUNTS[\"${ROOT:-/app}/input\"]=\"/data/input\"\nMOUNTS[\"/app/custom_nodes\"]=\"/data/nodes\"\n\
             for to in \"${!MOUNTS[@]}\"; do\n  from=\"${MOUNTS[${to}]}\"\n  rm -rf \"$to\"\n  ln -sT \"$from\" \"$to\"\ndone\n",
        );
        let link = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(script.links, [link("/app/input", "/data/input"), link("/app/custom_nodes", "/data/nodes")]);
    }

    #[test]
    fn scripts_that_are_called_are_read_too() {
        let file = |path: &str| match path {
            "/start/lib.sh" => {
                Some(("lib.sh".to_owned(), "install_all() {\n  pip install bcrypt || true\n}\n".to_owned()))
            }
            "/go.sh" => Some(("go.sh".to_owned(), "cd /app\nexec \"$@\"\n".to_owned())),
            "/apart.sh" => Some(("apart.sh".to_owned(), "set -e\ncd /tmp\nexit 0\n".to_owned())),
            "/strict.sh" => {
                Some(("strict.sh".to_owned(), "#!/bin/sh -e\npip install bcrypt\npython main.py\n".to_owned()))
            }
            "/usr/local/bin/begin" => {
                Some(("begin".to_owned(), "#!/usr/bin/env bash\ncd /begun\nexec \"$@\"\n".to_owned()))
            }
            "/loop.sh" => Some(("loop.sh".to_owned(), "/loop.sh\n".to_owned())),
            _ => None,
        };
        let script = with("set -e\n. ./lib.sh\ninstall_all\nexec /go.sh python main.py --cpu", &file);
        assert_eq!(script.code_dir.as_deref(), Some("/app"));
        assert_eq!((script.dependencies, script.incomplete), (Come::Always, false));
        assert!(script.swallowed.is_some());
        assert_eq!(with("sh -c '/go.sh \"$@\"' sh python main.py", &file).code_dir.as_deref(), Some("/app"));
        assert!(with(". /nobody/knows.sh\npython main.py", &file).incomplete);
        assert!(with("/loop.sh", &file).incomplete, "it calls itself");
        assert_eq!(with("begin python main.py", &file).code_dir.as_deref(), Some("/begun"));
        // A process of its own takes its directory, its `set -e` and its end along.
        let apart = with("/apart.sh\npip install bcrypt\npython main.py", &file);
        assert_eq!((apart.code_dir.as_deref(), apart.swallowed.map(|s| s.line)), (Some("/start"), Some(1)));
        let strict = with("/strict.sh", &file);
        assert_eq!((strict.dependencies, strict.swallowed), (Come::Always, None));
    }
}
