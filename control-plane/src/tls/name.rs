//! Names of gateways in certificates: SPIFFE IDs, and the patterns that say which of them are gateways.
//!
//! A pattern is compared segment by segment, and a wildcard is one whole segment, as in authorization policies of meshes. Regular
//! expressions were the worse alternative: `.` and a missing anchor let names through that nobody thought of.

use std::fmt;
use std::str::FromStr;

const SCHEME: &str = "spiffe://";

/// Bounds of the SPIFFE specification.
const MAX_NAME_BYTES: usize = 2_048;
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// The segment of a pattern that is the gateway's id.
const GATEWAY: &str = "{gateway}";

/// Which names are those of gateways: `spiffe://example.org/ns/*/sa/gateway`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    trust_domain: String,
    path: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exactly(String),
    Any,
    Gateway,
}

/// The name of a gateway, as its certificate says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayName {
    /// All of it.
    pub name: String,
    /// The only gateway id that it may sync as; any if the pattern does not say.
    pub id: Option<String>,
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{reason}. A pattern looks like spiffe://example.org/ns/*/sa/gateway: `*` is any one segment, `{GATEWAY}` one that must be the gateway's id"
)]
pub struct BadPattern {
    reason: String,
}

/// The name with the id, if one of the patterns fits. A pattern that binds the id goes before those that do not: a second
/// pattern must not set a gateway free that another one binds.
pub(super) fn find(patterns: &[NamePattern], name: &str) -> Option<GatewayName> {
    let (trust_domain, path) = parts(name).ok()?;
    let mut fitting = patterns
        .iter()
        .filter_map(|pattern| pattern.fits(trust_domain, &path));
    let first = fitting.next()?;
    let id = first.or_else(|| fitting.flatten().next());
    Some(GatewayName {
        name: name.to_owned(),
        id: id.map(str::to_owned),
    })
}

// === impl NamePattern ===

impl NamePattern {
    /// Whether it fits, and if so the id, where the pattern has one.
    fn fits<'a>(&self, trust_domain: &str, path: &[&'a str]) -> Option<Option<&'a str>> {
        if self.trust_domain != trust_domain || self.path.len() != path.len() {
            return None;
        }
        let mut id = None;
        for (segment, is) in self.path.iter().zip(path) {
            match segment {
                Segment::Exactly(must_be) if must_be != is => return None,
                Segment::Exactly(_) | Segment::Any => {}
                Segment::Gateway => id = Some(*is),
            }
        }
        Some(id)
    }
}

impl FromStr for NamePattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        // The wildcards are no letters of a name; in their place a letter is read.
        let (trust_domain, path) = split(text).map_err(BadPattern::from)?;
        check_trust_domain(trust_domain).map_err(BadPattern::from)?;
        let mut segments = Vec::new();
        for segment in path {
            segments.push(match segment {
                "*" => Segment::Any,
                GATEWAY if segments.contains(&Segment::Gateway) => {
                    return Err(BadPattern::from(format!("{GATEWAY} is there twice")));
                }
                GATEWAY => Segment::Gateway,
                segment => {
                    check_segment(segment).map_err(BadPattern::from)?;
                    Segment::Exactly(segment.to_owned())
                }
            });
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            path: segments,
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}", self.trust_domain)?;
        for segment in &self.path {
            let text = match segment {
                Segment::Exactly(text) => text,
                Segment::Any => "*",
                Segment::Gateway => GATEWAY,
            };
            write!(formatter, "/{text}")?;
        }
        Ok(())
    }
}

// === impl BadPattern ===

impl From<String> for BadPattern {
    fn from(reason: String) -> Self {
        Self { reason }
    }
}

/// Trust domain and path of a SPIFFE ID.
fn parts(name: &str) -> Result<(&str, Vec<&str>), String> {
    let (trust_domain, path) = split(name)?;
    check_trust_domain(trust_domain)?;
    for segment in &path {
        check_segment(segment)?;
    }
    Ok((trust_domain, path))
}

fn split(name: &str) -> Result<(&str, Vec<&str>), String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("it is longer than {MAX_NAME_BYTES} bytes"));
    }
    let rest = name
        .strip_prefix(SCHEME)
        .ok_or_else(|| format!("it does not begin with {SCHEME}"))?;
    let (trust_domain, path) = rest
        .split_once('/')
        .ok_or_else(|| "it has no path, so it names a trust domain and nobody in it".to_owned())?;
    Ok((trust_domain, path.split('/').collect()))
}

