//! Other methods, and method overrides. OPTIONS is never evidence, because servers answer it
//! themselves.

use http::Method;

use super::{Maker, Probe};
use lockproof_model::finding::Rule;

const OVERRIDES: [&str; 3] = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"];

impl Maker<'_> {
    pub(super) fn methods(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for target in self.reading() {
            let mut head = target.plain.clone();
            head.method = Method::HEAD;
            probes.push(Probe {
                reference: head.clone(),
                ..Probe::trick(Rule::LockUnprotectedMethod, &target.route, &target.plain, head, false)
            });
        }
        for target in self.samples() {
            for verb in ["PUT", "PATCH", "DELETE", "PROPFIND", "TRACE", "LOCKPROOF"] {
                let Ok(method) = verb.parse::<Method>() else { continue };
                let mut request = target.plain.clone();
                request.method = method;
                probes.push(Probe::trick(Rule::LockUnprotectedMethod, &target.route, &target.plain, request, false));
            }
            for method in [Method::OPTIONS, Method::HEAD, Method::POST] {
                for name in OVERRIDES {
                    let mut request = target.plain.clone().header(name, "GET");
                    request.method = method.clone();
                    probes.push(Probe::trick(
                        Rule::LockUnprotectedMethod,
                        &target.route,
                        &target.plain,
                        request,
                        false,
                    ));
                }
                let mut request = target.plain.clone().query("_method", "GET");
                request.method = method.clone();
                probes.push(Probe::trick(Rule::LockUnprotectedMethod, &target.route, &target.plain, request, false));
            }
            for name in OVERRIDES {
                for claimed in ["OPTIONS", "HEAD", "GET"] {
                    let request = target.plain.clone().header(name, claimed);
                    probes.push(Probe::trick(
                        Rule::LockUnprotectedMethod,
                        &target.route,
                        &target.plain,
                        request,
                        false,
                    ));
                }
            }
            let request = target.plain.clone().query("_method", "OPTIONS");
            probes.push(Probe::trick(Rule::LockUnprotectedMethod, &target.route, &target.plain, request, false));
        }
        probes
    }
}
