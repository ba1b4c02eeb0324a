//! Texts with wildcards (`*`, `?`) and policy variables (`${key}`).
//!
//! Source: AWS IAM User Guide, "IAM JSON policy elements: variables and tags".

use super::{Facts, canonical_key};

/// A text that others are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
    /// As it stands in the document.
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    One(char),
    AnyChar,
    AnyText,
    Variable { key: String, default: Option<String> },
}

/// Which characters of a text are special.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Syntax {
    /// `*` and `?` stand for others.
    pub wildcards: bool,
    /// `${…}` is replaced.
    pub variables: bool,
}

impl Pattern {
    /// Reads a text; a `${` without end stands for itself.
    pub fn new(text: &str, syntax: Syntax) -> Pattern {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some((token, after)) = rest.strip_prefix("${").filter(|_| syntax.variables).and_then(variable) {
                tokens.push(token);
                rest = after;
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match c {
                // Several in a row stand for the same texts as one, and matching is quicker.
                '*' if syntax.wildcards && tokens.last() == Some(&Token::AnyText) => {}
                '*' if syntax.wildcards => tokens.push(Token::AnyText),
                '?' if syntax.wildcards => tokens.push(Token::AnyChar),
                c => tokens.push(Token::One(c)),
            }
        }
        Pattern { tokens, text: text.to_owned() }
    }

    /// As it stands in the document.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it fits more texts than one.
    pub fn is_wide(&self) -> bool {
        self.tokens.iter().any(|token| !matches!(token, Token::One(_)))
    }

    /// Whether a text fits; `None`: a variable has no value.
    pub fn matches(&self, text: &str, facts: &Facts) -> Option<bool> {
        if !self.tokens.iter().any(|token| matches!(token, Token::Variable { .. })) {
            return Some(fits(&self.tokens, text));
        }
        let mut resolved = Vec::with_capacity(self.tokens.len());
        for token in &self.tokens {
            match token {
                Token::Variable { key, default } => {
                    let value = facts.get(key).and_then(|values| values.first().filter(|_| values.len() == 1));
                    resolved.extend(value.or(default.as_ref())?.chars().map(Token::One));
                }
                plain => resolved.push(plain.clone()),
            }
        }
        Some(fits(&resolved, text))
    }

    /// Whether a text fits, where variables have no values.
    pub fn matches_text(&self, text: &str) -> bool {
        self.matches(text, &Facts::default()).unwrap_or(false)
    }
}

/// The variable behind `${`, and what follows it.
fn variable(rest: &str) -> Option<(Token, &str)> {
    let (inner, after) = rest.split_once('}')?;
    let literal = match inner {
        "*" => Some('*'),
        "?" => Some('?'),
        "$" => Some('$'),
        _ => None,
    };
    if let Some(c) = literal {
        return Some((Token::One(c), after));
    }
    let (key, default) = match inner.split_once(',') {
        Some((key, default)) => (key, Some(default.trim().trim_matches('\'').to_owned())),
        None => (inner, None),
    };
    Some((Token::Variable { key: canonical_key(key.trim()), default }, after))
}

/// Greedy matching with one way back: to the last `*`. At most pattern × text steps.
fn fits(pattern: &[Token], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut way_back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::AnyText) => {
                way_back = Some((p + 1, t));
                p += 1;
            }
            Some(Token::AnyChar) => (p, t) = (p + 1, t + 1),
            Some(Token::One(c)) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match way_back {
                Some((after, from)) => {
                    way_back = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|token| *token == Token::AnyText)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Facts, Pattern, Syntax};

    const ALL: Syntax = Syntax { wildcards: true, variables: true };

    #[test]
    fn wildcards_stand_for_any_text_slashes_too() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(Pattern::new(pattern, ALL).matches_text(text), expected, "{pattern} {text}");
        };
        check("a*c", "abc", true);
        check("a*c", "a/b/c", true);
        check("a*c", "ac", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("*", "", true);
        check("**a**", "bab", true);
        check("a*b*c", "aXbXbXc", true);
        check("a*b*c", "aXbXbX", false);
        check("", "", true);
        check("", "a", false);
        check("?", "ä", true);
        check("${*}x", "*x", true);
        check("${*}x", "yx", false);
    }

    #[test]
    fn variables_are_replaced_and_their_values_are_no_patterns() {
        let mut facts = Facts::default();
        facts.add("aws:username", "a*");
        let pattern = Pattern::new("home/${aws:UserName}/*", ALL);
        assert_eq!(pattern.matches("home/a*/x", &facts), Some(true));
        assert_eq!(pattern.matches("home/ab/x", &facts), Some(false));
        assert_eq!(pattern.matches("home/ab/x", &Facts::default()), None);
        let with_default = Pattern::new("${aws:username, 'nobody'}", ALL);
        assert_eq!(with_default.matches("nobody", &Facts::default()), Some(true));
        let plain = Pattern::new("${aws:username}", Syntax { wildcards: true, variables: false });
        assert_eq!(plain.matches("${aws:username}", &facts), Some(true));
    }

    proptest! {
        #[test]
        fn a_pattern_fits_what_its_wildcards_stand_for(parts in prop::collection::vec("[a-c/]{0,4}", 1..5), filler in "[a-c/]{0,4}") {
            let pattern = Pattern::new(&parts.join("*"), ALL);
            prop_assert!(pattern.matches_text(&parts.join(&filler)));
        }
        #[test]
        fn reading_and_matching_never_panic(pattern in "[a*?${},: ]{0,20}", text in "\\PC{0,20}") {
            let _ = Pattern::new(&pattern, ALL).matches_text(&text);
        }
    }
}
