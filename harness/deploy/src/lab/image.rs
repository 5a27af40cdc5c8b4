//! The lab's images: built from the fixtures on first use, and named by their content.

use std::collections::HashMap;

use super::{fixtures, rootfs};
use crate::engine::{Engine, archive::Tarball, image::split_tag};
use lockproof_model::error::{Error, Result};

/// The image name of the lab in a configuration.
pub const REPOSITORY: &str = "lockproof/comfyui-lab";

/// The images of the lab: `lockproof/comfyui-lab` and `lockproof/comfyui-lab:TAG`.
pub const VARIANTS: &[Variant] = &[
    Variant { tag: "latest", code_dir: "/opt/ComfyUI", version: "0.3.64", baked: false },
    Variant { tag: "app", code_dir: "/app", version: "0.3.64", baked: false },
    Variant { tag: "next", code_dir: "/opt/ComfyUI", version: "0.3.65", baked: false },
    Variant { tag: "baked", code_dir: "/opt/ComfyUI", version: "0.3.64", baked: true },
];

/// One image of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The tag in a configuration.
    pub tag: &'static str,
    /// ComfyUI's code directory.
    pub code_dir: &'static str,
    /// The version that it reports.
    pub version: &'static str,
    /// Whether the image contains the login plugin (without its dependencies, which are installed).
    pub baked: bool,
}

/// The base of the other images.
const BASE_IMAGE: &str = "debian:bookworm-slim";
const CONTEXT: &str = "images/comfyui-lab";
const PACKAGES: &str = "images/comfyui-lab/packages.txt";

/// The variant with this image name; `None` if it is not the lab's.
pub(super) fn variant(name: &str) -> Result<Option<&'static Variant>> {
    let (repository, tag) = split_tag(name);
    if repository != REPOSITORY {
        return Ok(None);
    }
    // A tag with a content hash must exist already.
    if tag.contains('-') {
        return Ok(None);
    }
    match VARIANTS.iter().find(|v| v.tag == tag) {
        Some(variant) => Ok(Some(variant)),
        None => Err(Error::usage(format!("the lab has no image `{tag}`"))
            .at(name)
            .fix(format!("available images: {}", VARIANTS.iter().map(|v| v.tag).collect::<Vec<_>>().join(", ")))),
    }
}

/// The variant's image, which is built if it is missing.
pub(super) async fn ensure(engine: &Engine, variant: &Variant) -> Result<String> {
    let (base, packages) = base()?;
    let context = context(variant)?;
    let code = fixtures::content_hash(&[&context, base.as_bytes(), format!("{variant:?}").as_bytes()]);
    let name = format!("{REPOSITORY}:{}-{code}", variant.tag);
    if engine.image(&name).await?.is_some() {
        return Ok(name);
    }
    ensure_base(engine, &base, &packages, "the lab's base image").await?;
    tracing::info!("building {REPOSITORY}:{}", variant.tag);
    let arguments = HashMap::from([
        ("BASE".to_owned(), base),
        ("CODE_DIR".to_owned(), variant.code_dir.to_owned()),
        ("VERSION".to_owned(), variant.version.to_owned()),
    ]);
    let labels = HashMap::from([("lockproof.lab".to_owned(), variant.tag.to_owned())]);
    engine.build(context, &name, &arguments, &labels).await?;
    Ok(name)
}

/// The name and the packages of the base image.
fn base() -> Result<(String, Vec<&'static str>)> {
    let packages = packages(PACKAGES)?;
    let hash = fixtures::content_hash(&[packages.join(" ").as_bytes(), release().as_bytes()]);
    Ok((format!("lockproof/lab-base:{hash}"), packages))
}

/// The base image, which also contains nginx.
pub(super) async fn ensure_lab_base(engine: &Engine) -> Result<String> {
    let (name, packages) = base()?;
    ensure_base(engine, &name, &packages, "the lab's base image").await?;
    Ok(name)
}

fn context(variant: &Variant) -> Result<bytes::Bytes> {
    let mut tarball = Tarball::new();
    fixtures::add(&mut tarball, CONTEXT, "")?;
    if variant.baked {
        fixtures::add(&mut tarball, "plugins/lab-login", "comfyui/custom_nodes/lab-login")?;
    }
    tarball.finish().map_err(|e| Error::environment("cannot create the lab's build context").detail(e))
}

/// The packages listed in a file of the fixtures, one per line.
pub(super) fn packages(file: &str) -> Result<Vec<&'static str>> {
    Ok(fixtures::text(file)?
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .collect())
}

/// The release of this machine's system: a base image bootstrapped from its package sources depends
/// on it.
pub(super) fn release() -> String {
    std::fs::read_to_string("/etc/os-release")
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with("VERSION_CODENAME="))
        .collect()
}

/// An image with these packages: based on a pulled image if a registry is available, else
/// bootstrapped from this machine's package sources.
pub(super) async fn ensure_base(engine: &Engine, name: &str, packages: &[&'static str], what: &str) -> Result<()> {
    if engine.image(name).await?.is_some() {
        return Ok(());
    }
    tracing::info!("building {what} (once; this takes some minutes on a slow connection)");
    let mut pulled = engine.image(BASE_IMAGE).await?.is_some();
    if !pulled {
        match engine.pull(BASE_IMAGE).await {
            Ok(()) => pulled = true,
            Err(why) => {
                tracing::info!("cannot pull {BASE_IMAGE} ({}); bootstrapping it instead", first_line(&why))
            }
        }
    }
    if pulled {
        match from_pulled(engine, name, packages).await {
            Ok(()) => return Ok(()),
            Err(e) => {
                tracing::info!("cannot install packages on {BASE_IMAGE} ({}); bootstrapping it instead", e.what())
            }
        }
    }
    let directory = tempfile::Builder::new()
        .prefix("lockproof-rootfs-")
        .tempdir()
        .map_err(|e| Error::environment("cannot create a temporary directory").detail(e))?;
    let tar = directory.path().join("rootfs.tar");
    rootfs::bootstrap(&tar, packages, &|line| tracing::info!("{line}")).await.map_err(|e| {
        let fix = e.remedy();
        Error::environment(format!("cannot build {what}")).detail(e).fix(fix)
    })?;
    engine.import(&tar, name).await
}

async fn from_pulled(engine: &Engine, name: &str, packages: &[&str]) -> Result<()> {
    let dockerfile = format!(
        "FROM {BASE_IMAGE}\nRUN apt-get update && apt-get install -y --no-install-recommends {} && rm -rf /var/lib/apt/lists/*\n",
        packages.join(" ")
    );
    let mut tarball = Tarball::new();
    let archive = tarball
        .file("Dockerfile", dockerfile.as_bytes(), 0o644, crate::engine::archive::Ownership::ROOT)
        .and_then(|()| tarball.finish())
        .map_err(|e| Error::environment("cannot create the build context of the base image").detail(e))?;
    engine.build(archive, name, &HashMap::new(), &HashMap::new()).await
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_is_known_by_its_name() {
        assert_eq!(variant("lockproof/comfyui-lab").map(|v| v.map(|v| v.tag)).ok(), Some(Some("latest")));
        assert_eq!(variant("lockproof/comfyui-lab:app").map(|v| v.map(|v| v.code_dir)).ok(), Some(Some("/app")));
        assert!(matches!(variant("comfyui:cpu"), Ok(None)));
        assert!(variant("lockproof/comfyui-lab:nope").is_err());
    }
}
