//! The server's own list of routes: what nobody links to is probed as well.

use std::path::PathBuf;

use lockproof_model::{event::Event, finding::Rule, verdict::Verdict};
use rstest::rstest;

use crate::{
    gate::Gate,
    suite::{Source, Suite, suite},
};

/// A custom node whose routes no page and no script mentions.
const NODE: &str = "quiet-gallery";

#[rstest]
#[case::behind_the_lock("locked", Verdict::Locked)]
#[case::past_the_lock("exempt", Verdict::Leaky)]
fn a_route_that_nothing_links_to_is_probed(suite: Suite, #[case] mode: &str, #[case] expected: Verdict) {
    let node = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/custom-nodes").join(NODE);
    let node = node.canonicalize().expect("the custom node is there");
    let subject = suite
        .subject("quiet")
        .env("QUIET_GALLERY", mode)
        .mount(Source::Bind(node), format!("{}/{NODE}", suite.custom_nodes()));
    let outcome = Gate::of(subject).run();
    let routes = outcome.subject().routes.as_ref().expect("the routes are reported");
    assert_eq!(routes.not_listed, None);
    for route in ["GET /quiet-gallery/list", "POST /quiet-gallery/add", "GET /quiet-pictures/picture.txt"] {
        assert!(routes.beyond.iter().any(|known| known == route), "{route}: {routes:#?}");
    }
    assert!(routes.registered.is_some_and(|count| count > 50), "{routes:#?}");
    assert!(!routes.middlewares.is_empty(), "{routes:#?}");
    assert_eq!(outcome.verdict(Event::Installed), expected.min(suite.installed), "{}", outcome.told());
    if expected == Verdict::Leaky {
        let findings = outcome.findings(Rule::LockUnprotectedRoute);
        let evidence: Vec<_> = findings.iter().flat_map(|f| &f.evidence).collect();
        let named =
            evidence.iter().any(|line| line.contains("/quiet-gallery/list is answered by") && line.contains(NODE));
        assert!(named, "{evidence:#?}");
    }
}
