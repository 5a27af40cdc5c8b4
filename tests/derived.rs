//! Small images on top of the suite's, built for one test and removed after it.

use std::{collections::HashMap, path::Path};

use lockproof_deploy::{
    engine::{
        Engine, Run,
        archive::{Owners, Ownership, Tarball},
        container::ContainerSpec,
    },
    lab,
};

use crate::{gate::block_on, left, suite::Suite};

/// The label of these images.
const LABEL: &str = "lockproof.test";

/// An image that goes with this value.
#[derive(Debug)]
pub(crate) struct Derived {
    name: String,
}

impl Derived {
    /// The suite's image and some lines of a Dockerfile.
    pub(crate) fn of(suite: &Suite, lines: &str) -> Self {
        Self::with_files(suite, lines, &[])
    }

    /// The same with directories of this machine, each under a name for `COPY`.
    pub(crate) fn with_files(suite: &Suite, lines: &str, files: &[(&str, &Path)]) -> Self {
        let name = format!("lockproof-test:{}", Run::new().id());
        block_on(async {
            let engine = Engine::connect().await.unwrap_or_else(|e| panic!("{e}"));
            let from = lab::require(&engine, &suite.image).await.unwrap_or_else(|e| panic!("{e}")).name;
            let mut context = Tarball::new();
            let dockerfile = format!("FROM {from}\n{lines}\n");
            context.file("Dockerfile", dockerfile.as_bytes(), 0o644, Ownership::ROOT).expect("it fits");
            for (to, path) in files {
                context.tree(path, to, Owners::All(Ownership::ROOT), &|name| name == ".git").expect("it can be read");
            }
            let labels = HashMap::from([(LABEL.to_owned(), Run::new().id().to_owned())]);
            let context = context.finish().expect("it is whole");
            engine.build(context, &name, &HashMap::new(), &labels).await.unwrap_or_else(|e| panic!("{e}"));
        });
        Self { name }
    }

    /// An image that has the plugin and its dependencies in it, but no credential.
    pub(crate) fn baked(suite: &Suite) -> Image {
        if let Some(name) = &suite.baked {
            return Image::Given(name.clone());
        }
        let plugin = format!("{}/{}", suite.custom_nodes(), suite.plugin_name());
        let lines = format!(
            "COPY plugin {plugin}\nCOPY wheels /tmp/wheels\n\
             RUN {} -m pip install --no-index --find-links /tmp/wheels -r {plugin}/requirements.txt",
            suite.python()
        );
        let files = [("plugin", suite.plugin.as_path()), ("wheels", suite.wheels.as_path())];
        Image::Made(Self::with_files(suite, &lines, &files))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Derived {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A runtime cannot be begun inside another one, and a panic may come from anywhere.
        let removal = std::thread::spawn(move || block_on(left::remove_image(&name)));
        if removal.join().is_err() {
            eprintln!("the image {} may be left", self.name);
        }
    }
}

/// An image that the suite has, or one that was made for this test.
#[derive(Debug)]
pub(crate) enum Image {
    Given(String),
    Made(Derived),
}

impl Image {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Given(name) => name,
            Self::Made(derived) => derived.name(),
        }
    }
}

/// Copies a directory of the suite's image onto this machine.
pub(crate) fn copy_out(suite: &Suite, from: &str, to: &Path) {
    let run = Run::new();
    block_on(async {
        let engine = Engine::connect().await.unwrap_or_else(|e| panic!("{e}"));
        let image = lab::require(&engine, &suite.image).await.unwrap_or_else(|e| panic!("{e}")).name;
        let spec = ContainerSpec { name: run.name("copy"), image, labels: run.labels(""), ..ContainerSpec::default() };
        let id = engine.create(&spec).await.unwrap_or_else(|e| panic!("{e}"));
        let archive = engine.download(&id, from).await;
        engine.remove(&id).await.unwrap_or_else(|e| panic!("{e}"));
        let archive = archive.unwrap_or_else(|e| panic!("{e}")).expect("it is there");
        let mut archive = tar::Archive::new(archive.as_slice());
        for entry in archive.entries().expect("it is an archive") {
            let mut entry = entry.expect("it is whole");
            // The archive begins with the directory's own name.
            let path = entry.path().expect("it has a path").components().skip(1).collect::<std::path::PathBuf>();
            if !path.as_os_str().is_empty() {
                entry.unpack(to.join(path)).expect("it can be written");
            }
        }
    });
}

/// Where the packages of the suite's environment are.
pub(crate) fn site_packages(suite: &Suite) -> String {
    let run = Run::new();
    let ask = "import sysconfig; print(sysconfig.get_path('purelib'))";
    block_on(async {
        let engine = Engine::connect().await.unwrap_or_else(|e| panic!("{e}"));
        let image = lab::require(&engine, &suite.image).await.unwrap_or_else(|e| panic!("{e}")).name;
        let spec = ContainerSpec {
            name: run.name("ask"),
            image,
            labels: run.labels(""),
            entrypoint: Some(vec![suite.python(), "-c".to_owned(), ask.to_owned()]),
            ..ContainerSpec::default()
        };
        let id = engine.create(&spec).await.unwrap_or_else(|e| panic!("{e}"));
        engine.start(&id).await.unwrap_or_else(|e| panic!("{e}"));
        while engine.life(&id).await.unwrap_or_else(|e| panic!("{e}")).is_some_and(|life| life.running) {
            tokio::task::yield_now().await;
        }
        let said = engine.last_lines(&id, 1).await;
        engine.remove(&id).await.unwrap_or_else(|e| panic!("{e}"));
        said.unwrap_or_else(|e| panic!("{e}")).pop().expect("it said where")
    })
}
