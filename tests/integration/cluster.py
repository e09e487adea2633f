"""Several broadcasters on one database of any kind, for tests that say the same of all kinds."""

import itertools
import signal
import sqlite3

import databases
import rqlite_cluster
from conftest import setup_folder, wait_until
from tcp_proxy import Proxy

EXACTS, GLOBS = "httppubsub_subscription_exacts", "httppubsub_subscription_globs"
RQLITE_TABLES = [EXACTS, GLOBS, "lonely_changes", "lonely_hmacs", "lonely_processes", "lonely_schema"]
SCHEMAS = itertools.count()


class SqlitePlace:
    """One file. Its trouble: somebody holds the lock of writers."""

    NAME, URL_TEXT = "sqlite", "url"

    def __init__(self, _server, folder):
        self.setup_args = []
        self.path = folder / "subscriptions.db"

    @staticmethod
    def start_server():
        return None

    def query(self, sql):
        with sqlite3.connect(self.path, 30) as db:
            found = db.execute(sql).fetchall()
        db.close()
        return found

    def trouble(self):
        db = sqlite3.connect(self.path, 30, isolation_level=None, check_same_thread=False)
        db.execute("BEGIN IMMEDIATE")

        def end():
            db.execute("ROLLBACK")
            db.close()

        return end


class PostgresPlace:
    """A schema. Its trouble: the server dies, and is started again."""

    NAME, URL_TEXT = "postgres", "convert_from(url, 'UTF8')"

    def __init__(self, server, _folder):
        self.server = server
        self.schema = f"t{next(SCHEMAS)}"
        server.query(f"CREATE SCHEMA {self.schema}")
        url = f"{server.url}?options=-csearch_path%3D{self.schema}"
        self.setup_args = ["--db", "postgres", "--db-url", url]

    @staticmethod
    def start_server():
        return databases.Postgres()

    def behind_proxies(self):
        """They, and the URL of the same place that leads through them."""
        proxy = Proxy(self.server.port)
        return [proxy], self.setup_args[-1].replace(f":{self.server.port}/", f":{proxy.port}/")

    def query(self, sql):
        return self.server.query(f"SET search_path = {self.schema}; {sql}")

    def trouble(self):
        self.server.stop(signal.SIGQUIT)
        return self.server.start


class RqlitePlace:
    """Three nodes. Its trouble: the leader dies, and is started again."""

    NAME, URL_TEXT = "rqlite", "CAST(url AS TEXT)"

    def __init__(self, server, _folder):
        self.server = server
        for node in server.nodes:
            if node.process is None:
                node.start()
        server.wait()
        for table in RQLITE_TABLES:
            server.execute(f"DROP TABLE IF EXISTS {table}")
        self.setup_args = ["--db", "rqlite", "--db-url", " ".join(server.urls)]

    @staticmethod
    def start_server():
        return rqlite_cluster.Rqlite(3)

    def behind_proxies(self):
        proxies = [Proxy(node.http_port) for node in self.server.nodes]
        return proxies, " ".join(proxy.url for proxy in proxies)

    def query(self, sql):
        if sql.startswith("SELECT"):
            return self.server.query(sql)
        return self.server.execute(sql)

    def trouble(self):
        leader = wait_until(self.server.leader, "a leader")
        leader.kill()

        def end():
            leader.start()
            self.server.wait()

        return end


PLACES = {place.NAME: place for place in (SqlitePlace, PostgresPlace, RqlitePlace)}


class Cluster:
    """Broadcasters that share a database and secrets. `start` is the fixture start_broadcaster."""

    def __init__(self, place, server, start, folder, **settings):
        self.place = PLACES[place](server, folder)
        self.folder = setup_folder(folder, *self.place.setup_args)
        self.start_broadcaster, self.settings = start, settings
        self.members = []

    def start(self, **settings):
        member = self.start_broadcaster(self.folder, **{"tcp__listen": "127.0.0.1:0", **self.settings,
                                                        **settings})
        wait_until(lambda: self.tcp_address(member), "the TCP listener")
        self.members.append(member)
        return member

    def restart(self, member):
        """A new process at the address of one that has ended."""
        new = self.start_broadcaster(self.folder, listen=member.address, **{
            **self.settings, "tcp__listen": self.tcp_address(member)})
        wait_until(lambda: self.tcp_address(new), "the TCP listener")
        self.members[self.members.index(member)] = new
        return new

    @staticmethod
    def tcp_address(member):
        found = [line.split()[2] for line in list(member.out) if line.startswith("ready tcp ")]
        return found[0] if found else None

    def url(self, member, transport):
        if transport == "tcp":
            return f"tcp://{self.tcp_address(member)}"
        return f"{transport}://{member.address}"

    def rows(self):
        """URL of each subscription, sorted."""
        text = self.place.URL_TEXT
        found = self.place.query(f"SELECT {text} FROM {EXACTS} UNION ALL SELECT {text} FROM {GLOBS}")
        return sorted(row[0] for row in found)

    def rows_of(self, member):
        return sum(url.startswith(member.url + "/") for url in self.rows())
