"""Readers of other makers accept what is served, and refuse it once it was tampered with."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.checkpoint import Checkpoint, open_checkpoint
from ledger.core.note import Signer, decode_base64, sign_note, split_note
from ledger.core.proof import parse_proof
from ledger.core.tiles import decode_entries, encode_entries
from tests.interop.served_logs import between, served_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.interop.served_logs import Alter, ServedLog

READER = Path(__file__).parent / "aics_reader.py"
SMALL, LARGE = 600, 66_000
"""Two levels of tiles, and three."""


@pytest.fixture(scope="module")
def logs(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, ServedLog]]:
    home = tmp_path_factory.mktemp("home")
    with served_logs(new_database(), home, {"small": SMALL, "large": LARGE}) as served:
        yield served


def unaltered(_: str, body: bytes) -> bytes:
    return body


def signed_again(log: ServedLog, *, signer: Signer | None = None, **changes: Any) -> str:
    """Sign another checkpoint with the ledger's own key, as whoever holds the key could."""
    note = log.ledger.checkpoint()[1]
    checkpoint = open_checkpoint(note, log.ledger.signer.verifier, log.ledger.origin)
    stated = {"origin": log.ledger.origin, "size": checkpoint.size, "root": checkpoint.root}
    text = Checkpoint(**{**stated, **changes}).text()
    return sign_note(text, [signer or log.ledger.signer])


# -- another implementation in Python ------------------------------------------


