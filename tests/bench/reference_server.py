"""The reference broadcaster as bench_http.py measures it: uvicorn, one worker, uvloop, httptools, no access
log; settings of its own template, its SQLite file in the current folder, any free port.

    reference_server.py none|hmac       prints "ready http 127.0.0.1:PORT"
    reference_server.py tables FILE     only makes the tables of an empty database
"""

import asyncio
import contextlib
import json
import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from lonelypsp.auth.config import AuthConfigFromParts
from lonelypsp.auth.helpers import hmac_auth_config as hmac
from lonelypsp.auth.helpers.none_auth_config import ToBroadcasterNoneAuth, ToSubscriberNoneAuth
from lonelypss.bknd.sweep_missed import sweep_missed
from lonelypss.config import config as settings
from lonelypss.config.helpers.sqlite_db_config import SqliteDBConfig
from lonelypss.config.lifespan import setup_config, teardown_config
from lonelypss.middleware.config import ConfigMiddleware
from lonelypss.middleware.ws_receiver import WSReceiverMiddleware
from lonelypss.router import router
from lonelypss.util.ws_receiver import SimpleFanoutWSReceiver

GENERIC = {
    "message_body_spool_size": 10 << 20,
    "outgoing_http_timeout_total": 30, "outgoing_http_timeout_connect": None,
    "outgoing_http_timeout_sock_read": 5, "outgoing_http_timeout_sock_connect": 5,
    "websocket_accept_timeout": 2, "websocket_max_pending_sends": 255,
    "websocket_max_unprocessed_receives": 255, "websocket_large_direct_send_timeout": 0.3,
    "websocket_send_max_unacknowledged": 3, "websocket_minimal_headers": True,
    "sweep_missed_interval": 10,
}
MISSED = {"expo_factor": 1, "expo_base": 2, "expo_max": 10, "max_retries": 20, "constant": 1,
          "jitter": 2}
COMPRESSION = {
    "compression_allowed": True, "compression_dictionary_by_id": {},
    "outgoing_max_ws_message_size": 16 << 20, "allow_training": True, "compression_min_size": 32,
    "compression_trained_max_size": 16 << 10, "compression_training_low_watermark": 100 << 10,
    "compression_training_high_watermark": 10 << 20,
    "compression_retrain_interval_seconds": 216000, "decompression_max_window_size": 8 << 20,
}


def authorization(kind):
    if kind == "none":
        return AuthConfigFromParts(to_broadcaster=ToBroadcasterNoneAuth(),
                                   to_subscriber=ToSubscriberNoneAuth())
    secrets = json.loads(Path("broadcaster-secrets.json").read_text())
    used = hmac.IncomingHmacAuthDBReentrantConfig(
        hmac.IncomingHmacAuthSqliteDBConfig("recent-hmacs.db"))
    return AuthConfigFromParts(
        to_broadcaster=hmac.ToBroadcasterHmacAuth(
            secret=secrets["to-broadcaster"]["secret"], db_config=used),
        to_subscriber=hmac.ToSubscriberHmacAuth(
            secret=secrets["to-subscriber"]["secret"], db_config=used))


def application(kind, url):
    config = settings.ConfigFromParts(
        auth=authorization(kind),
        db=SqliteDBConfig("subscriptions.db"),
        generic=settings.GenericConfigFromValues(**GENERIC),
        missed=settings.MissedRetryStandard(**MISSED),
        compression=settings.CompressionConfigFromParts(**COMPRESSION),
        tracing=settings.TracingConfigSimple(),
        notify_session=settings.NotifySessionStandard(),
    )
    fanout = SimpleFanoutWSReceiver(f"{url}/v1/receive_for_websockets",
                                    f"{url}/v1/missed_for_websockets", config)

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        await setup_config(config)
        try:
            async with fanout, sweep_missed(config):
                yield
        finally:
            await teardown_config(config)

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(ConfigMiddleware, config=config)
    app.add_middleware(WSReceiverMiddleware, ws_receiver=fanout)
    app.include_router(router)
    app.router.redirect_slashes = False
    return app


async def make_tables(path):
    database = SqliteDBConfig(path)
    await database.setup_db()
    await database.teardown_db()


def main(kind, path=None):
    if kind == "tables":
        asyncio.run(make_tables(path))
        return
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    app = application(kind, f"http://{address}")
    print(f"ready http {address}", flush=True)  # who connects already waits in the backlog
    uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False,
                                  log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
