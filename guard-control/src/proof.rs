//! Proofs of what the control plane holds: the ends of agents' chains enter, a signed tree and proofs from it leave.
//!
//! Once in a while all that came since the last time becomes leaves, one for the records of each agent. The tree only grows.
//! Whoever keeps one signed head can have it proved later that nothing under it was changed or left out.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use guard_common::audit::{
    chain::Hash,
    merkle::{self, Place, Span},
    proof::{Consistency, Inclusion, Leaf, Sealed, TreeHead, leaf_bytes},
};

use crate::{
    keys::SigningKey,
    store::{
        Store, StoreError, hash,
        sql::{Line, Sql, Value},
    },
};

/// Records of one leaf.
const LEAF_RECORDS: u64 = 65_536;
/// Leaves that are added at once; more follow at once.
const LEAVES: usize = 256;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// Nothing was gathered yet.
    #[error("there is no signed tree yet: it follows within a minute of the first records")]
    Empty,
    /// The record is not there, or not any more.
    #[error("record {0} of this agent is not stored: it never came, or was deleted after its time")]
    Absent(u64),
    /// The record came after the last tree.
    #[error("record {0} is not in the tree yet: it follows within a minute")]
    Later(u64),
    /// There is a hole among the records of the leaf, after the fact.
    #[error(
        "some records beside record {0} were deleted after their time: its proof cannot be made any more"
    )]
    Deleted(u64),
    /// No earlier tree.
    #[error(
        "there is no tree of {0} leaves here: the file is from another control plane, or the tree was cut"
    )]
    Unknown(u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Gathers what came, every so often, for as long as it is not dropped.
pub async fn keep_gathering(store: Store, key: SigningKey, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        loop {
            match gather(&store, &key).await {
                // There was more than fits at once.
                Ok(leaves) if leaves >= LEAVES => {}
                Ok(_) => break,
                // Also where another replica was quicker.
                Err(error) => {
                    tracing::debug!(%error, "the tree of records was not extended");
                    break;
                }
            }
        }
    }
}

/// Adds what came since the last time to the tree and signs it; how many leaves there are more.
pub async fn gather(store: &Store, key: &SigningKey) -> Result<usize, StoreError> {
    let select = "SELECT agent_id, proved_sequence, head_sequence FROM agents
         WHERE head_sequence > proved_sequence ORDER BY id";
    let grown = store.query(Sql::new(select, [])).await?;
    let mut tree = Growing::open(store).await?;
    let mut steps = Vec::new();
    for agent in &grown {
        let (agent_id, head) = (agent.text(0), agent.int(2).cast_unsigned());
        let mut proved = agent.int(1).cast_unsigned();
        while proved < head && tree.added < LEAVES {
            let (first, last) = (proved + 1, head.min(proved + LEAF_RECORDS));
            let hashes = store.hashes(agent_id, first, last).await?;
            // Records that never came have no hash; of those that came, all count.
            if let Some(end) = hashes.last() {
                let root = merkle::root(&hashes.iter().map(|hash| merkle::leaf(hash)).collect::<Vec<_>>());
                steps.push(tree.leaf(agent_id, (first, last), end, &root));
            }
            proved = last;
        }
        let update = "UPDATE agents SET proved_sequence = $1 WHERE agent_id = $2";
        steps.push(Sql::new(update, [proved.cast_signed().into(), agent_id.into()]));
    }
    if tree.added == 0 {
        return Ok(0);
    }
    let added = tree.added;
    steps.extend(tree.close(key));
    // Another replica that has done the same makes this fail, on the leaf's number: nothing of it is kept.
    store.run(steps).await?;
    Ok(added)
}

/// The tree, while leaves are added.
struct Growing {
    size: u64,
    added: usize,
    /// The complete subtrees at its right edge, and what was made of them.
    nodes: HashMap<Place, Hash>,
    new: Vec<(Place, Hash)>,
}

impl Growing {
    async fn open(store: &Store) -> Result<Self, StoreError> {
        let lines = store.query(Sql::new("SELECT coalesce(max(number) + 1, 0) FROM leaves", [])).await?;
        let size = lines.first().map_or(0, |line| line.int(0)).cast_unsigned();
        let nodes = nodes(store, &merkle::subtrees(0, size)).await?;
        Ok(Self { size, added: 0, nodes, new: Vec::new() })
    }

    /// Adds a leaf, and all nodes that it completes.
    fn leaf(&mut self, agent_id: &str, (first, last): (u64, u64), head: &Hash, root: &Hash) -> Sql {
        let mut hash = merkle::leaf(&leaf_bytes(agent_id, (first, last), head, root));
        let mut place = Place { level: 0, number: self.size };
        loop {
            self.nodes.insert(place, hash);
            self.new.push((place, hash));
            let left = Place { number: place.number.wrapping_sub(1), ..place };
            let Some(left) = self.nodes.get(&left).filter(|_| place.number & 1 == 1) else { break };
            hash = merkle::node(left, &hash);
            place = Place { level: place.level + 1, number: place.number >> 1 };
        }
        let number = self.size;
        self.size += 1;
        self.added += 1;
        Sql::new(
            "INSERT INTO leaves (number, agent_id, first, last, head, root) VALUES ($1, $2, $3, $4, $5, $6)",
            [
                number.cast_signed().into(),
                agent_id.into(),
                first.cast_signed().into(),
                last.cast_signed().into(),
                head.to_vec().into(),
                root.to_vec().into(),
            ],
        )
    }

