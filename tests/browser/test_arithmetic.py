"""The page's own SHA-2, Ed25519 and JSON, against Python's, in the browser that runs them."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import zlib
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from tests.browser.bundles import (
    checkpoint,
    chosen_proof,
    compact,
    inclusion,
    leaf_of,
    node,
    root_of,
    sound,
    verifier_key,
)

if TYPE_CHECKING:
    from tests.browser.support import Desk

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
BYTES = "Uint8Array.from(atob(t), (each) => each.charCodeAt(0))"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_digests_are_those_of_hashlib_at_every_length_around_a_block(desk: Desk) -> None:
    source = random.Random(1).randbytes(400)
    texts = [source[:length] for length in (*range(270), 383, 384, 400)]
    found = desk.evaluate(
        f"(all) => all.map((t) => {BYTES}).map((raw) => "
        "[hex(sha256(raw)), hex(sha512(raw)), crc32(0, raw) >>> 0])",
        [b64(text) for text in texts],
    )
    assert found == [
        [hashlib.sha256(text).hexdigest(), hashlib.sha512(text).hexdigest(), zlib.crc32(text)]
        for text in texts
    ]


def test_a_digest_does_not_depend_on_how_the_bytes_came_in_pieces(desk: Desk) -> None:
    source = random.Random(2).randbytes(10_000)
    pieces = [0, 1, 63, 64, 65, 127, 128, 129, 200, 1000, 4095, 9000, 10_000]
    script = f"""([t, cuts]) => {{
        const raw = {BYTES}, whole = new Sha256();
        for (let at = 1; at < cuts.length; at++) whole.update(raw.subarray(cuts[at - 1], cuts[at]));
        return hex(whole.digest());
    }}"""
    assert desk.evaluate(script, [b64(source), pieces]) == hashlib.sha256(source).hexdigest()


# RFC 8032 7.1, tests 1 to 3, and "SHA(abc)": key, message, signature.
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
            "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"
        ),
    ),
]
Try = tuple[bytes, bytes, bytes]


def accepts(desk: Desk, tries: list[Try]) -> list[bool]:
    """Tell which signatures the page accepts."""
    found: list[bool] = desk.evaluate(
        f"(all) => all.map((each) => isSigned(...each.map((t) => {BYTES})))",
        [[b64(part) for part in each] for each in tries],
    )
    return found


def cryptography_accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_the_signatures_of_rfc_8032_are_good_and_with_any_byte_changed_bad(desk: Desk) -> None:
    good = [(bytes.fromhex(a), bytes.fromhex(b), bytes.fromhex(c)) for a, b, c in RFC_8032]
    assert accepts(desk, good) == [True] * 4
    key, message, signature = good[3]
    bad = [(key, message, _flip(signature, at)) for at in range(64)]
    bad += [(_flip(key, at), message, signature) for at in range(0, 32, 5)]
    bad += [(key, _flip(message, 0), signature), (key, message + b"\0", signature)]
    bad += [(key, message, signature[:-1]), (key, message, signature + b"\0")]
    assert accepts(desk, bad) == [False] * len(bad)


def _flip(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
SMALL_ORDER = [
    (y | sign << 255).to_bytes(32, "little")
    for y in (0, 1, P - 1, P, P + 1, ORDER_8, P - ORDER_8)  # P and P + 1 are not canonical
    for sign in (0, 1)
]


def edge_cases() -> list[Try]:
    """Give signatures at the edges of what verifiers disagree about."""
    rng = random.Random(7)
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key().public_bytes_raw()
    made: list[Try] = []
    for length in (0, 1, 111, 112, 127, 128, 300):
        message = rng.randbytes(length)
        signature = private.sign(message)
        s = int.from_bytes(signature[32:], "little")
        made.append((public, message, signature))
        # S that is not below the order, but congruent (RFC 8032 5.1.7, step 1).
        made += [
            (public, message, signature[:32] + (s + times * L).to_bytes(32, "little"))
            for times in (1, 2, 7)
        ]
        made.append((public, message, signature[:32] + (L - s).to_bytes(32, "little")))
        made.append((public, message, _flip(signature, 31)))
    zero = bytes(32)
    for point in SMALL_ORDER:
        # S = 0: good without cofactor where R = -[k]A, which is often for small orders.
        made += [(point, b"m", other + zero) for other in SMALL_ORDER]
        made.append((public, b"m", point + zero))
    made += [(rng.randbytes(32), b"x", rng.randbytes(31) + b"\0" + zero) for _ in range(20)]
    made += [(b"\xff" * 32, b"", b"\xff" * 64), (zero, b"", bytes(64)), (public, b"", bytes(64))]
    return made


def test_signatures_at_the_edges_are_judged_as_by_cryptography(desk: Desk) -> None:
    tries = edge_cases()
    expected = [cryptography_accepts(*each) for each in tries]
    assert {True, False} == set(expected)
    assert accepts(desk, tries) == expected


JSON = [
    "{}", '{"a":1}', '{"a":1,"a":1}', '{"a":{"b":1,"b":2}}', '{"a":[1,{"b":1,"b":1}]}', "[1,]",
    '{"a":1,}', '{"a" : [ true , false , null ] }', '{"a":01}', '{"a":-0}', '{"a":+1}', '{"a":1.}',
    '{"a":1e5}', '{"a":"\\u00e9\\n"}', '{"a":"\\x"}', '{"a":"\t"}', '{"a":"b}', "{'a':1}", '{"a"}',
    '{"a":1}{}', "", "nul", '{"\\u0061":1,"a":2}', '{"__proto__":1,"a":2}',
    '{"a":12345678901234567890}',
    '{"a":"\\ud83d\\ude00"}', '{"a":1}\u00a0',
]  # fmt: skip


def as_the_script_reads(text: str) -> Any:
    """Give what Python makes of JSON with one value per name; None where it refuses."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None