fn check_trust_domain(trust_domain: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    if trust_domain.is_empty() || trust_domain.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(format!(
            "its trust domain has not 1 to {MAX_TRUST_DOMAIN_BYTES} letters"
        ));
    }
    if !trust_domain.bytes().all(is_allowed) {
        return Err(
            "its trust domain has other letters than a-z, 0-9, `.`, `-` and `_`".to_owned(),
        );
    }
    Ok(())
}

fn check_segment(segment: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if matches!(segment, "" | "." | "..") {
        return Err("a segment of its path is empty, `.` or `..`".to_owned());
    }
    if !segment.bytes().all(is_allowed) {
        return Err(
            "a segment of its path has other letters than A-Z, a-z, 0-9, `.`, `-` and `_`"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<NamePattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn is_gateway(pattern: &str, name: &str) -> bool {
        find(&patterns(&[pattern]), name).is_some()
    }

    #[test]
    fn a_name_fits_segment_by_segment_and_nothing_else_does() {
        let pattern = "spiffe://example.org/ns/*/sa/gateway";
        assert!(is_gateway(
            pattern,
            "spiffe://example.org/ns/edge/sa/gateway"
        ));
        for other in [
            "",
            "spiffe://",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org/ns/edge/sa",
            "spiffe://example.org/ns/edge/sa/gateway/",
            "spiffe://example.org/ns/edge/sa/gateway/more",
            "spiffe://example.org/ns/edge/sa/gateway2",
            "spiffe://example.org/ns/edge/sa/Gateway",
            "spiffe://example.org/ns/edge/more/sa/gateway",
            "spiffe://example.org/ns//sa/gateway",
            "spiffe://example.org/ns/../sa/gateway",
            "spiffe://example.org/ns/%65dge/sa/gateway",
            "spiffe://example.org/ns/*/sa/gateway",
            "spiffe://example.org//ns/edge/sa/gateway",
            "spiffe://example.org/ns/edge/sa/gateway?a",
            "spiffe://example.org/ns/edge/sa/gateway#a",
            "spiffe://example.org:443/ns/edge/sa/gateway",
            "spiffe://user@example.org/ns/edge/sa/gateway",
            "spiffe://example.org.evil/ns/edge/sa/gateway",
            "spiffe://Example.org/ns/edge/sa/gateway",
            "SPIFFE://example.org/ns/edge/sa/gateway",
            "https://example.org/ns/edge/sa/gateway",
            " spiffe://example.org/ns/edge/sa/gateway",
            "spiffe://example.org/ns/edge/sa/gateway\0",
        ] {
            assert!(!is_gateway(pattern, other), "{other}");
        }
        let long = format!("spiffe://example.org/ns/{}/sa/gateway", "a".repeat(2_048));
        assert!(!is_gateway(pattern, &long));
    }

    #[test]
    fn the_id_is_the_segment_that_the_pattern_names_whatever_other_patterns_say() {
        let name = "spiffe://example.org/gateway/g1";
        let free = "spiffe://example.org/gateway/*";
        let bound = "spiffe://example.org/gateway/{gateway}";
        let id_by = |texts: &[&str]| find(&patterns(texts), name).unwrap().id;
        assert_eq!(id_by(&[free]), None);
        for texts in [
            &[bound][..],
            &[free, bound],
            &[bound, free],
            &[free, free, bound],
        ] {
            assert_eq!(id_by(texts).as_deref(), Some("g1"), "{texts:?}");
        }
    }

    #[test]
    fn a_pattern_that_would_admit_more_than_it_seems_to_is_refused_with_the_reason() {
        for (bad, says) in [
            ("", "does not begin with"),
            ("https://example.org/gateway", "does not begin with"),
            ("spiffe://example.org", "has no path"),
            ("spiffe:///gateway", "trust domain"),
            ("spiffe://*/gateway", "trust domain"),
            ("spiffe://Example.org/gateway", "trust domain"),
            ("spiffe://{gateway}/gateway", "trust domain"),
            ("spiffe://example.org/", "empty"),
            ("spiffe://example.org/gateway/", "empty"),
            ("spiffe://example.org/../gateway", "empty"),
            ("spiffe://example.org/gate*", "other letters"),
            ("spiffe://example.org/**", "other letters"),
            ("spiffe://example.org/g-{gateway}", "other letters"),
            ("spiffe://example.org/{id}", "other letters"),
            ("spiffe://example.org/{gateway}/{gateway}", "twice"),
        ] {
            let error = bad.parse::<NamePattern>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
            assert!(error.contains("looks like spiffe://"), "{error}");
        }
    }

    #[test]
    fn a_pattern_is_printed_as_it_was_given() {
        let text = "spiffe://example.org/ns/*/gateway/{gateway}";
        assert_eq!(text.parse::<NamePattern>().unwrap().to_string(), text);
    }
}
