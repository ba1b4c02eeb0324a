//! One TOML table, read key by key; mistakes are gathered with their lines instead of ending at the first.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Listen, Problem, Warning, removed, values};

/// What reading found so far, and where lines start.
pub(super) struct Issues {
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Warning>>,
}

impl Issues {
    pub(super) fn new(text: &str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect();
        Issues { line_starts, problems: RefCell::default(), warnings: RefCell::default() }
    }

    /// The line, from 1, of a byte offset.
    pub(super) fn line(&self, offset_bytes: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset_bytes)
    }

    pub(super) fn problem(&self, line: Option<usize>, key: impl Into<String>, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { line, key: key.into(), message: message.into() });
    }

    pub(super) fn warning(&self, line: Option<usize>, key: impl Into<String>, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Warning(Problem { line, key: key.into(), message: message.into() }));
    }

    /// Problems in the order of the file, what is missing first; and warnings likewise.
    pub(super) fn into_sorted(self) -> (Vec<Problem>, Vec<Warning>) {
        let (mut problems, mut warnings) = (self.problems.into_inner(), self.warnings.into_inner());
        problems.sort_by_key(|problem| problem.line);
        warnings.sort_by_key(|warning| warning.0.line);
        (problems, warnings)
    }
}

/// A table whose keys are taken one by one; what is left at the end is unknown.
pub(super) struct TableReader<'a> {
    /// Prefix of key names in messages: empty, or `s3_api.`.
    prefix: String,
    line: Option<usize>,
    table: &'a DeTable<'a>,
    issues: &'a Issues,
    taken: RefCell<BTreeSet<String>>,
}

