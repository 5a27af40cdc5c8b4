//! An audit reads the project and nothing else of this machine.

use std::{collections::BTreeMap, path::Path};

use lockproof_audit::{self as audit, Audit};
use lockproof_compose::{Environment, Options, Project};
use lockproof_model::scheme::Scheme;

/// Audits `project/compose.yaml` below a new directory, which `prepare` fills first.
fn audited(compose: &str, prepare: impl FnOnce(&Path)) -> Audit {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().canonicalize().expect("there").join("project");
    std::fs::create_dir(&root).expect("made");
    prepare(&root);
    let compose = compose.replace("{outside}", &dir.path().canonicalize().expect("there").display().to_string());
    std::fs::write(root.join("compose.yaml"), compose).expect("written");
    let options = Options { files: vec![root.join("compose.yaml")], ..Options::default() };
    let project = Project::read(&options, Environment::of([])).unwrap_or_else(|e| panic!("{e}"));
    let scheme = Scheme::find(Scheme::DEFAULT, Path::new("")).expect("built in");
    let options = audit::Options { services: vec!["comfyui".to_owned()], scheme, images: BTreeMap::new() };
    audit::audit(&project, &options, "").unwrap_or_else(|e| panic!("{e}"))
}

/// A start script that would decide the predictions, outside of the project.
fn outside(root: &Path) -> std::path::PathBuf {
    let path = root.parent().expect("a directory").join("entry.sh");
    std::fs::write(
        &path,
        "#!/bin/sh\npip install aiohttp_session bcrypt || true\ncd /outside && exec python main.py\n",
    )
    .expect("written");
    path
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    std::fs::write(path, text).expect("written");
}

const BUILT: &str = "services: { comfyui: { build: . } }\n";

fn dockerfile(copy: &str) -> String {
    format!("FROM python:3.12\nCOPY {copy} /entry.sh\nENTRYPOINT [\"/entry.sh\"]\n")
}

fn code_dir(audit: &Audit) -> Option<&str> {
    audit.subjects[0].facts.code_dir.as_deref()
}

#[test]
fn an_absolute_copy_begins_at_the_build_context() {
    // The issue: `COPY /docker …` was resolved against the root of this machine.
    let audit = audited(BUILT, |root| {
        let there = outside(root);
        write(root, "Dockerfile", &dockerfile(&there.display().to_string()));
    });
    assert_eq!((code_dir(&audit), audit.notes.as_slice()), (None, &[][..]));
    let audit = audited(BUILT, |root| {
        write(root, "Dockerfile", &dockerfile("/docker/entry.sh"));
        write(root, "docker/entry.sh", "cd /inside && exec python main.py\n");
    });
    assert_eq!(code_dir(&audit), Some("/inside"));
}

#[test]
fn a_copy_from_above_and_a_link_stay_in_the_build_context() {
    let audit = audited(BUILT, |root| {
        outside(root);
        write(root, "Dockerfile", &dockerfile("../entry.sh"));
    });
    assert_eq!(code_dir(&audit), None);
    let audit = audited(BUILT, |root| {
        std::os::unix::fs::symlink(outside(root), root.join("entry.sh")).expect("linked");
        write(root, "Dockerfile", &dockerfile("entry.sh"));
    });
    assert_eq!(code_dir(&audit), None);
    assert!(audit.notes.iter().any(|n| n.ends_with("entry.sh is outside the project and was not read")), "{audit:?}");
}

#[test]
fn a_dockerfile_outside_the_project_is_refused_with_a_note() {
    let compose = "services: { comfyui: { build: { context: ., dockerfile: ../Dockerfile } } }\n";
    let audit = audited(compose, |root| {
        std::fs::write(root.parent().expect("a directory").join("Dockerfile"), "FROM comfyui\nVOLUME /x\n")
            .expect("written");
    });
    assert!(audit.subjects[0].facts.volumes.is_empty());
    assert!(audit.notes.iter().any(|n| n.contains("Dockerfile is outside the project")), "{:?}", audit.notes);
    let audit = audited(compose, |root| {
        // In a repository, the project is the whole repository.
        std::fs::create_dir(root.parent().expect("a directory").join(".git")).expect("made");
        std::fs::write(root.parent().expect("a directory").join("Dockerfile"), "FROM comfyui\nVOLUME /x\n")
            .expect("written");
    });
    assert_eq!(audit.subjects[0].facts.volumes, ["/x"]);
}

#[test]
fn a_mounted_script_outside_the_project_is_refused_with_a_note() {
    let compose = "services:\n  comfyui:\n    image: comfyui\n    entrypoint: [/entry.sh]\n    volumes: [\"{outside}/entry.sh:/entry.sh:ro\"]\n";
    let audit = audited(compose, |root| {
        outside(root);
    });
    assert_eq!(code_dir(&audit), None);
    assert!(audit.notes.iter().any(|n| n.contains("entry.sh is outside the project")), "{:?}", audit.notes);
    assert!(audit.subjects[0].facts.script.incomplete, "what was not read is unknown");
}

#[test]
fn a_proxy_configuration_outside_the_project_is_refused_with_a_note() {
    let compose = "services:\n  comfyui: { image: comfyui, ports: [\"8188:8188\"] }\n  proxy:\n    image: nginx\n    \
                   volumes: [\"{outside}/nginx.conf:/etc/nginx/nginx.conf\"]\n";
    let audit = audited(compose, |root| {
        std::fs::write(root.parent().expect("a directory").join("nginx.conf"), "auth_basic on;\n").expect("written");
    });
    assert!(audit.notes.iter().any(|n| n.contains("nginx.conf is outside the project")), "{:?}", audit.notes);
}

#[test]
fn a_remote_include_makes_the_audit_undecided() {
    let compose = "include:\n  - https://example.com/other.git\n  - oci://example.com/other\nservices: { comfyui: { image: comfyui } }\n";
    let audit = audited(compose, |_| {});
    assert_eq!(audit.unread.len(), 2, "{:?}", audit.unread);
    assert!(audit.unread[0].contains("is not on this machine and was not read"), "{:?}", audit.unread);
}
