"""Others at our SQLite file: an operator, the reference's package, a second broadcaster.
(doc/architecture.md, store and index; doc/protocol/http.md, 12 and 13)
"""

import asyncio
import contextlib
import sqlite3
import threading

import pytest
from lonelypss.config.helpers.sqlite_db_config import SqliteDBConfig

import bodies
from conftest import setup_folder
from wire import check, notify, post, subscribe, unsubscribe

EXACTS, GLOBS = "httppubsub_subscription_exacts", "httppubsub_subscription_globs"


# ---- An operator ----


def test_rows_from_outside(broadcaster, subscriber):
    """The next notify honours them."""
    url = subscriber.url()
    assert notify(broadcaster, "topic") == 0
    broadcaster.query(f"INSERT INTO {EXACTS} (url, exact) VALUES (?, ?)", url, b"topic")
    assert notify(broadcaster, "topic") == 1
    broadcaster.query(f"INSERT INTO {GLOBS} (url, glob) VALUES (?, ?)", url, "t*")
    assert notify(broadcaster, "topic") == 2
    broadcaster.query(f"UPDATE {GLOBS} SET glob = 'x*'")
    assert notify(broadcaster, "topic") == 1
    assert notify(broadcaster, "x") == 1
    broadcaster.query(f"UPDATE {EXACTS} SET url = ?", subscriber.url("/new"))
    assert notify(broadcaster, "topic") == 1
    assert subscriber.seen()[-1].target == "/new"
    broadcaster.query(f"DELETE FROM {EXACTS}")
    broadcaster.query(f"DELETE FROM {GLOBS}")
    assert notify(broadcaster, "topic") == 0
    assert notify(broadcaster, "x") == 0
    subscribe(broadcaster, "exact", url, "topic")
    assert notify(broadcaster, "topic") == 1


def test_recovery_from_outside(start_broadcaster, subscriber, dead_url):
    broadcaster = start_broadcaster(missed__sweep_missed_interval="1h")
    subscribe(broadcaster, "exact", dead_url, "t")
    broadcaster.query(f"UPDATE {EXACTS} SET missed_url = ?", subscriber.url("/m"))
    assert notify(broadcaster, "t") == 0
    assert broadcaster.query(f"SELECT missed_attempts FROM {EXACTS}") == [(0,)]


def test_many_rows_in_one_transaction(broadcaster, subscriber):
    assert notify(broadcaster, "0") == 0
    with contextlib.closing(sqlite3.connect(broadcaster.database)) as db, db:
        db.executemany(f"INSERT INTO {EXACTS} (url, exact) VALUES (?, ?)",
                       [(subscriber.url(), b"%d" % i) for i in range(5000)])
        assert notify(broadcaster, "4999") == 0, "not committed"
    assert notify(broadcaster, "4999") == 1
    with contextlib.closing(sqlite3.connect(broadcaster.database)) as db, db:
        db.execute(f"DELETE FROM {EXACTS}")
        db.execute("ROLLBACK")
    assert notify(broadcaster, "4999") == 1


@pytest.mark.parametrize("url, topic", [(b"http://\xff", b"t"), (7, b"t"), ("u", "text"), ("u", 9)])
def test_rows_that_make_no_sense(broadcaster, subscriber, url, topic):
    """Types that we never write. They disturb nobody."""
    broadcaster.query(f"INSERT INTO {EXACTS} (url, exact) VALUES (?, ?)", url, topic)
    broadcaster.query(f"INSERT INTO {GLOBS} (url, glob) VALUES (?, ?)", url, topic)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    assert notify(broadcaster, "t") == 1