/// Reads one value, or says what it must be.
pub(super) type Parse<T> = fn(&DeValue<'_>) -> Result<T, String>;

impl<'a> TableReader<'a> {
    pub(super) fn root(table: &'a DeTable<'a>, issues: &'a Issues) -> Self {
        TableReader { prefix: String::new(), line: None, table, issues, taken: RefCell::default() }
    }

    fn find(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.taken.borrow_mut().insert(key.to_owned());
        self.table.get(key)
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Whether the key stands in the file.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The line of the key's value.
    pub(super) fn line_of(&self, key: &str) -> Option<usize> {
        self.table.get(key).map(|value| self.issues.line(value.span().start))
    }

    /// Notes a mistake about `key`.
    pub(super) fn refuse(&self, key: &str, message: impl Into<String>) {
        self.issues.problem(self.line_of(key).or(self.line), self.full(key), message);
    }

    /// Notes something about `key` that has no effect.
    pub(super) fn warn(&self, key: &str, message: impl Into<String>) {
        self.issues.warning(self.line_of(key).or(self.line), self.full(key), message);
    }

    /// The value of an optional key; `None` also when it is wrong, which is then noted.
    pub(super) fn get<T>(&self, key: &str, parse: Parse<T>) -> Option<T> {
        match parse(self.find(key)?.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.refuse(key, message);
                None
            }
        }
    }

    /// The value of a key that must be there.
    pub(super) fn require<T>(&self, key: &str, parse: Parse<T>, meaning: &str) -> Option<T> {
        if !self.has(key) {
            self.taken.borrow_mut().insert(key.to_owned());
            self.issues.problem(self.line, self.full(key), format!("missing; it is required: {meaning}"));
        }
        self.get(key, parse)
    }

    /// Overwrites a default if the key is there.
    pub(super) fn set<T>(&self, key: &str, parse: Parse<T>, field: &mut T) {
        if let Some(value) = self.get(key, parse) {
            *field = value;
        }
    }

    /// Overwrites an absent default if the key is there.
    pub(super) fn set_some<T>(&self, key: &str, parse: Parse<T>, field: &mut Option<T>) {
        if let Some(value) = self.get(key, parse) {
            *field = Some(value);
        }
    }

    /// The table under `key`.
    pub(super) fn table(&self, key: &str) -> Option<TableReader<'a>> {
        let value = self.find(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(self.child(format!("{}{key}.", self.prefix), value, table)),
            other => {
                self.refuse(key, format!("must be a table, [{}{key}], not {}", self.prefix, kind(other)));
                None
            }
        }
    }

    /// The tables of the array under `key`; `None` when it is something else than an array.
    pub(super) fn tables(&self, key: &str) -> Option<Vec<TableReader<'a>>> {
        let DeValue::Array(entries) = self.find(key)?.get_ref() else { return None };
        let read = |(index, entry): (usize, &'a Spanned<DeValue<'a>>)| match entry.get_ref() {
            DeValue::Table(table) => Some(self.child(format!("{}{key}[{index}].", self.prefix), entry, table)),
            other => {
                let line = self.issues.line(entry.span().start);
                self.issues.problem(Some(line), format!("{}{key}[{index}]", self.prefix), format!("must be a table, not {}", kind(other)));
                None
            }
        };
        Some(entries.iter().enumerate().filter_map(read).collect())
    }

    /// The texts of the array under `key` with their lines.
    pub(super) fn lines_of_texts(&self, key: &str) -> Vec<(usize, String)> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let DeValue::Array(entries) = value.get_ref() else {
            self.refuse(key, format!("must be an array of strings, not {}", kind(value.get_ref())));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for entry in entries.iter() {
            let line = self.issues.line(entry.span().start);
            match entry.get_ref() {
                DeValue::String(text) => texts.push((line, text.to_string())),
                other => self.issues.problem(Some(line), self.full(key), format!("must be an array of strings, holds {}", kind(other))),
            }
        }
        texts
    }

    /// Notes something without effect at a known line.
    pub(super) fn warn_at(&self, line: usize, key: &str, message: impl Into<String>) {
        self.issues.warning(Some(line), self.full(key), message);
    }

    /// Notes a mistake at a known line.
    pub(super) fn refuse_at(&self, line: usize, key: &str, message: impl Into<String>) {
        self.issues.problem(Some(line), self.full(key), message);
    }

    fn child(&self, prefix: String, value: &Spanned<DeValue<'a>>, table: &'a DeTable<'a>) -> TableReader<'a> {
        let line = Some(self.issues.line(value.span().start));
        TableReader { prefix, line, table, issues: self.issues, taken: RefCell::default() }
    }

    /// Notes every key that nobody asked for: a warning for what older releases knew, a mistake for the rest.
    /// `elsewhere` are the keys of the top level, for those who write one after a table header.
    pub(super) fn finish(&self, elsewhere: &BTreeSet<String>) {
        let known = self.taken.borrow();
        let mut unknown: Vec<(usize, &str)> = Vec::new();
        for (key, _) in self.table.iter() {
            if !known.contains(key.get_ref().as_ref()) {
                unknown.push((self.issues.line(key.span().start), key.get_ref()));
            }
        }
        for (line, key) in unknown {
            if let Some(advice) = removed::advice(&self.full(key)) {
                self.warn_at(line, key, advice);
                continue;
            }
            let message = if elsewhere.contains(key) {
                format!("unknown key in this table; {key} is a top-level key and must stand before the first [table]")
            } else {
                unknown_key_message(key, &known)
            };
            self.refuse_at(line, key, message);
        }
    }

    /// The keys asked for so far.
    pub(super) fn known_keys(&self) -> BTreeSet<String> {
        self.taken.borrow().clone()
    }
}

fn unknown_key_message(key: &str, known: &BTreeSet<String>) -> String {
    let nearest = known.iter().map(|name| (edit_distance(key, name), name)).min();
    let lead = match nearest {
        Some((distance, name)) if distance <= 1 + key.len() / 4 => format!("did you mean {name}? Allowed"),
        _ => "allowed".to_owned(),
    };
    let allowed: Vec<&str> = known.iter().map(String::as_str).collect();
    format!("unknown key; {lead} here: {}", allowed.join(", "))
}

/// Insertions, deletions and replacements that turn `left` into `right`.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, left_char) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, right_char) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(left_char != *right_char);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

/// A value's kind, with article, for messages.
fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {:?}", text.chars().take(60).collect::<String>()),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(flag) => format!("the boolean {flag}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// A string.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("must be a string, not {}", kind(value)))
}

