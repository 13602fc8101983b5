//! Ways to a peer: several addresses, and the table of nodes.

use super::*;

fn address(text: &str) -> Address {
    Address::new(text.to_owned()).expect("short")
}

/// Where nobody listens any more.
fn nobody() -> Address {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    local(port.port())
}

fn lone_question() -> Request {
    Request::Hello { chain: ChainId::ZERO }
}

async fn is_reached(node: &Node, peer: &Peer) -> bool {
    let answer = node.call(peer, lone_question(), Bytes::new()).await;
    answer.expect_err("unsupported").code() == Code::Unsupported
}

/// A node that stays in the network "test" and admits everybody but `stranger`.
async fn resident(seed: u8, bootstrap: &[Peer], stranger: Option<PublicKey>) -> Node {
    let discovery =
        Discovery::serving("test".to_owned(), bootstrap.to_vec(), move |key| Some(*key) != stranger);
    let config = Config::new(&keypair(seed))
        .listen(any(Way::Tcp))
        .listen(any(Way::Quic))
        .service(Arc::new(Shelf::default()))
        .discovery(discovery)
        .tuning(quick());
    Node::start(config).await.expect("starts")
}

async fn visitor(seed: u8, network: &str, bootstrap: &Peer) -> Node {
    let discovery = Discovery::asking(network.to_owned(), vec![bootstrap.clone()]);
    Node::start(Config::new(&keypair(seed)).discovery(discovery).tuning(quick())).await.expect("starts")
}

/// Tries until it is so: the table is told of nodes and contracts in the background.
async fn soon<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    for _ in 0..200 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never came true: {what}");
}

/// Goal: a peer is reached at any of its addresses, whichever way is preferred, over IPv6 too. Method: a closed port, one
/// that takes connections and says nothing, and a good one of the other way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_way_is_tried() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mute = local(silent.local_addr().expect("bound").port());
    for way in WAYS {
        let (server, _) = server_over(Way::Quic, 10, quick()).await;
        for dead in [nobody(), mute.clone()] {
            let node =
                Node::start(Config::new(&keypair(1)).prefer(way).tuning(quick())).await.expect("starts");
            let addresses = server.addresses().into_iter().chain([dead]).collect();
            assert!(is_reached(&node, &Peer::new(server.peer().key, addresses)).await);
        }
    }
    for text in ["/ip6/::1/tcp/0", "/ip6/::1/udp/0/quic-v1"] {
        let config = Config::new(&keypair(11)).listen(address(text)).service(Arc::new(Shelf::default()));
        match Node::start(config).await {
            Ok(server) => assert!(is_reached(&caller(1).await, &server.peer()).await, "{text}"),
            Err(error) => eprintln!("skipped: this machine has no IPv6: {error}"),
        }
    }
}

/// Goal: from one address a visitor reaches nodes whose addresses are stale or not known, but not in another network. Method:
/// six nodes that know only the first; wrong addresses for the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_found_from_one_address() {
    let first = resident(20, &[], None).await;
    let mut others = Vec::new();
    for seed in 21..26 {
        others.push(resident(seed, &[first.peer()], None).await);
    }
    let last = others.last().expect("five").peer();
    let node = visitor(1, "test", &first.peer()).await;
    let stale = Peer::new(last.key, vec![nobody()]);
    soon("the last node is found", || is_reached_or_unreachable(&node, &stale)).await;
    for other in &others {
        let unknown = Peer::new(other.peer().key, Vec::new());
        soon("each node is found", || is_reached_or_unreachable(&node, &unknown)).await;
    }
    let elsewhere = visitor(2, "other", &first.peer()).await;
    assert!(!is_reached_or_unreachable(&elsewhere, &stale).await, "the networks don't mix");
    let gone = Peer::new(keypair(99).public(), vec![nobody()]);
    let fault = node.call(&gone, lone_question(), Bytes::new()).await.expect_err("nobody");
    assert_eq!(fault.code(), Code::Unreachable);
}

async fn is_reached_or_unreachable(node: &Node, peer: &Peer) -> bool {
    match node.call(peer, lone_question(), Bytes::new()).await.expect_err("unsupported").code() {
        Code::Unsupported => true,
        code => {
            assert_eq!(code, Code::Unreachable);
            false
        }
    }
}

/// Goal: who holds a contract is found, who let it go is not told by itself any more, and what a stranger says is not
/// kept. Method: two holders and one stranger among five nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_are_found() {
    let stranger = keypair(34).public();
    let first = resident(30, &[], Some(stranger)).await;
    let mut others = Vec::new();
    for seed in 31..35 {
        others.push(resident(seed, &[first.peer()], Some(stranger)).await);
    }
    let contract = ContractId::new([5; 32]);
    let held = || [contract].into_iter().collect();
    for holder in [&others[0], &others[1]] {
        holder.announce(held()).await;
    }
    others[3].announce([ContractId::new([6; 32])].into_iter().collect()).await;
    let node = visitor(1, "test", &first.peer()).await;
    let expected = || {
        let mut keys = [others[0].peer().key, others[1].peer().key];
        keys.sort_unstable();
        keys.to_vec()
    };
    soon("both holders are found", || async {
        let mut keys: Vec<_> = node.holders(contract).await.into_iter().map(|peer| peer.key).collect();
        keys.sort_unstable();
        keys == expected()
    })
    .await;
    let holder = node.holders(contract).await.pop().expect("one");
    soon("a holder can be called", || is_reached_or_unreachable(&node, &holder)).await;
    // The stranger itself says what it holds; nobody else repeats it.
    others[3].shutdown().await;
    assert_eq!(node.holders(ContractId::new([6; 32])).await, Vec::new());
    assert_eq!(node.holders(ContractId::new([7; 32])).await, Vec::new());
}
