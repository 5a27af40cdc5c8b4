//! `ports:` of a service, in the short and the long syntax.

use std::net::IpAddr;

use super::{error::Trouble, source::Span, yaml::Node};

/// A published port or port range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The host address; `None`: all addresses.
    pub address: Option<String>,
    /// The first and last host port; `None`: chosen by the engine.
    pub published: Option<(u16, u16)>,
    /// The first and last port of the container.
    pub target: (u16, u16),
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Its position.
    pub at: Span,
}

impl Port {
    /// Whether the range contains this container port.
    pub fn covers(&self, port: u16) -> bool {
        (self.target.0..=self.target.1).contains(&port)
    }

    /// Whether other machines can reach it.
    pub fn is_everywhere(&self) -> bool {
        match self.address.as_deref().map(|a| a.trim_matches(['[', ']'])) {
            None | Some("") => true,
            Some("localhost") => false,
            Some(address) => !address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        }
    }
}

/// Reads an entry.
///
/// # Errors
/// An entry in neither of the two forms.
pub fn parse(node: &Node) -> Result<Port, Trouble> {
    let port = match node.as_str() {
        Some(text) => short(text, node.span),
        None => long(node),
    };
    port.ok_or_else(|| {
        let what = node.as_str().map_or_else(|| "invalid port".to_owned(), |text| format!("invalid port: `{text}`"));
        Trouble::new(what, node.span).fix("write \"HOST:CONTAINER\" or \"127.0.0.1:HOST:CONTAINER\", in quotes")
    })
}

fn short(text: &str, at: Span) -> Option<Port> {
    let (text, protocol) = match text.rsplit_once('/') {
        Some((text, protocol)) => (text, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (head, target) = text.rsplit_once(':').map_or((None, text), |(head, target)| (Some(head), target));
    let target = range(target)?;
    let (address, published) = match head {
        None => (None, None),
        Some(head) => {
            let (address, published) =
                head.rsplit_once(':').map_or((None, head), |(address, published)| (Some(address), published));
            // An IPv6 address should be in brackets; v1 accepts it without, and so does this
            // parser.
            (address.filter(|a| !a.is_empty()), if published.is_empty() { None } else { Some(range(published)?) })
        }
    };
    Some(Port { address: address.map(|a| a.trim_matches(['[', ']']).to_owned()), published, target, protocol, at })
}

fn long(node: &Node) -> Option<Port> {
    let text = |key: &str| node.get(key).and_then(Node::as_str);
    Some(Port {
        address: text("host_ip").filter(|a| !a.is_empty()).map(str::to_owned),
        published: match text("published").filter(|p| !p.is_empty()) {
            Some(published) => Some(range(published)?),
            None => None,
        },
        target: range(text("target")?)?,
        protocol: text("protocol").unwrap_or("tcp").to_owned(),
        at: node.span,
    })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("8188", None, None, (8188, 8188), true)]
    #[case("8188:8188", None, Some((8188, 8188)), (8188, 8188), true)]
    #[case("127.0.0.1:8188:8188", Some("127.0.0.1"), Some((8188, 8188)), (8188, 8188), false)]
    #[case("127.0.0.1::8188", Some("127.0.0.1"), None, (8188, 8188), false)]
    #[case("[::1]:80:8188/tcp", Some("::1"), Some((80, 80)), (8188, 8188), false)]
    #[case("0.0.0.0:9000-9002:8188-8190", Some("0.0.0.0"), Some((9000, 9002)), (8188, 8190), true)]
    #[case("192.168.1.5:80:80", Some("192.168.1.5"), Some((80, 80)), (80, 80), true)]
    fn short_entries(
        #[case] text: &str,
        #[case] address: Option<&str>,
        #[case] published: Option<(u16, u16)>,
        #[case] target: (u16, u16),
        #[case] everywhere: bool,
    ) {
        let port = parse(&Node::text(text, Span::default())).expect("it is right");
        assert_eq!((port.address.as_deref(), port.published, port.target), (address, published, target));
        assert_eq!(port.is_everywhere(), everywhere);
    }

    #[rstest]
    #[case("")]
    #[case("a:b")]
    #[case("70000")]
    #[case("9-1")]
    #[case("80:80/icmp")]
    fn invalid_ports_are_rejected(#[case] text: &str) {
        assert!(parse(&Node::text(text, Span::default())).is_err());
    }
}