def ask(python: Path, log: ServedLog, urls: dict[str, str], held: str = "") -> dict[str, Any]:
    """Let the other maker's reader read logs; give why it refused each, None for accepted."""
    each = {name: {"url": url, **({"held": held} if held else {})} for name, url in urls.items()}
    done = subprocess.run(
        [python, "-I", READER],
        input=json.dumps({"vkey": log.filled.vkey, "logs": each}),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {answer["name"]: answer["refusal"] for answer in answers}


def test_it_accepts_every_tile_and_every_entry_of_a_tree_of_three_levels(
    peer_python: Path, logs: dict[str, ServedLog]
):
    log = logs["large"]
    held = log.get("checkpoint").text
    with between(log, {"as_served": unaltered}) as urls:
        # Each look at entries makes an entry: the log has grown when it is read again.
        assert ask(peer_python, log, urls) == {"as_served": None}
        assert log.get("checkpoint").text != held
        assert ask(peer_python, log, urls, held) == {"as_served": None}


def test_it_accepts_the_proofs_that_the_service_makes(
    peer_python: Path, logs: dict[str, ServedLog], tmp_path: Path
):
    log = logs["large"]
    proof = parse_proof(log.get("entries/65537/proof").text)
    (row,) = log.ledger.entries(65_537, 65_537, 1)
    (tmp_path / "entry").write_bytes(row.entry)
    (tmp_path / "note").write_text(proof.checkpoint_note)
    (tmp_path / "vkey").write_text(log.filled.vkey + "\n")
    hashes = log.get("entries/65537/proof").text.split("\n\n")[0].splitlines()[2:]
    (tmp_path / "proof").write_text("\n".join(hashes) + "\n")
    command = [peer_python, "-I", "-m", "aics_tlog", "verify-inclusion", "--leaf", "entry"]
    command += ["--proof", "proof", "--checkpoint", "note", "--vkey-file", "vkey", "--index"]
    for index, ok in (("65536", True), ("65535", False)):
        done = subprocess.run(
            [*command, index], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is json.loads(done.stdout)["ok"] is ok


def flip(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def other_letter(body: bytes, at: int) -> bytes:
    """Change a letter of base64 so that it is still well formed."""
    letter = b"B" if body[at:][:1] == b"A" else b"A"
    return body[:at] + letter + body[at:][1:]


def of(path: str, alter: Callable[[bytes], bytes | None]) -> Alter:
    """Alter what is served under one path."""
    return lambda rest, body: alter(body) if rest.startswith(path) else body


def swap_entries(body: bytes) -> bytes:
    first, second, *others = decode_entries(body, 256)
    return encode_entries([second, first, *others])


def change_entry(body: bytes) -> bytes:
    entries = decode_entries(body, 256)
    entries[200] = entries[200].replace(b'"phone"', b'"photo"')
    return encode_entries(entries)


def lose_entry(body: bytes) -> bytes:
    return encode_entries(decode_entries(body, 256)[:-1])


def add_entry(body: bytes) -> bytes:
    return body + body[: 2 + int.from_bytes(body[:2])]


def sized(change: int) -> Callable[[bytes], bytes]:
    """State another size under the same signature."""

    def alter(body: bytes) -> bytes:
        origin, size, *rest = body.decode().split("\n")
        return "\n".join([origin, str(int(size) + change), *rest]).encode()

    return alter


TAMPERINGS: dict[str, Alter] = {
    "a_leaf_hash_in_a_full_tile": of("tile/0/001", lambda body: flip(body, 5_000)),
    "a_leaf_hash_at_the_right_edge": of("tile/0/002.p/", lambda body: flip(body, 40)),
    "a_hash_of_the_upper_level": of("tile/1/000.p/", lambda body: flip(body, 33)),
    "a_tile_cut_short": of("tile/0/001", lambda body: body[:-32]),
    "a_tile_cut_within_a_hash": of("tile/0/001", lambda body: body[:-1]),
    "two_hashes_swapped": of("tile/0/001", lambda body: body[32:64] + body[:32] + body[64:]),
    "a_tile_withheld": of("tile/0/000", lambda _: None),
    "a_partial_tile_withheld": of("tile/0/002.p/", lambda _: None),
    "an_entry_changed": of("tile/entries/001", change_entry),
    "two_entries_swapped": of("tile/entries/000", swap_entries),
    "an_entry_taken_out": of("tile/entries/001", lose_entry),
    "an_entry_put_in": of("tile/entries/001", add_entry),
    "a_bundle_withheld": of("tile/entries/002.p/", lambda _: None),
    "a_byte_of_an_entry_of_the_last_bundle": of("tile/entries/002.p/", lambda b: flip(b, 300)),
    "a_larger_size": of("checkpoint", sized(1)),
    "a_smaller_size": of("checkpoint", sized(-1)),
    "a_letter_of_the_signature": of("checkpoint", lambda body: other_letter(body, -20)),
    "a_letter_of_the_root": of(
        "checkpoint", lambda body: other_letter(body, body.index(b"=\n") - 9)
    ),
    "no_signature": of("checkpoint", lambda body: body.partition(b"\n\n")[0] + b"\n\n"),
    "no_checkpoint": of("checkpoint", lambda _: None),
}


@pytest.fixture(scope="module")
def refusals(peer_python: Path, logs: dict[str, ServedLog]) -> dict[str, str | None]:
    """Let the reader meet every tampering, and the log as it is served."""
    log = logs["small"]
    stranger = Signer.from_private_key(log.ledger.origin, Ed25519PrivateKey.generate())
    forged = signed_again(log, signer=stranger).encode()
    rewritten = signed_again(log, root=bytes(32)).encode()
    others = logs["large"].ledger.checkpoint()[1].encode()
    renamed = signed_again(log, origin="custody.local/renamed").encode()
    alterations = {
        "as_served": unaltered,
        **TAMPERINGS,
        "a_tile_of_another_place": lambda rest, body: (
            log.get("tile/0/000").content if rest == "tile/0/001" else body
        ),
        "signed_by_a_stranger_of_the_same_name": of("checkpoint", lambda _: forged),
        "a_root_that_the_key_itself_signed": of("checkpoint", lambda _: rewritten),
        "the_checkpoint_of_another_ledger": of("checkpoint", lambda _: others),
        "the_key_signed_for_another_origin": of("checkpoint", lambda _: renamed),
    }
    with between(log, alterations) as urls:
        return ask(peer_python, log, urls)


def test_it_accepts_the_log_as_it_is_served(refusals: dict[str, str | None]):
    assert refusals["as_served"] is None


@pytest.mark.parametrize(
    "name",
    [
        *TAMPERINGS,
        "a_tile_of_another_place",
        "signed_by_a_stranger_of_the_same_name",
        "a_root_that_the_key_itself_signed",
        "the_checkpoint_of_another_ledger",
        "the_key_signed_for_another_origin",
    ],
)
def test_it_refuses(refusals: dict[str, str | None], name: str):
    assert refusals[name] is not None


def test_every_tampering_was_tried(refusals: dict[str, str | None]):
    assert len(refusals) == len(TAMPERINGS) + 6


def test_it_refuses_a_log_that_contradicts_a_checkpoint_held_from_before(
    peer_python: Path, logs: dict[str, ServedLog]
):
    log = logs["small"]
    held = signed_again(log, size=SMALL - 100, root=bytes(32))
    with between(log, {"as_served": unaltered}) as urls:
        refusal = ask(peer_python, log, urls, held)["as_served"]
    assert refusal == "the held checkpoint is not of this log"


# -- the tree of Go's checksum database -----------------------------------------


def ask_go(program: Path, log: ServedLog, url: str, questions: dict[str, Any]) -> str:
    done = subprocess.run(
        [program, url, log.filled.vkey],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == (0 if done.stdout.startswith("accepted ") else 1), done.stderr
    return done.stdout


def questions_about(log: ServedLog, seqs: list[int]) -> dict[str, Any]:
    """Ask for leaves from tiles, and hand over proofs that the service made of them."""
    rows = [row for seq in seqs for row in log.ledger.entries(seq, seq, 1)]
    records = []
    for row in rows:
        text = log.get(f"entries/{row.seq}/proof").text
        lines, _, note = text.partition("\n\n")
        proof = lines.splitlines()[2:]
        record = {"index": row.seq - 1, "leaf": row.leaf.hex(), "proof": proof, "note": note}
        records.append(record)
    return {"leaves": {str(row.seq - 1): row.leaf.hex() for row in rows}, "records": records}


def growth_of(log: ServedLog) -> list[dict[str, Any]]:
    """Let the log grow, and hand over a proof from each of its checkpoints to each later one."""
    notes = []
    for seq in range(1, 5):
        notes.append(log.get("checkpoint").text)
        log.get(f"entries/{seq}")  # a look makes an entry
    pairs = itertools.combinations([*notes, log.get("checkpoint").text], 2)
    return [
        {
            "old": old,
            "new": new,
            "proof": log.get(f"consistency?from={size(old)}&to={size(new)}").text.split(),
        }
        for old, new in pairs
    ]


def size(note: str) -> int:
    return int(split_note(note)[0].split("\n")[1])


@pytest.mark.parametrize("name", ["small", "large"])
def test_go_accepts_leaves_growth_and_proofs(
    go_reader: Path, logs: dict[str, ServedLog], name: str
):
    log = logs[name]
    seqs = [1, 2, 255, 256, 257, 512, 513, SMALL]
    seqs += [65_535, 65_536, 65_537, LARGE] if name == "large" else []
    growth = growth_of(log)
    questions = {
        **questions_about(log, seqs),
        "trees": [g["old"] for g in growth],
        "growth": growth,
    }
    with between(log, {"as_served": unaltered}) as urls:
        said = ask_go(go_reader, log, urls["as_served"], questions)
    assert said.startswith("accepted ")


def test_go_refuses_each_hash_of_a_proof_once_it_is_altered(
    go_reader: Path, logs: dict[str, ServedLog]
):
    log = logs["small"]
    record = questions_about(log, [300])["records"][0]
    growth = growth_of(log)[3]
    assert growth["proof"]
    with between(log, {"as_served": unaltered}) as urls:
        for kind, given in (("records", record), ("growth", growth)):
            for number, line in enumerate(given["proof"]):
                altered = ("B" if line[0] == "A" else "A") + line[1:]
                assert len(decode_base64("line", altered)) == 32
                proof = [*given["proof"]]
                proof[number] = altered
                questions = {kind: [{**given, "proof": proof}]}
                assert ask_go(go_reader, log, urls["as_served"], questions).startswith("refused: ")


@pytest.mark.parametrize(
    "name",
    [
        "a_leaf_hash_in_a_full_tile",
        "a_leaf_hash_at_the_right_edge",
        "a_hash_of_the_upper_level",
        "a_tile_cut_short",
        "two_hashes_swapped",
        "a_tile_withheld",
        "a_larger_size",
        "a_letter_of_the_signature",
        "a_letter_of_the_root",
        "no_signature",
    ],
)
def test_go_refuses(go_reader: Path, logs: dict[str, ServedLog], name: str):
    log = logs["small"]
    questions = {"leaves": questions_about(log, [1, 300, SMALL])["leaves"]}
    with between(log, {name: TAMPERINGS[name], "as_served": unaltered}) as urls:
        assert ask_go(go_reader, log, urls[name], questions).startswith("refused: ")
        assert ask_go(go_reader, log, urls["as_served"], questions).startswith("accepted ")
