//! Holds a recorded history against the promises: linearizable keys, complete listings.

use crate::history::{Action, Call, Listed, Listing, Recorded, Told, is_linearizable};

/// What is wrong with a history; empty: nothing.
pub fn violations(recorded: &Recorded, keys: &[String]) -> Vec<String> {
    let mut found = recorded.anomalies.clone();
    for (key, name) in keys.iter().enumerate() {
        let calls: Vec<Call> = recorded.calls.iter().filter(|call| call.key == key).copied().collect();
        if !is_linearizable(&calls) {
            found.push(format!("no order explains what was answered about {name:?}:\n{}", story(&calls)));
        }
    }
    for listing in &recorded.listings {
        found.extend(check_listing(listing, recorded, keys).map(|wrong| format!("{wrong}, listed as {listing:?}")));
    }
    found
}

/// The calls as a person reads them, the shortest beginning that can't be explained.
fn story(calls: &[Call]) -> String {
    let mut ends: Vec<u64> = calls.iter().map(|call| call.end).filter(|end| *end != u64::MAX).collect();
    ends.sort_unstable();
    // What ends later is taken for unanswered, until the beginning alone can be explained.
    let until = |moment: u64| -> Vec<Call> {
        let begun = calls.iter().filter(|call| call.begin <= moment);
        let cut = |call: &Call| if call.end <= moment { *call } else { Call { told: Told::Unknown, end: u64::MAX, ..*call } };
        begun.map(cut).collect()
    };
    let shortest = ends.into_iter().map(until).find(|calls| !is_linearizable(calls)).unwrap_or_else(|| calls.to_vec());
    shortest.iter().map(|call| format!("  {call:?}\n")).collect()
}

fn check_listing(listing: &Listing, recorded: &Recorded, keys: &[String]) -> Option<String> {
    if !listing.entries.windows(2).all(|pair| position(&pair[0]) < position(&pair[1])) {
        return Some("entries out of order".to_string());
    }
    for entry in &listing.entries {
        let is_explained = match entry {
            Listed::Key(name, value) => {
                let key = keys.iter().position(|key| key == name);
                key.is_some_and(|key| folds_into(listing, name) == Place::Itself && may_show(listing, recorded, key, *value))
            }
            Listed::Prefix(prefix) => keys
                .iter()
                .enumerate()
                .any(|(key, name)| folds_into(listing, name) == Place::Under(prefix.clone()) && !is_gone_for_sure(listing, recorded, key)),
        };
        if !is_explained {
            return Some(format!("{entry:?} can't be there"));
        }
    }
    for (key, name) in keys.iter().enumerate().filter(|(key, _)| is_there_for_sure(listing, recorded, *key)) {
        let is_shown = match folds_into(listing, name) {
            Place::Nowhere => true,
            Place::Itself => listing.entries.iter().any(|entry| matches!(entry, Listed::Key(listed, _) if listed == name)),
            Place::Under(prefix) => listing.entries.contains(&Listed::Prefix(prefix)),
        };
        if !is_shown {
            return Some(format!("{name:?} (key {key}) is missing"));
        }
    }
    None
}

fn position(entry: &Listed) -> &str {
    match entry {
        Listed::Key(name, _) => name,
        Listed::Prefix(prefix) => prefix,
    }
}

#[derive(PartialEq, Eq)]
enum Place {
    Nowhere,
    Itself,
    Under(String),
}

fn folds_into(listing: &Listing, name: &str) -> Place {
    let Some(rest) = name.strip_prefix(&listing.prefix) else { return Place::Nowhere };
    match listing.delimiter.as_ref().and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len())) {
        Some(len) => Place::Under(format!("{}{}", listing.prefix, &rest[..len])),
        None => Place::Itself,
    }
}

/// Writes on a key that the listing may have seen.
fn writes<'a>(listing: &'a Listing, recorded: &'a Recorded, key: usize) -> impl Iterator<Item = &'a Call> + Clone {
    recorded.calls.iter().filter(move |call| call.key == key && call.may_have_written() && call.begin < listing.end)
}

fn is_put(call: &Call) -> bool {
    matches!(call.action, Action::Put(_))
}

/// Whether a write of one kind was answered before the listing, and every write of the other kind before that one began.
fn is_settled(listing: &Listing, recorded: &Recorded, key: usize, is_last: fn(&Call) -> bool) -> bool {
    let (writes, others) = (writes(listing, recorded, key), writes(listing, recorded, key).filter(|call| !is_last(call)));
    let outlives = |last: &Call| others.clone().all(|other| other.end < last.begin);
    writes.filter(|call| is_last(call)).any(|last| last.end < listing.begin && outlives(last))
}

fn is_there_for_sure(listing: &Listing, recorded: &Recorded, key: usize) -> bool {
    is_settled(listing, recorded, key, is_put)
}

fn is_gone_for_sure(listing: &Listing, recorded: &Recorded, key: usize) -> bool {
    !writes(listing, recorded, key).any(is_put) || is_settled(listing, recorded, key, |call| call.action == Action::Delete)
}

/// Whether a listing may show this content: it was written, and nothing answered before the listing came after it.
fn may_show(listing: &Listing, recorded: &Recorded, key: usize, value: u32) -> bool {
    let is_over = |shown: &Call| writes(listing, recorded, key).any(|later| shown.end < later.begin && later.end < listing.begin);
    writes(listing, recorded, key).any(|call| call.action == Action::Put(value) && !is_over(call))
}
