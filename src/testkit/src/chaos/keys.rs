//! What a key may hold, from what its only writer was told: pure.
//!
//! A write without an answer may take effect at any later time, so after one the key is written no more: from then on it may hold what it held
//! or what was sent, and whatever is seen of what was sent stays.

use std::sync::Arc;

/// An object as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Tells it from all others of a run.
    pub number: u64,
    /// Its length.
    pub len_bytes: usize,
    /// Of all its bytes.
    pub sha256: [u8; 32],
    /// As the server named it, if it was heard.
    pub etag: Option<String>,
}

/// An object, or nothing.
pub type Value = Option<Arc<Stored>>;

/// What a key may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    possible: Vec<Value>,
}

/// What was read is nothing that the key may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible;

impl Held {
    /// One of these, in the order of their writing.
    pub fn any_of(possible: Vec<Value>) -> Held {
        assert!(!possible.is_empty(), "a key holds something or nothing");
        Held { possible }
    }

    /// What it holds, if that is known.
    pub fn sure(&self) -> Option<&Value> {
        if let [value] = &self.possible[..] { Some(value) } else { None }
    }

    /// All that it may hold.
    pub fn possible(&self) -> &[Value] {
        &self.possible
    }

    /// A write was answered well.
    pub fn acknowledge(&mut self, value: Value) {
        self.possible = vec![value];
    }

    /// A write was sent, and nobody knows what became of it.
    pub fn doubt(&mut self, value: Value) {
        self.possible.push(value);
    }

    /// It was read: as long and with this checksum, or absent.
    pub fn saw(&mut self, found: Option<(usize, [u8; 32])>) -> Result<(), Impossible> {
        let is_found = |value: &Value| value.as_ref().map(|stored| (stored.len_bytes, stored.sha256)) == found;
        // Of equal ones the one that is already known: it rules out nothing.
        let index = self.possible.iter().position(is_found).ok_or(Impossible)?;
        // A write that has taken effect ends what was there before it; others in doubt may still come.
        if 0 < index {
            let seen = self.possible.remove(index);
            self.possible[0] = seen;
        }
        Ok(())
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, value) in self.possible.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " or " })?;
            match value {
                Some(stored) => write!(f, "object {:x} of {} bytes", stored.number, stored.len_bytes)?,
                None => f.write_str("nothing")?,
            }
        }
        Ok(())
    }
}

/// One try to create a key that several clients race for, each only if it is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Race {
    /// It was told that it created it.
    Won(Arc<Stored>),
    /// It was told that another had.
    Lost,
    /// It was told nothing.
    Unknown(Arc<Stored>),
}

/// What the key of a race may hold.
///
/// Errors: two were told that they had created it.
pub fn judge_race(tries: &[Race]) -> Result<Held, String> {
    let winners: Vec<&Arc<Stored>> =
        tries.iter().filter_map(|entry| if let Race::Won(stored) = entry { Some(stored) } else { None }).collect();
    if let [winner] = winners[..] {
        return Ok(Held::any_of(vec![Some(winner.clone())]));
    }
    if 1 < winners.len() {
        let numbers: Vec<String> = winners.iter().map(|stored| format!("{:x}", stored.number)).collect();
        return Err(format!("created by several, each only if it was absent: {}", numbers.join(", ")));
    }
    let unknown = tries.iter().filter_map(|entry| if let Race::Unknown(stored) = entry { Some(Some(stored.clone())) } else { None });
    // Who was told that another had created it was told so for ever.
    let absent = (!tries.contains(&Race::Lost)).then_some(None);
    let possible: Vec<Value> = absent.into_iter().chain(unknown).collect();
    if possible.is_empty() {
        return Err("everybody was told that another had created it".to_string());
    }
    Ok(Held::any_of(possible))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(number: u64) -> Arc<Stored> {
        Arc::new(Stored { number, len_bytes: number as usize, sha256: [number as u8; 32], etag: None })
    }

    fn found(number: u64) -> Option<(usize, [u8; 32])> {
        Some((number as usize, [number as u8; 32]))
    }

    #[test]
    fn only_what_was_acknowledged_may_be_there() {
        let mut held = Held::any_of(vec![None]);
        assert_eq!(held.saw(None), Ok(()));
        held.acknowledge(Some(stored(1)));
        assert_eq!(held.saw(None), Err(Impossible));
        assert_eq!(held.saw(found(2)), Err(Impossible));
        assert_eq!(held.saw(found(1)), Ok(()));
        held.acknowledge(None);
        assert_eq!(held.saw(found(1)), Err(Impossible), "a deleted object is back");
    }

    #[test]
    fn a_write_in_doubt_may_or_may_not_be_seen_but_not_taken_back() {
        let mut held = Held::any_of(vec![Some(stored(1))]);
        held.doubt(Some(stored(2)));
        assert_eq!(held.sure(), None);
        assert_eq!(held.saw(found(1)), Ok(()));
        assert_eq!(held.saw(found(2)), Ok(()));
        assert_eq!(held.saw(found(1)), Err(Impossible));
        assert_eq!(held.sure(), Some(&Some(stored(2))));
    }

    #[test]
    fn of_a_race_one_wins() {
        let (one, two) = (stored(1), stored(2));
        assert_eq!(
            judge_race(&[Race::Lost, Race::Won(one.clone()), Race::Unknown(two.clone())]),
            Ok(Held::any_of(vec![Some(one.clone())]))
        );
        assert_eq!(judge_race(&[Race::Unknown(two.clone())]), Ok(Held::any_of(vec![None, Some(two.clone())])));
        assert_eq!(judge_race(&[Race::Unknown(two.clone()), Race::Lost]), Ok(Held::any_of(vec![Some(two.clone())])));
        assert!(judge_race(&[Race::Won(one), Race::Won(two)]).is_err());
        assert!(judge_race(&[Race::Lost, Race::Lost]).is_err());
    }
}
