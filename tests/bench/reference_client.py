"""The reference client over a websocket as bench_ws.py measures it: subscribes, reads so many messages.

    reference_client.py URL TOPIC MESSAGES SECRETS      prints "ready", then a line of JSON
"""

import asyncio
import json
import os
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))
from reference_websocket import websocket_client  # noqa: E402


def cpu_s():
    times = os.times()
    return times.user + times.system


async def main(url, topic, messages, secrets):
    broadcaster = types.SimpleNamespace(url=url)
    async with websocket_client(broadcaster, secrets) as client:
        async with client.subscribe_exact(topic.encode()) as subscription:
            received = await subscription.messages()
            print("ready", flush=True)
            begun_s, left = 0.0, messages
            async for message in received:
                message.data.read()
                if left == messages:
                    begun_s = cpu_s()  # what came before is starting up
                left -= 1
                if left == 0:
                    break
            print(json.dumps({"delivered": messages - 1, "client_cpu_s": cpu_s() - begun_s}), flush=True)
            os._exit(0)  # leaving in order can take the reference its timeouts


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
