"""The reference client as a peer of our broadcaster."""

import asyncio
import contextlib

from fastapi import APIRouter
from lonelypsc.config.http_config import make_http_pub_sub_config
from lonelypsc.config.file_config import get_auth_config_from_file
from lonelypsc.http_client import HttpPubSubClient
from lonelypsp.auth.config import AuthConfigFromParts
from lonelypsp.tracing.impl.simple.config import SimpleTracingConfig
from lonelypsp.tracing.impl.simple.db import SimpleTracingDBSidecar
from lonelypsp.tracing.impl.simple.stateless.root import SimpleStatelessTracingSubscriberRoot

from conftest import PATIENCE, free_port


async def _bind_nothing(router: APIRouter) -> None:
    """For a client that only notifies."""
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def reference_client(broadcaster, secrets=None, receives=True, resubscribe_interval=300,
                           host_suffix="", tracing_file=":memory:", others=(),
                           timeout_total=PATIENCE):
    """A running HttpPubSubClient of lonelypsc, over HTTP, with simple tracing. It knows `others`, too, and
    goes there only when the first does not answer."""
    port = free_port()
    to_subscriber, to_broadcaster = get_auth_config_from_file(
        str(secrets or broadcaster.folder / "subscriber-secrets.json"))
    tracing_config = SimpleTracingConfig()
    async with SimpleTracingDBSidecar(tracing_config, str(tracing_file)) as tracing_db:
        config = make_http_pub_sub_config(
            bind=({"type": "uvicorn", "host": "127.0.0.1", "port": port} if receives
                  else {"type": "manual", "callback": _bind_nothing}),
            host=f"http://127.0.0.1:{port}{host_suffix}",
            broadcasters=[{"host": broadcaster.url, "priority": 1},
                          *({"host": other.url, "priority": 2} for other in others)],
            outgoing_retries_per_broadcaster=2,
            resubscribe_interval=resubscribe_interval,
            message_body_spool_size=10 * 1024 * 1024,
            outgoing_http_timeout_total=timeout_total,
            outgoing_http_timeout_connect=None,
            outgoing_http_timeout_sock_read=None,
            outgoing_http_timeout_sock_connect=5,
            outgoing_retry_ambiguous=True,
            auth=AuthConfigFromParts(to_broadcaster=to_broadcaster, to_subscriber=to_subscriber),
            tracing=SimpleStatelessTracingSubscriberRoot(tracing_db, tracing_config),
        )
        async with HttpPubSubClient(config) as client:
            yield client


async def notify(client, topic, data=None, file=None):
    """How many were notified."""
    result = await client.notify(topic=topic, trace_initializer=None,
                                 **({"data": data} if file is None else {"sync_file": file}))
    return result.notified


@contextlib.asynccontextmanager
async def reading(subscription):
    """A queue of (topic, data) that a task fills: the reference subscriber confirms a message only
    when its application asks for the next one."""
    received = asyncio.Queue()

    async def read():
        async for message in await subscription.messages():
            received.put_nowait((message.topic, message.data.read()))

    task = asyncio.create_task(read())
    try:
        yield received
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def next_message(received):
    return await asyncio.wait_for(received.get(), PATIENCE)


def run(coroutine, patience=4 * PATIENCE):
    """Runs one test's coroutine, with an end to it."""
    return asyncio.run(asyncio.wait_for(coroutine, patience))
