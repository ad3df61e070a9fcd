import os
import shutil
import stat
from pathlib import Path

import pytest
import zmq

from emostream.errors import ConfigError
from stream.pubsub.client import EmotionClient, ReceiveTimeout
from stream.pubsub.publisher import Publisher
from stream.sockets import security
from stream.sockets.security import KeyFileError
from tests.stream.events import label

WAIT_MS = 30_000


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    security.keygen(tmp_path / "keys")
    return tmp_path / "keys"


def test_keygen_writes_private_files_for_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "keys"
    old = os.umask(0)
    try:
        written = security.keygen(directory)
    finally:
        os.umask(old)
    assert {path.relative_to(directory).as_posix() for path in written} == {
        "server.key",
        "server.key_secret",
        "client.key",
        "client.key_secret",
        "authorized_clients/client.key",
    }
    for path in written:
        secret = path.suffix == ".key_secret"
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if secret else 0o644)
        assert (b"secret-key" in path.read_bytes()) == secret
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "authorized_clients").stat().st_mode) == 0o700


def test_keygen_never_overwrites(keys: Path) -> None:
    before = {path: path.read_bytes() for path in keys.rglob("*.key*")}
    with pytest.raises(KeyFileError, match=r"client\.key exists already and is not overwritten"):
        security.keygen(keys)
    assert {path: path.read_bytes() for path in keys.rglob("*.key*")} == before


def test_keygen_adds_a_client_and_keeps_the_server(keys: Path) -> None:
    server = (keys / "server.key_secret").read_bytes()
    written = security.keygen(keys, "robot")
    assert {path.name for path in written} == {"robot.key", "robot.key_secret"}
    assert (keys / "server.key_secret").read_bytes() == server
    (keys / "server.key").unlink()
    with pytest.raises(KeyFileError, match=r"server\.key_secret exists already"):
        security.keygen(keys, "robot2")


