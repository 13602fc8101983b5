//! Finding peers by the table of nodes (Kademlia): where a peer is, and who holds a contract.
//!
//! Guarantees: what a search finds is where to look, never whom to believe: a connection proves who answers. Nobody's
//! values are kept; that somebody holds a contract only if [`Discovery::admits`] knows him, in bounded memory
//! (`providers`). A node that only asks is in nobody's table. All that the table tells of a contract is its id.
//!
//! Does not: keep an attacker with many keys from surrounding one key of the table.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use libp2p::kad::{self, GetProvidersOk, InboundRequest, PeerInfo, QueryId, QueryResult, StoreInserts};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol, identify};
use tallow_types::ContractId;
use tallow_types::limits::ADDRESSES_MAX;
use tokio::sync::oneshot;

use crate::config::Discovery;
use crate::node::providers::Providers;
use crate::peer::{Peer, peer_id, public_key};

/// How long one search may take.
pub(super) const SEARCH: Duration = Duration::from_secs(5);
/// Largest message: all holders of one contract with their addresses. Bytes.
const MESSAGE_MAX: usize = 64 << 10;
/// How often a holder says again what it holds, and how long others believe it.
const SAY_AGAIN: Duration = Duration::from_secs(4 * 3600);
const BELIEVED: Duration = Duration::from_secs(24 * 3600);
/// Contracts announced at once.
const ANNOUNCING: usize = 4;
/// Up to so many nodes in the table, whoever joins is told what is held here.
const SMALL_TABLE: usize = 20;
/// As long as it is not more than this.
const FEW: usize = 1000;

pub(super) type Table = kad::Behaviour<Providers>;

/// The name of the table's protocol.
fn protocol(network: &str) -> StreamProtocol {
    let letters: String = network.chars().filter(char::is_ascii_alphanumeric).collect();
    StreamProtocol::try_from_owned(format!("/tallow/{letters}/kad/1")).expect("it begins with a slash")
}

/// An empty table for this node.
pub(super) fn table(me: PeerId, discovery: &Discovery) -> Table {
    let mut config = kad::Config::new(protocol(&discovery.network));
    config
        .set_query_timeout(SEARCH)
        .set_substreams_timeout(SEARCH)
        .set_max_packet_size(MESSAGE_MAX)
        .set_record_filtering(StoreInserts::FilterBoth)
        // Nodes come in by what they say of themselves (`meet`); whoever merely asks does not fill a table at all.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(Some(SAY_AGAIN))
        .set_provider_record_ttl(Some(BELIEVED))
        .set_caching(kad::Caching::Disabled);
    if !discovery.serves {
        config.set_periodic_bootstrap_interval(None);
    }
    let mut table = Table::with_config(me, Providers::new(me), config);
    table.set_mode(Some(if discovery.serves { kad::Mode::Server } else { kad::Mode::Client }));
    table
}

/// What goes on in the table.
pub(super) struct Finder {
    discovery: Discovery,
    protocol: StreamProtocol,
    /// Whether addresses on this machine itself mean anything: they do in a network that lives on one.
    is_local: bool,
    /// Whether the table has been told whom to ask first.
    has_begun: bool,
    searches: HashMap<QueryId, Search>,
    /// What this node holds.
    held: BTreeSet<ContractId>,
    to_announce: VecDeque<ContractId>,
    /// Whether somebody joined who may not have heard.
    is_news: bool,
}

/// Who waits for a search.
enum Search {
    Address { of: PeerId, done: oneshot::Sender<Vec<Multiaddr>> },
    Holders { found: BTreeSet<PeerId>, done: oneshot::Sender<Vec<PeerId>> },
    Announcing,
}

impl Finder {
    pub(super) fn new(discovery: Discovery, listen: &[Multiaddr]) -> Self {
        let bootstrap = discovery.bootstrap.iter().flat_map(|peer| &peer.addresses);
        let bootstrap = bootstrap.filter_map(|address| address.as_str().parse().ok());
        let is_local = listen.iter().cloned().chain(bootstrap).any(|address| is_of_this_machine(&address));
        Self {
            protocol: protocol(&discovery.network),
            discovery,
            is_local,
            has_begun: false,
            searches: HashMap::new(),
            held: BTreeSet::new(),
            to_announce: VecDeque::new(),
            is_news: false,
        }
    }

    pub(super) const fn serves(&self) -> bool {
        self.discovery.serves
    }

