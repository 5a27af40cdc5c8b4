//! Headers in which a client claims an identity or an origin.

use super::{Maker, Probe};
use crate::message::Request;
use lockproof_model::finding::Rule;

/// Headers with the client's address, and addresses that a lock may trust.
const ADDRESS_HEADERS: [&str; 14] = [
    "X-Forwarded-For",
    "X-Real-IP",
    "X-Client-IP",
    "Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "X-Originating-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "X-Cluster-Client-IP",
    "X-ProxyUser-Ip",
    "X-Host",
    "X-Forwarded-Host",
];
const ADDRESSES: [&str; 5] = ["127.0.0.1", "::1", "localhost", "10.0.0.1", "192.168.0.1"];

/// Headers with values that a lock may trust.
const TRUSTED: [(&str, &str); 64] = [
    ("Forwarded", "for=127.0.0.1"),
    ("Forwarded", "for=127.0.0.1;host=localhost;proto=https"),
    ("Forwarded", "for=\"[::1]\""),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Port", "443"),
    ("X-Forwarded-Server", "localhost"),
    ("X-Forwarded-User", "admin"),
    ("X-Forwarded-Email", "admin@localhost"),
    ("X-Forwarded-Preferred-Username", "admin"),
    ("X-Auth-Request-User", "admin"),
    ("X-Auth-Request-Email", "a@b"),
    ("X-Auth-Request-Preferred-Username", "admin"),
    ("X-Auth-User", "admin"),
    ("X-Authenticated-User", "admin"),
    ("X-Authenticated", "true"),
    ("X-Remote-User", "admin"),
    ("Remote-User", "admin"),
    ("X-User", "admin"),
    ("X-Username", "admin"),
    ("X-Webauth-User", "admin"),
    ("X-Admin", "1"),
    ("X-Internal", "1"),
    ("X-Debug", "1"),
    ("X-Bypass", "1"),
    ("X-No-Auth", "1"),
    ("X-Custom-IP-Authorization", "127.0.0.1"),
    ("Comfy-User", "default"),
    ("Comfy-User", "lockproof"),
    ("Via", "1.1 localhost"),
    ("Host", "localhost"),
    ("Host", "localhost:8188"),
    ("Host", "127.0.0.1"),
    ("Host", "127.0.0.1:8188"),
    ("Host", "comfyui"),
    ("Origin", "http://localhost"),
    ("Origin", "http://localhost:8188"),
    ("Origin", "null"),
    ("Referer", "http://localhost/"),
    ("Referer", "http://localhost:8188/login"),
    ("Referer", "/login"),
    ("User-Agent", "curl/8.0.1"),
    ("User-Agent", "kube-probe/1.29"),
    ("User-Agent", "ELB-HealthChecker/2.0"),
    ("User-Agent", "GoogleHC/1.0"),
    ("User-Agent", "Googlebot/2.1"),
    ("User-Agent", "python-requests/2.32"),
    ("User-Agent", "ComfyUI"),
    ("User-Agent", "Mozilla/5.0"),
    ("X-Requested-With", "XMLHttpRequest"),
    ("Accept", "*/*"),
    ("Accept", "text/html"),
    ("Accept", "application/json"),
    ("Accept", "text/event-stream"),
    ("Accept", "image/png"),
    ("Accept", "image/*"),
    ("Accept", "image/avif,image/webp,*/*"),
    ("Accept", "text/css,*/*;q=0.1"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-Dest", "script"),
    ("Sec-Fetch-Dest", "style"),
    ("Sec-Fetch-Dest", "image"),
    ("Access-Control-Request-Method", "GET"),
    ("Range", "bytes=0-"),
    ("Content-Type", "multipart/form-data; boundary=x"),
];
/// Headers with the original target, set by proxies.
const REWRITES: [&str; 6] =
    ["X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Forwarded-Uri", "X-Forwarded-Path", "X-Forwarded-Prefix"];

impl Maker<'_> {
    pub(super) fn headers(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for target in self.samples() {
            let mut trick = |request: Request| {
                probes.push(Probe::trick(Rule::LockTrustedHeader, &target.route, &target.plain, request, false));
            };
            for name in ADDRESS_HEADERS {
                for address in ADDRESSES {
                    trick(target.plain.clone().header(name, address));
                }
            }
            for (name, value) in TRUSTED {
                trick(target.plain.clone().header(name, value));
            }
            for name in REWRITES {
                for public in ["/login", "/", "/favicon.ico", "/assets/x.js"] {
                    trick(target.plain.clone().header(name, public));
                }
                // The reverse: a public target, and the protected one in the header.
                for public in ["/login", "/"] {
                    trick(
                        Request { target: public.to_owned(), ..target.plain.clone() }
                            .header(name, &*target.plain.target),
                    );
                }
            }
            // A lock may trust the protocol version: health checks use the old one.
            trick(Request { old_protocol: true, ..target.plain.clone() });
            // The server's own origin, which a client can claim.
            trick(target.plain.clone().header("Host", "lockproof").header("Origin", "http://lockproof"));
            trick(target.plain.clone().header("Host", "lockproof").header("Referer", "http://lockproof/"));
            trick(
                target
                    .plain
                    .clone()
                    .header("Host", "lockproof")
                    .header("Origin", "http://lockproof")
                    .header("Referer", "http://lockproof/")
                    .header("Sec-Fetch-Site", "same-origin")
                    .header("X-Requested-With", "XMLHttpRequest"),
            );
        }
        probes
    }
}