@pytest.mark.parametrize("name", ["server", "../evil", "", "a b"])
def test_keygen_refuses_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="must match"):
        security.keygen(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_keygen_says_why_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot write"):
        security.keygen(tmp_path / "file" / "keys")


def test_secrets_do_not_show_in_repr(keys: Path) -> None:
    server, client = security.load_server_keys(keys), security.load_client_keys(keys)
    for loaded in (server, client):
        assert loaded.secret.decode() not in repr(loaded)
    assert client.server_public == server.public


def test_files_are_read_as_pyzmq_reads_them(keys: Path) -> None:
    server = security.load_server_keys(keys)
    assert zmq.auth.load_certificate(keys / "server.key_secret") == (server.public, server.secret)


def test_missing_and_bad_key_files_are_named(keys: Path, tmp_path: Path) -> None:
    for load in (security.load_server_keys, security.load_client_keys):
        with pytest.raises(KeyFileError, match=r"nowhere.*emostream keygen"):
            load(tmp_path / "nowhere")
    secret = keys / "client.key_secret"
    whole = secret.read_text()
    for broken, why in (
        ("", "is not a CURVE key file"),
        ("public-key = 'short'", "40 characters"),
        (whole.split("    secret-key")[0], "no secret key"),
        (whole.replace('public-key = "', 'public-key = "~'), "is not a CURVE key file"),
        (
            whole.replace(
                zmq.auth.load_certificate(secret)[0].decode(), zmq.curve_keypair()[0].decode()
            ),
            "do not belong together",
        ),
    ):
        secret.write_text(broken)
        with pytest.raises(KeyFileError, match=why) as caught:
            security.load_client_keys(keys)
        assert str(secret) in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_secrets_open_to_others_are_refused(keys: Path) -> None:
    (keys / "server.key_secret").chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        security.load_server_keys(keys)


def test_empty_allow_list_is_refused(keys: Path) -> None:
    (keys / "authorized_clients" / "client.key").unlink()
    with pytest.raises(KeyFileError, match="nobody could connect"):
        security.load_server_keys(keys)


def open_publisher(keys: Path) -> Publisher:
    return Publisher("tcp://127.0.0.1:*", curve=security.load_server_keys(keys))


def refused(endpoint: str, curve: Path | None) -> EmotionClient:
    """A client that has been turned away, closed."""
    with EmotionClient(endpoint, curve=curve) as client:
        while client.stats.refusals == 0:
            with pytest.raises(ReceiveTimeout):
                client.recv(timeout_ms=100)
    return client


def test_admitted_client_receives(keys: Path) -> None:
    with open_publisher(keys) as publisher:
        sent = publisher.publish(label())
        with EmotionClient(publisher.endpoint, curve=keys) as client:
            assert client.recv(WAIT_MS) == sent
            sent = publisher.publish(label())
            assert client.recv(WAIT_MS) == sent


def test_a_subscriber_needs_three_files_only(keys: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("server.key", "client.key", "client.key_secret"):
        shutil.copy(keys / name, few / name)
    with open_publisher(keys) as publisher:
        sent = publisher.publish(label())
        with EmotionClient(publisher.endpoint, curve=few) as client:
            assert client.recv(WAIT_MS) == sent


def test_unknown_key_wrong_server_key_and_no_key_are_turned_away(
    keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger, misled = tmp_path / "stranger", tmp_path / "misled"
    security.keygen(stranger)
    shutil.copytree(keys, misled)
    shutil.copy(stranger / "server.key", misled / "server.key")
    shutil.copy(keys / "server.key", stranger / "server.key")
    with (
        open_publisher(keys) as publisher,
        EmotionClient(publisher.endpoint, curve=keys) as admitted,
    ):
        publisher.publish(label())
        admitted.recv(WAIT_MS)
        for curve in (stranger, misled, None):
            client = refused(publisher.endpoint, curve)
            assert client.stats.received == 0
            assert not client.stats.connected
        sent = publisher.publish(label())
        assert admitted.recv(WAIT_MS) == sent, "the others lost nothing"
        assert admitted.stats.connections == 1
    assert "refused a client with key" in caplog.text
    assert "check the keys" in caplog.text


def test_keys_against_an_open_publisher_are_turned_away(keys: Path) -> None:
    """A subscriber that asks for encryption must not be served in the clear."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        publisher.publish(label())
        assert refused(publisher.endpoint, keys).stats.received == 0


def test_allow_list_is_read_at_every_connection(keys: Path, tmp_path: Path) -> None:
    with open_publisher(keys) as publisher:
        sent = publisher.publish(label())
        security.keygen(keys, "robot")
        robot = security.load_client_keys(keys, "robot")
        newcomer = tmp_path / "newcomer"
        newcomer.mkdir()
        shutil.copy(keys / "server.key", newcomer / "server.key")
        for suffix in ("key", "key_secret"):
            shutil.copy(keys / f"robot.{suffix}", newcomer / f"client.{suffix}")
        assert security.load_client_keys(newcomer) == robot
        with EmotionClient(publisher.endpoint, curve=newcomer) as client:
            assert client.recv(WAIT_MS) == sent
        (keys / "authorized_clients" / "robot.key").unlink()
        (keys / "authorized_clients" / "torn.key").write_text("public-key = ")
        refused(publisher.endpoint, newcomer)
        with EmotionClient(publisher.endpoint, curve=keys) as client:
            assert client.recv(WAIT_MS) == sent


def test_a_client_admitted_later_gets_in_without_a_restart(keys: Path) -> None:
    """libzmq itself would give up for good after the refusal."""
    admission = keys / "authorized_clients" / "client.key"
    with open_publisher(keys) as publisher:
        sent = publisher.publish(label())
        aside = admission.rename(keys / "aside")
        with EmotionClient(publisher.endpoint, curve=keys) as client:
            while client.stats.refusals == 0:
                with pytest.raises(ReceiveTimeout):
                    client.recv(timeout_ms=100)
            aside.rename(admission)
            assert client.recv(WAIT_MS) == sent


def test_without_an_authenticator_nobody_is_admitted(keys: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.linger = 0
        security.configure_server(socket, security.load_server_keys(keys))
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        assert refused(f"tcp://127.0.0.1:{port}", keys).stats.connections == 0


def test_curve_opens_other_interfaces(keys: Path) -> None:
    server = security.load_server_keys(keys)
    with Publisher("tcp://0.0.0.0:*", curve=server) as publisher:
        sent = publisher.publish(label())
        port = publisher.endpoint.rsplit(":", 1)[1]
        with EmotionClient(f"tcp://127.0.0.1:{port}", curve=keys) as client:
            assert client.recv(WAIT_MS) == sent
    with pytest.raises(ConfigError, match="--curve"):
        Publisher("tcp://0.0.0.0:*")
