//! Patterns of names: `*` matches any sequence of characters, including an empty one. All other characters match themselves.

/// Whether a name matches a pattern. The number of steps is at most the product of their lengths.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut in_name) = (0, 0);
    // The last star, and the end of what it has matched.
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, in_name));
            at += 1;
        } else if pattern.get(at) == Some(&name[in_name]) {
            at += 1;
            in_name += 1;
        } else if let Some((at_star, end)) = star {
            star = Some((at_star, end + 1));
            at = at_star + 1;
            in_name = end + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_matches_any_sequence() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "fraud"),
            ("fraud", "fraud"),
            ("team-a-*", "team-a-fraud"),
            ("team-a-*", "team-a-"),
            ("*/llama", "meta/llama"),
            ("a*b*c", "aXbYbZc"),
            ("**", "x"),
            ("*é*", "café au lait"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "fraud"),
            ("fraud", "fraud2"),
            ("fraud2", "fraud"),
            ("team-a-*", "team-ab"),
            ("team-a-*", "xteam-a-fraud"),
            ("a*b*c", "aXbYbZ"),
            ("Fraud", "fraud"),
            ("?raud", "fraud"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        let (pattern, name) = ("a*".repeat(100) + "b", "a".repeat(10_000));
        assert!(!matches(&pattern, &name));
    }
}