    /// What is to be stored: the nodes, and the signed head.
    fn close(self, key: &SigningKey) -> Vec<Sql> {
        let insert = "INSERT INTO nodes (level, number, hash) VALUES ($1, $2, $3)";
        let node = |(place, hash): &(Place, Hash)| {
            let values =
                [i64::from(place.level).into(), place.number.cast_signed().into(), hash.to_vec().into()];
            Sql::new(insert, values)
        };
        let mut steps: Vec<Sql> = self.new.iter().map(node).collect();
        // INVARIANT: the right edge of a tree is among the nodes that were read or made.
        let edge = merkle::subtrees(0, self.size);
        let root =
            merkle::fold(&edge.iter().filter_map(|place| self.nodes.get(place).copied()).collect::<Vec<_>>());
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        let signature = key.sign(&TreeHead::message(self.size, &root, at));
        steps.push(Sql::new(
            "INSERT INTO tree_heads (size, root, at, key_id, signature) VALUES ($1, $2, $3, $4, $5)",
            [
                Value::Int(self.size.cast_signed()),
                root.to_vec().into(),
                at.into(),
                key.public().id().into(),
                signature.into(),
            ],
        ));
        steps
    }
}

/// The latest signed head.
pub async fn tree_head(store: &Store) -> Result<TreeHead, ProveError> {
    let select = "SELECT size, root, at, key_id, signature FROM tree_heads ORDER BY size DESC LIMIT 1";
    let lines = store.query(Sql::new(select, [])).await?;
    let line = lines.first().ok_or(ProveError::Empty)?;
    Ok(TreeHead {
        size: line.int(0).cast_unsigned(),
        root: hex::encode(line.bytes(1)),
        at: line.int(2),
        key_id: line.text(3).to_owned(),
        signature: hex::encode(line.bytes(4)),
    })
}

/// Proves that a record is held.
pub async fn inclusion(store: &Store, agent_id: &str, sequence: u64) -> Result<Inclusion, ProveError> {
    let tree_head = tree_head(store).await?;
    let sealed = store.record(agent_id, sequence).await?.ok_or(ProveError::Absent(sequence))?;
    let select = "SELECT number, first, last, head, root FROM leaves
         WHERE agent_id = $1 AND last >= $2 AND number < $3 ORDER BY last LIMIT 1";
    let values = [agent_id.into(), sequence.cast_signed().into(), tree_head.size.cast_signed().into()];
    let lines = store.query(Sql::new(select, values)).await?;
    let line = lines.first().ok_or(ProveError::Later(sequence))?;
    let (number, leaf) = (line.int(0).cast_unsigned(), leaf(agent_id, line));
    if leaf.first > sequence {
        return Err(ProveError::Later(sequence));
    }
    let hashes = store.hashes(agent_id, leaf.first, leaf.last).await?;
    let own = hash(&sealed.hash)?;
    let at = hashes.iter().position(|hash| *hash == own).ok_or(ProveError::Absent(sequence))?;
    let leaves: Vec<Hash> = hashes.iter().map(|hash| merkle::leaf(hash)).collect();
    if hex::encode(merkle::root(&leaves)) != leaf.root {
        return Err(ProveError::Deleted(sequence));
    }
    let record_path = merkle::prove(&leaves, at as u64).unwrap_or_default();
    let spans = merkle::inclusion(number, tree_head.size).ok_or(ProveError::Later(sequence))?;
    Ok(Inclusion {
        guard_audit_proof: 1,
        record: Sealed {
            sequence,
            previous: hex::encode(&sealed.previous),
            hash: hex::encode(own),
            payload: STANDARD.encode(&sealed.payload),
        },
        leaf,
        record_at: (at as u64, leaves.len() as u64),
        record_path: record_path.iter().map(hex::encode).collect(),
        leaf_at: number,
        leaf_path: path(store, &spans).await?,
        tree_head,
    })
}

/// Proves that the tree of `from`, which somebody has kept, is the beginning of the present one.
pub async fn consistency(store: &Store, from: TreeHead) -> Result<Consistency, ProveError> {
    let to = tree_head(store).await?;
    let spans = merkle::consistency(from.size, to.size).ok_or(ProveError::Unknown(from.size))?;
    let path = if from.size == to.size { Vec::new() } else { path(store, &spans).await? };
    Ok(Consistency { guard_audit_consistency: 1, from, to, path })
}

fn leaf(agent_id: &str, line: &Line) -> Leaf {
    Leaf {
        agent_id: agent_id.to_owned(),
        first: line.int(1).cast_unsigned(),
        last: line.int(2).cast_unsigned(),
        head: hex::encode(line.bytes(3)),
        root: hex::encode(line.bytes(4)),
    }
}

/// The hashes over these spans of leaves, hex.
async fn path(store: &Store, spans: &[Span]) -> Result<Vec<String>, StoreError> {
    let places: Vec<Vec<Place>> = spans.iter().map(|(from, to)| merkle::subtrees(*from, *to)).collect();
    let all: Vec<Place> = places.iter().flatten().copied().collect();
    let nodes = nodes(store, &all).await?;
    let over = |places: &Vec<Place>| {
        hex::encode(merkle::fold(
            &places.iter().filter_map(|place| nodes.get(place).copied()).collect::<Vec<_>>(),
        ))
    };
    Ok(places.iter().map(over).collect())
}

/// The nodes at these places.
async fn nodes(store: &Store, places: &[Place]) -> Result<HashMap<Place, Hash>, StoreError> {
    let select = "SELECT hash FROM nodes WHERE level = $1 AND number = $2";
    let question =
        |place: &Place| Sql::new(select, [i64::from(place.level).into(), place.number.cast_signed().into()]);
    let answers = store.run(places.iter().map(question).collect()).await?;
    let mut nodes = HashMap::new();
    for (place, lines) in places.iter().zip(answers) {
        let line = lines.first().ok_or(StoreError::Torn)?;
        nodes.insert(*place, hash(line.bytes(0))?);
    }
    Ok(nodes)
}
