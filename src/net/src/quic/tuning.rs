//! How QUIC is set up: windows from one budget, time-outs, packet sizes, congestion control, stateless resets.

use std::{sync::Arc, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::{CryptoError, HmacKey},
};
use sha2::Sha256;

use garage_util::runtime::Runtime;

use crate::{
    identity::NodeKey,
    limits::{
        CONNECTION_WINDOW_MAX_BYTES, CONNECTION_WINDOW_MIN_BYTES, DATAGRAM_BUFFER_BYTES, IDLE_TIME_MAX, INITIAL_CONGESTION_WINDOW_BYTES,
        INITIAL_RTT, KEEP_ALIVE_INTERVAL, RESET_INTERVAL_MIN, STREAM_WINDOW_MAX_BYTES, UDP_PAYLOAD_MAX_BYTES, UNPROVEN_WINDOW_BYTES,
    },
};

/// The window of each of `count` connections that share `budget_bytes`.
pub fn connection_window_bytes(budget_bytes: u64, count: usize) -> u64 {
    (budget_bytes / count.max(1) as u64).clamp(CONNECTION_WINDOW_MIN_BYTES, CONNECTION_WINDOW_MAX_BYTES)
}

/// The window of one stream: a quarter of a connection's, so that a stalled reader holds up no other stream.
pub fn stream_window_bytes(budget_bytes: u64) -> u64 {
    (connection_window_bytes(budget_bytes, 1) / 4).min(STREAM_WINDOW_MAX_BYTES)
}

/// For every connection as it begins: a peer that has proven nothing gets one stream and next to no memory.
pub fn transport_config(budget_bytes: u64) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_MAX_BYTES);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_CONGESTION_WINDOW_BYTES);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(UNPROVEN_WINDOW_BYTES))
        .stream_receive_window(VarInt::try_from(stream_window_bytes(budget_bytes)).unwrap_or(VarInt::MAX))
        .send_window(connection_window_bytes(budget_bytes, 1))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIME_MAX.as_millis() as u32))))
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .congestion_controller_factory(Arc::new(congestion));
    config
}

/// For an endpoint of the node with `key`.
///
/// The key of stateless resets is the same in every run of a node: packets of a connection that died with the former run are answered by
/// one, and the peer dials again at once instead of waiting for silence to last.
pub fn endpoint_config(key: &NodeKey, runtime: &Runtime) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey::of(key)));
    let runtime = runtime.clone();
    config.cid_generator(move || Box::new(RandomIds { runtime: runtime.clone() }));
    config.min_reset_interval(RESET_INTERVAL_MIN);
    config.max_udp_payload_size(UDP_PAYLOAD_MAX_BYTES).expect("the limit is between 1200 and 65527, as QUIC asks");
    config
}

/// Plain random connection ids: one of a former run looks as valid as one of this run, so that it is answered by a reset.
struct RandomIds {
    runtime: Runtime,
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.runtime.random_u64().to_le_bytes())
    }
    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Makes the tokens of stateless resets.
struct ResetKey([u8; 32]);

impl ResetKey {
    fn of(key: &NodeKey) -> ResetKey {
        let mut tagger = Hmac::<Sha256>::new_from_slice(key.seed()).expect("HMAC takes keys of any length");
        tagger.update(b"garage stateless reset");
        ResetKey(tagger.finalize().into_bytes().into())
    }

    fn tagger(&self, data: &[u8]) -> Hmac<Sha256> {
        let mut tagger = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        tagger.update(data);
        tagger
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let tag = self.tagger(data).finalize().into_bytes();
        let len = signature_out.len().min(tag.len());
        signature_out[..len].copy_from_slice(&tag[..len]);
    }
    fn signature_len(&self) -> usize {
        32
    }
    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        self.tagger(data).verify_slice(signature).map_err(|_| CryptoError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::{connection_window_bytes, stream_window_bytes};
    use crate::limits::{CONNECTION_WINDOW_MAX_BYTES, CONNECTION_WINDOW_MIN_BYTES};

    proptest! {
        #[test]
        fn windows_share_the_budget_down_to_the_least_that_works(budget_bytes in 0..1u64 << 40, count in 0..10_000usize) {
            let window = connection_window_bytes(budget_bytes, count);
            prop_assert!((CONNECTION_WINDOW_MIN_BYTES..=CONNECTION_WINDOW_MAX_BYTES).contains(&window));
            prop_assert!(window == CONNECTION_WINDOW_MIN_BYTES || window * count as u64 <= budget_bytes);
            prop_assert!(stream_window_bytes(budget_bytes) * 4 <= connection_window_bytes(budget_bytes, 1));
        }
    }
}
