"""The reference client over a websocket as a peer of our broadcaster."""

import asyncio
import contextlib
import time

from lonelypsc.config.file_config import get_auth_config_from_file
from lonelypsc.config.ws_config import make_websocket_pub_sub_config
from lonelypsc.ws_client import WebsocketPubSubClient
from lonelypsp.auth.config import AuthConfigFromParts

from conftest import PATIENCE


@contextlib.asynccontextmanager
async def websocket_client(broadcaster, secrets=None, others=(), **compression):
    """A running WebsocketPubSubClient of lonelypsc, with the values that its documents suggest. It goes to
    `others` only when the first broadcaster does not answer. `compression`: what it is to have of that."""
    to_subscriber, to_broadcaster = get_auth_config_from_file(
        str(secrets or broadcaster.folder / "subscriber-secrets.json"))
    config = make_websocket_pub_sub_config(
        broadcasters=[{"host": b.url.replace("http", "ws", 1), "priority": 1 if b is broadcaster else 2}
                      for b in (broadcaster, *others)],
        outgoing_initial_connect_retries=5,
        outgoing_min_reconnect_interval=10,
        max_websocket_message_size=1048576,
        websocket_open_timeout=5,
        websocket_close_timeout=5,
        websocket_heartbeat_interval=10,
        websocket_minimal_headers=True,
        max_sent_notifications=1024,
        max_unsent_notifications=1024,
        max_expected_acks=None,
        max_received=1024,
        max_unsent_acks=1024,
        **{"allow_compression": False, "compression_dictionary_by_id": {},
           "initial_compression_dict_id": None, "allow_training_compression": False,
           "decompression_max_window_size": 8388608, **compression},
        auth=AuthConfigFromParts(to_broadcaster=to_broadcaster, to_subscriber=to_subscriber),
    )
    async with WebsocketPubSubClient(config) as client:
        yield client


async def wait_for_rows(broadcaster, exacts=0, globs=0):
    """A websocket subscriber does not wait for its confirmation; the broadcaster's own rows tell."""
    deadline = time.monotonic() + PATIENCE
    while any(broadcaster.query(f"SELECT count(*) FROM httppubsub_subscription_{table}") != [(count,)]
              for table, count in (("exacts", exacts), ("globs", globs))):
        assert time.monotonic() < deadline, "rows that do not come"
        await asyncio.sleep(0.01)