def test_json_is_read_as_strictly_as_the_script_reads_it(desk: Desk) -> None:
    script = """(all) => all.map((text) => {
        try { return toJson(parseJson(text)); } catch { return null; }
    })"""
    for text, found in zip(JSON, desk.evaluate(script, JSON), strict=True):
        assert (None if found is None else json.loads(found)) == as_the_script_reads(text), text
    assert desk.evaluate(script, ["[" * 900 + "]" * 900]) == [None]


def test_large_numbers_are_not_rounded(desk: Desk) -> None:
    text = compact({"seq": 2**62 + 1, "least": 2**53 + 1}).decode()
    assert desk.evaluate("(t) => toJson(parseJson(t))", text) == text


def test_a_note_with_any_bit_flipped_does_not_open_as_signed(desk: Desk) -> None:
    note = checkpoint(sound().leaves[:7]).encode()
    flipped = [
        b64(note[:at] + bytes([note[at] ^ 1 << bit]) + note[at + 1 :])
        for at in range(len(note))
        for bit in range(at % 3, 8, 3)
    ]
    script = f"""([key, all]) => {{
        const keys = [parseKey(key, "keys")];
        return all.map((t) => {{
            try {{ return openCheckpoint(strictUtf8.decode({BYTES}), keys, "").signed; }}
            catch {{ return false; }}
        }});
    }}"""
    assert desk.evaluate(script, [verifier_key(), [b64(note)]]) == [True]
    assert not any(desk.evaluate(script, [verifier_key(), flipped]))


def test_inclusion_proofs_lead_to_the_root_at_every_place_of_small_trees(desk: Desk) -> None:
    leaves = [leaf_of(bytes([i])) for i in range(33)]
    tries: list[Any] = [
        [b64(leaves[index]), index, size, [b64(h) for h in inclusion(index, leaves[:size])]]
        for size in range(1, 34)
        for index in range(size)
    ]
    script = f"""(all) => {{
        const raw = (t) => {BYTES};
        return all.map(([leaf, index, size, steps]) => {{
            const climbed = (proof) =>
                climb(raw(leaf), BigInt(index), BigInt(size), proof.map(raw));
            const longer = climbed([...steps, btoa("\\0".repeat(32))]);
            const shorter = steps.length ? climbed(steps.slice(1)) : null;
            return [climbed(steps), longer, shorter].map((root) => root && hex(root));
        }});
    }}"""
    for (_, _, size, _), (right, longer, shorter) in zip(
        tries, desk.evaluate(script, tries), strict=True
    ):
        root = root_of(leaves[:size]).hex()
        assert right == root
        assert root not in {longer, shorter}


def test_proofs_of_chosen_entries_lead_to_the_root_for_every_choice(desk: Desk) -> None:
    leaves = [leaf_of(bytes([i])) for i in range(9)]
    tries: list[Any] = []
    for size in range(1, 10):
        for mask in range(2**size):
            chosen = [index for index in range(size) if mask >> index & 1]
            proof = b"".join(chosen_proof(set(chosen), leaves[:size]))
            tries.append([size, chosen, b64(proof)])
    script = f"""([leaves, all]) => all.map(([size, chosen, t]) => {{
        const proof = {BYTES}, held = leaves.map((t) => {BYTES}), n = BigInt(size);
        const leaf = (at) => held[chosen[at]];
        const climbed = (bytes) => climbMany(chosen.map(BigInt), leaf, n, bytes);
        const root = climbed(proof), more = joined(proof, new Uint8Array(32));
        const other = [proof.subarray(32), more, joined(proof, [0])].map(climbed);
        return [hex(root), other.every((each) => each === null || hex(each) !== hex(root))];
    }})"""
    found = desk.evaluate(script, [[b64(leaf) for leaf in leaves], tries])
    for (size, _, proof), (root, is_bound) in zip(tries, found, strict=True):
        assert root == root_of(leaves[:size]).hex()
        assert is_bound or not proof
    assert node(leaves[0], leaves[1]) == root_of(leaves[:2])