    /// Tells the table whom to ask first, once.
    pub(super) fn begin(&mut self, table: &mut Table) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        for Peer { key, addresses } in &self.discovery.bootstrap {
            let Some(id) = peer_id(key) else { continue };
            for address in addresses.iter().filter_map(|address| address.as_str().parse().ok()) {
                table.add_address(&id, address);
            }
        }
    }

    /// Looks for the addresses of a peer.
    pub(super) fn find(&mut self, table: &mut Table, of: PeerId, done: oneshot::Sender<Vec<Multiaddr>>) {
        self.begin(table);
        self.searches.insert(table.get_closest_peers(of), Search::Address { of, done });
    }

    /// Looks for those who hold a contract.
    pub(super) fn holders(
        &mut self,
        table: &mut Table,
        contract: &ContractId,
        done: oneshot::Sender<Vec<PeerId>>,
    ) {
        self.begin(table);
        let query = table.get_providers(kad::RecordKey::new(contract.as_bytes()));
        self.searches.insert(query, Search::Holders { found: BTreeSet::new(), done });
    }

    /// Says from now on that this node holds these contracts, and no others.
    pub(super) fn announce(&mut self, table: &mut Table, held: BTreeSet<ContractId>) {
        for gone in self.held.difference(&held) {
            table.stop_providing(&kad::RecordKey::new(gone.as_bytes()));
        }
        self.to_announce.retain(|contract| held.contains(contract));
        self.to_announce.extend(held.difference(&self.held));
        self.held = held;
        self.announce_next(table);
    }

    fn announce_next(&mut self, table: &mut Table) {
        let size = table.kbuckets().map(|bucket| bucket.num_entries()).sum::<usize>();
        if size == 0 {
            // Nobody would hear it.
            return;
        }
        let under_way = self.searches.values().filter(|search| matches!(search, Search::Announcing)).count();
        if self.to_announce.is_empty() && under_way == 0 && std::mem::take(&mut self.is_news) {
            self.to_announce.extend(&self.held);
        }
        for _ in under_way..ANNOUNCING {
            let Some(contract) = self.to_announce.pop_front() else { return };
            match table.start_providing(kad::RecordKey::new(contract.as_bytes())) {
                Ok(query) => {
                    self.searches.insert(query, Search::Announcing);
                }
                Err(error) => tracing::warn!(%error, "a contract is not announced"),
            }
        }
    }

    /// What a peer says of itself: nodes of this network go into the table.
    pub(super) fn meet(&mut self, table: &mut Table, peer: &PeerId, info: &identify::Info) {
        if !self.has_begun || !info.protocols.contains(&self.protocol) {
            return;
        }
        let usable = info.listen_addrs.iter().filter(|address| self.is_local || !is_of_this_machine(address));
        let whole = usable.take(ADDRESSES_MAX).filter_map(|address| address.clone().with_p2p(*peer).ok());
        let newest: Vec<Multiaddr> = whole.collect();
        for address in &newest {
            table.add_address(peer, address.clone());
        }
        // What it said before is forgotten: else it could say something else for ever.
        for address in addresses_of(table, peer).iter().filter(|address| !newest.contains(address)) {
            table.remove_address(peer, address);
        }
    }

    /// What the table reports.
    pub(super) fn note(&mut self, table: &mut Table, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                self.hear(table, record);
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => {
                let size = table.kbuckets().map(|bucket| bucket.num_entries()).sum::<usize>();
                self.is_news |= size <= SMALL_TABLE && self.held.len() <= FEW;
                self.announce_next(table);
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.progress(id, &result, step.last);
                if step.last {
                    self.announce_next(table);
                }
            }
            _ => {}
        }
    }

    fn hear(&self, table: &mut Table, record: kad::ProviderRecord) {
        let is_admitted = public_key(&record.provider).is_some_and(|key| (self.discovery.admits)(&key));
        if !is_admitted || record.key.as_ref().len() != ContractId::ZERO.as_bytes().len() {
            tracing::debug!(provider = %record.provider, "an announcement is not kept: no seeder of this network");
            return;
        }
        if let Err(error) = kad::store::RecordStore::add_provider(table.store_mut(), record) {
            tracing::debug!(%error, "an announcement is not kept");
        }
    }

    fn progress(&mut self, id: QueryId, result: &QueryResult, is_last: bool) {
        if let (
            Some(Search::Holders { found, .. }),
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })),
        ) = (self.searches.get_mut(&id), result)
        {
            found.extend(providers);
        }
        if !is_last {
            return;
        }
        // Who waited may have gone.
        match (self.searches.remove(&id), result) {
            (Some(Search::Address { of, done }), QueryResult::GetClosestPeers(result)) => {
                let peers = match result {
                    Ok(found) => &found.peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                let _ = done.send(self.addresses(&of, peers));
            }
            (Some(Search::Holders { found, done }), _) => {
                let _ = done.send(found.into_iter().collect());
            }
            _ => {}
        }
    }

    fn addresses(&self, of: &PeerId, peers: &[PeerInfo]) -> Vec<Multiaddr> {
        let found = peers.iter().filter(|info| info.peer_id == *of).flat_map(|info| &info.addrs);
        let usable = found.filter(|address| self.is_local || !is_of_this_machine(address));
        let whole = usable.map(|address| {
            // The table adds the name of the peer, which the dial knows.
            address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect::<Multiaddr>()
        });
        let once: BTreeSet<String> = whole.map(|address| address.to_string()).collect();
        once.iter().take(ADDRESSES_MAX).filter_map(|address| address.parse().ok()).collect()
    }
}

/// What the table has of a peer.
fn addresses_of(table: &mut Table, peer: &PeerId) -> Vec<Multiaddr> {
    let Some(bucket) = table.kbucket(*peer) else { return Vec::new() };
    let entry = bucket.iter().find(|entry| entry.node.key.preimage() == peer);
    entry.map(|entry| entry.node.value.iter().cloned().collect()).unwrap_or_default()
}

fn is_of_this_machine(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback() || ip.is_unspecified(),
        Protocol::Ip6(ip) => ip.is_loopback() || ip.is_unspecified(),
        _ => false,
    })
}