/// A string that is not empty.
pub(super) fn filled_text(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text) }
}

/// A path.
pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    filled_text(value).map(PathBuf::from)
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false, not {}", kind(value)))
}

/// An integer of any size that fits 128 bits.
pub(super) fn integer(value: &DeValue<'_>) -> Result<i128, String> {
    let DeValue::Integer(number) = value else { return Err(format!("must be an integer, not {}", kind(value))) };
    i128::from_str_radix(number.as_str(), number.radix()).map_err(|_| format!("must be an integer, {number} is too large"))
}

/// An integer from 1.
pub(super) fn count(value: &DeValue<'_>) -> Result<usize, String> {
    let number = integer(value)?;
    usize::try_from(number).ok().filter(|count| *count >= 1).ok_or_else(|| format!("must be an integer of at least 1, not {number}"))
}

/// SIZE as an integer or a string.
pub(super) fn size(value: &DeValue<'_>) -> Result<u64, String> {
    match value {
        DeValue::Integer(_) => {
            let number = integer(value)?;
            u64::try_from(number).map_err(|_| format!("must be a size from 0 bytes up, not {number}"))
        }
        DeValue::String(_) => size_text(value),
        other => Err(format!("must be a size, an integer (bytes) or a string such as \"10G\" or \"1.5 TiB\", not {}", kind(other))),
    }
}

/// SIZE as a string only.
pub(super) fn size_text(value: &DeValue<'_>) -> Result<u64, String> {
    let text = value.as_str().ok_or_else(|| format!("must be a size as a string, such as \"10G\" or \"1.5 TiB\", not {}", kind(value)))?;
    values::parse_size(text).map_err(|error| error.0)
}

/// A time span of systemd's form.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    let text = value.as_str().ok_or_else(|| format!("must be a duration as a string, such as \"6h\", not {}", kind(value)))?;
    values::parse_duration(text).map_err(|error| error.0)
}

/// Milliseconds, from 1.
pub(super) fn milliseconds(value: &DeValue<'_>) -> Result<Duration, String> {
    let number = integer(value)?;
    let milliseconds = u64::try_from(number).ok().filter(|count| *count >= 1);
    milliseconds.map(Duration::from_millis).ok_or_else(|| format!("must be a number of milliseconds of at least 1, not {number}"))
}

/// `ip:port`.
pub(super) fn socket_addr(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    values::parse_socket_addr(&text(value)?).map_err(|error| error.0)
}

/// `ip:port`, `[ip6]:port` or `hostname:port`.
pub(super) fn host_addr(value: &DeValue<'_>) -> Result<values::HostAddr, String> {
    values::parse_host_addr(&text(value)?).map_err(|error| error.0)
}

/// `ip:port` or a socket path.
pub(super) fn listen(value: &DeValue<'_>) -> Result<Listen, String> {
    values::parse_listen(&text(value)?).map_err(|error| error.0)
}

/// A URL with an authority, `http://` or `https://`.
pub(super) fn url(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).map(|rest| rest.split('/').next().unwrap_or(""));
    match authority {
        Some(authority) if !authority.is_empty() && !text.contains(char::is_whitespace) => Ok(text),
        _ => Err(format!("must be a URL with a host, such as \"https://s3.example.org\", not {text:?}")),
    }
}

/// A domain suffix; leading dots do not matter.
pub(super) fn domain(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    let trimmed = text.trim_start_matches('.');
    if trimmed.is_empty() {
        Err(format!("must be a domain such as \"s3.example.org\", not {text:?}"))
    } else {
        Ok(trimmed.to_ascii_lowercase())
    }
}

/// A table of strings.
pub(super) fn text_table(value: &DeValue<'_>) -> Result<BTreeMap<String, String>, String> {
    let table = value.as_table().ok_or_else(|| format!("must be a table of strings, not {}", kind(value)))?;
    table
        .iter()
        .map(|(key, entry)| {
            Ok((key.get_ref().to_string(), text(entry.get_ref()).map_err(|message| format!("{}: {message}", key.get_ref()))?))
        })
        .collect()
}
