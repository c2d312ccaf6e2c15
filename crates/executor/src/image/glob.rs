//! Shell patterns as Go's `path.Match`: `*` and `?` do not cross `/`, classes in brackets, backslash escapes.

/// Whether all of `text` matches `pattern`. A malformed pattern matches nothing.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Greedy with one level of backtracking: only the last `*` can need another try.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        let step = text.get(t).and_then(|c| match_one(&pattern[p..], *c));
        if let Some(used) = step {
            p += used;
            t += 1;
            continue;
        }
        match star {
            Some((after, start)) if text.get(start).is_some_and(|c| *c != '/') => {
                p = after;
                t = start + 1;
                star = Some((after, t));
            }
            _ => return false,
        }
    }
}

/// How many pattern characters match `c`, if they do.
fn match_one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => (c != '/').then_some(1),
        '\\' => (*pattern.get(1)? == c).then_some(2),
        '[' => match_class(pattern, c),
        literal => (*literal == c).then_some(1),
    }
}

fn match_class(pattern: &[char], c: char) -> Option<usize> {
    let mut at = 1;
    let is_negated = pattern.get(at) == Some(&'^');
    at += usize::from(is_negated);
    let mut is_hit = false;
    let mut is_first = true;
    loop {
        if pattern.get(at) == Some(&']') && !is_first {
            return (is_hit != is_negated).then_some(at + 1);
        }
        is_first = false;
        at += usize::from(pattern.get(at) == Some(&'\\'));
        let low = *pattern.get(at)?;
        at += 1;
        let mut high = low;
        if pattern.get(at) == Some(&'-') {
            at += 1 + usize::from(pattern.get(at + 1) == Some(&'\\'));
            high = *pattern.get(at)?;
            at += 1;
        }
        is_hit |= (low..=high).contains(&c);
    }
}

#[cfg(test)]
mod tests {
    #[track_caller]
    fn check(pattern: &str, text: &str, expect: bool) {
        assert_eq!(
            super::matches(pattern, text),
            expect,
            "{pattern} against {text}"
        );
    }

    #[test]
    fn patterns_match_as_in_go() {
        check("busybox", "busybox", true);
        check("busy*", "busybox", true);
        check("busy*", "busybox/x", false);
        check("*/*", "a/b", true);
        check("*:lat*", "busybox:latest", true);
        check("b?sybox", "busybox", true);
        check("[a-c]usybox", "busybox", true);
        check("[^a-c]usybox", "busybox", false);
        check("[", "x", false);
        check("a\\*", "a*", true);
        check("a*b*c", "axxbyybzc", true);
        check("", "", true);
        check("*", "", true);
        check("", "a", false);
    }
}
