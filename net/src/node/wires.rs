//! The two ways that connections take: TCP with Noise and Yamux, and QUIC.

use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, noise, quic, tcp};

use super::mux::{STREAMS_MAX, Yamux};
use super::socket::Socket;

/// Most that a peer may have on its way or unread here on one QUIC stream, and on all of a connection. Bytes.
const QUIC_STREAM_WINDOW: u32 = 8 << 20;
const QUIC_WINDOW: u32 = 32 << 20;

/// How long a handshake over QUIC may take: nobody says that nobody listens there.
const QUIC_PATIENCE: Duration = Duration::from_secs(5);

/// Both ways, for one identity. Connecting takes at most `patience`.
pub(super) fn both(
    identity: &Keypair,
    patience: Duration,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|socket, _| Socket::new(socket))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(identity)?)
        .multiplex(Yamux::default())
        .timeout(patience)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut config = quic::Config::new(identity);
    config.handshake_timeout = patience.min(QUIC_PATIENCE);
    config.max_concurrent_stream_limit = u32::try_from(STREAMS_MAX).unwrap_or(u32::MAX);
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_WINDOW;
    let quic = quic::tokio::Transport::new(config).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(tcp.or_transport(quic).map(|either, _| either.into_inner()).boxed())
}