def test_locked_database(start_broadcaster, subscriber):
    """Writes are answered 503, notifies go on, and it heals by itself."""
    broadcaster = start_broadcaster(database__timeout=1, limits__retry_after=3)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    with contextlib.closing(sqlite3.connect(broadcaster.database, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        for path, body in ((bodies.SUBSCRIBE["exact"], bodies.subscribe("u", "t")),
                           (bodies.UNSUBSCRIBE["exact"], bodies.unsubscribe(subscriber.url(), "t")),
                           (bodies.SET, bodies.set_subscriptions("u", ["a"]))):
            reply = post(broadcaster, path, body)
            assert (reply.status, reply.body, reply.headers["retry-after"]) == (503, b"", "3")
        assert notify(broadcaster, "t") == 1
        assert check(broadcaster, "u") == bodies.etag("u", [], [])
        db.execute("ROLLBACK")
    subscribe(broadcaster, "exact", "u", "t2")
    unsubscribe(broadcaster, "exact", subscriber.url(), "t")
    assert notify(broadcaster, "t") == 0


# ---- The reference's package ----


@contextlib.asynccontextmanager
async def reference_store(path):
    store = SqliteDBConfig(str(path))
    await store.setup_db()
    try:
        yield store
    finally:
        await store.teardown_db()


async def reference_subscribers(store, topic):
    return sorted([(s.type.name, s.url, s.recovery) async for s in store.get_subscribers(topic=topic)])


def test_reference_opens_our_file(broadcaster, subscriber):
    """While we run on it, too; and each sees what the other one writes."""
    url = subscriber.url()
    subscribe(broadcaster, "exact", url, b"t\0\xff", "http://r")
    subscribe(broadcaster, "glob", url, "*é")

    async def scenario():
        async with reference_store(broadcaster.database) as store:
            assert await reference_subscribers(store, b"t\0\xff") == [("EXACT", url, "http://r")]
            etag = (await store.check_subscriptions(url=url)).etag
            assert etag == check(broadcaster, url)
            assert await store.subscribe_exact(url=url, recovery=None, exact=b"t\0\xff") == "conflict"
            assert await store.subscribe_exact(url=url, recovery=None, exact=b"theirs") == "success"
            assert await store.subscribe_glob(url=url, recovery="http://r", glob="th*") == "success"
            assert notify(broadcaster, "theirs") == 2
            assert await store.unsubscribe_glob(url=url, glob="th*") == "success"
            assert notify(broadcaster, "theirs") == 1
            unsubscribe(broadcaster, "exact", url, "theirs")
            assert await store.unsubscribe_exact(url=url, exact=b"theirs") == "not_found"

    asyncio.run(scenario())


def test_we_open_the_file_of_the_reference(start_broadcaster, subscriber, tmp_path):
    folder = setup_folder(tmp_path / "b")
    url = subscriber.url()

    async def make():
        async with reference_store(folder / "subscriptions.db") as store:
            await store.subscribe_exact(url=url, recovery="http://r", exact=b"t\0\xff")
            await store.subscribe_glob(url=url, recovery=None, glob="a*é")

    asyncio.run(make())
    broadcaster = start_broadcaster(folder)
    assert notify(broadcaster, b"t\0\xff") == 1
    assert notify(broadcaster, "a-é") == 1
    assert check(broadcaster, url) == bodies.etag(url, [(b"t\0\xff", "http://r")], ["a*é"])
    broadcaster.stop()

    async def read():
        async with reference_store(folder / "subscriptions.db") as store:
            assert await reference_subscribers(store, b"t\0\xff") == [("EXACT", url, "http://r")]

    asyncio.run(read())


# ---- A second broadcaster ----


def test_two_broadcasters(start_broadcaster, subscriber):
    """What one has confirmed, a notify that the other receives afterwards honours."""
    first = start_broadcaster()
    both = [first, start_broadcaster(first.folder)]
    for i in range(30):
        subscribe(both[i % 2], ("exact", "glob")[i // 2 % 2], subscriber.url(f"/{i}"), "t")
        assert notify(both[(i + 1) % 2], "t") == i + 1
    for i in range(30):
        unsubscribe(both[i % 2], ("exact", "glob")[i // 2 % 2], subscriber.url(f"/{i}"), "t")
        assert notify(both[(i + 1) % 2], "t") == 29 - i


def test_two_broadcasters_write_at_once(start_broadcaster):
    """Nobody is told 503, nothing is lost."""
    first = start_broadcaster()
    both = [first, start_broadcaster(first.folder)]
    statuses = []

    def write(thread):
        for i in range(50):
            body = bodies.subscribe(f"{thread}", f"{i}")
            statuses.append(post(both[thread % 2], bodies.SUBSCRIBE["exact"], body).status)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 200
    for thread in range(4):
        assert check(both[0], f"{thread}") == bodies.etag(f"{thread}", [f"{i}" for i in range(50)], [])


def test_memory_store(start_broadcaster, subscriber):
    broadcaster = start_broadcaster(database__type="memory")
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    assert notify(broadcaster, "t") == 1
    assert not broadcaster.database.exists()
    assert broadcaster.stop() == 0
    assert notify(start_broadcaster(broadcaster.folder, database__type="memory"), "t") == 0
