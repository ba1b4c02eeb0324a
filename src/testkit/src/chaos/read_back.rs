//! At the end every key is read back from every node that has a role, and all of them must say the same.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    keys::{Held, judge_race},
    load::{Read, client_of, read},
    nodes::Cluster,
    report::Report,
};

/// All of it takes no longer; what is not read by then counts as lost.
const TIME_MAX: Duration = Duration::from_secs(240);
/// Reads at once.
const READERS_COUNT: usize = 6;
/// Tries of a read that fails, before the object counts as lost.
const TRIES_COUNT: usize = 5;
const RETRY_AFTER: Duration = Duration::from_secs(2);

type Keys = Arc<Mutex<std::vec::IntoIter<(String, Held)>>>;

/// Reads every key back from every node that has a role.
pub(super) async fn read_all_back(cluster: &Cluster, report: &mut Report) {
    for (key, tries) in std::mem::take(&mut report.races) {
        match judge_race(&tries) {
            Ok(held) => {
                report.expected.insert(key, held);
            }
            Err(why) => report.lost.push(format!("{key}: {why}")),
        }
    }
    let deadline = Instant::now() + TIME_MAX;
    for node in cluster.members.all().into_iter().map(|index| &cluster.nodes[index]) {
        let keys: Vec<(String, Held)> = report.expected.clone().into_iter().collect();
        let keys: Keys = Arc::new(Mutex::new(keys.into_iter()));
        let readers: Vec<_> = (0..READERS_COUNT)
            .map(|_| tokio::spawn(read_some(client_of(cluster, [node.index]), node.index, keys.clone(), deadline)))
            .collect();
        for reader in readers {
            match reader.await {
                // What one node answered the next must answer too.
                Ok((found, seen)) => {
                    report.expected.extend(found);
                    report.add(seen);
                }
                Err(error) => report.lost.push(format!("a reader of the test failed: {error}")),
            }
        }
    }
}

async fn read_some(client: crate::load::Client, node: usize, keys: Keys, deadline: Instant) -> (BTreeMap<String, Held>, Report) {
    let (mut found, mut report) = (BTreeMap::new(), Report::default());
    loop {
        let next = keys.lock().next();
        let Some((key, mut held)) = next else { return (found, report) };
        let mut tries_count = 0;
        loop {
            tries_count += 1;
            if deadline < Instant::now() {
                report.lost.push(format!("{key} through node {node}: not read within {TIME_MAX:?}; it holds {held}"));
                break;
            }
            match read(&client, 0, &key, &mut held).await {
                Read::Right(value) => {
                    report.read_back_count += 1;
                    let is_it = |other: &&super::keys::Value| other.as_ref().map(|stored| (stored.len_bytes, stored.sha256)) == value;
                    // Nothing is written any more, so what is in doubt is settled by the first who reads it.
                    let settled = held.possible().iter().find(is_it).cloned().into_iter().collect::<Vec<_>>();
                    found.insert(key, Held::any_of(settled));
                }
                Read::Failed(_) if tries_count < TRIES_COUNT => {
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
                Read::Failed(why) | Read::Wrong(why) => report.lost.push(format!("through node {node}, {key}: {why}; it holds {held}")),
            }
            break;
        }
    }
}
