"""What makes an access token good, and what never does."""

import hashlib
import hmac
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt import PyJWK

from taskhub.auth.errors import InvalidToken
from taskhub.oauth import access_tokens
from taskhub.oauth.access_tokens import AccessTokens
from taskhub.oauth.jwts import LEEWAY_S
from taskhub.oauth.keys import PublicKeys
from taskhub.settings.oauth import Algorithm
from tests.signing import ISSUER, RESOURCE, Signer, edwards, elliptic, rivest, segment

EC = elliptic()
RSA = rivest()
ED = edwards()


def tokens_of(*signers: Signer, algorithms: Any = ("ES256", "RS256", "EdDSA"), now: float = 0) -> AccessTokens:
    keys = PublicKeys([signer.jwk for signer in signers])
    return AccessTokens(ISSUER, RESOURCE, keys, algorithms, clock=lambda: time.time() + now)


@pytest.mark.parametrize("signer", [EC, RSA, ED], ids=lambda signer: signer.algorithm)
async def test_a_token_says_who_calls_and_what_was_granted(signer: Signer) -> None:
    token = signer.token({"email": "alice@example.org", "email_verified": True})

    claims = await tokens_of(EC, RSA, ED).verify(token)

    assert claims.issuer == ISSUER
    assert claims.subject == "alice"
    assert claims.client_id == "https://client.example.org/metadata.json"
    assert claims.scopes == {"tickets:read", "events:read"}
    assert claims.jti == "token-1"
    assert claims.grant is None
    assert abs(claims.expires_at - time.time() - 600) < 60
    assert claims.text("email") == "alice@example.org"
    assert claims.true("email_verified")


async def test_a_token_of_our_own_server_names_its_grant() -> None:
    claims = await tokens_of(EC).verify(EC.token({"grant_id": "grt_1"}))

    assert claims.grant == "grt_1"


async def test_a_token_without_scopes_was_granted_none() -> None:
    claims = await tokens_of(EC).verify(EC.token({"scope": None}))

    assert claims.scopes == frozenset()


async def test_a_token_without_a_key_id_is_checked_with_the_only_key_there_is() -> None:
    token = EC.token(header={"kid": None})

    assert (await tokens_of(EC, RSA).verify(token)).subject == "alice"
    with pytest.raises(InvalidToken):
        await tokens_of(EC, elliptic("ec-2")).verify(token)


async def test_clocks_may_differ_a_little() -> None:
    token = EC.token()

    await tokens_of(EC, now=-LEEWAY_S + 5).verify(token)
    await tokens_of(EC, now=600 + LEEWAY_S - 5).verify(token)


@pytest.mark.parametrize("kind", ["application/at+jwt", "AT+JWT"])
async def test_the_type_is_a_media_type_and_its_case_does_not_count(kind: str) -> None:
    await tokens_of(EC).verify(EC.token(header={"typ": kind}))


HOUR = 3600
WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "https://other.example.org/mcp"},
    "the audience with a slash": {"aud": RESOURCE + "/"},
    "a list of one audience": {"aud": [RESOURCE]},
    "a list with another audience": {"aud": [RESOURCE, "https://other.example.org"]},
    "no audience": {"aud": None},
    "another issuer": {"iss": "https://login.example.org.evil.example"},
    "the issuer with a slash": {"iss": ISSUER + "/"},
    "no issuer": {"iss": None},
    "expired": {"exp": int(time.time()) - HOUR},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "never"},
    "an end that is true": {"exp": True},
    "an end without end": {"exp": float("inf")},
    "an end that is no number at all": {"exp": float("nan")},
    "an end beyond every calendar": {"exp": 10**300},
    "not good yet": {"nbf": int(time.time()) + HOUR},
    "a beginning that is no number": {"nbf": {}},
    "issued in the future": {"iat": int(time.time()) + HOUR},
    "no time of issue": {"iat": None},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a number as the subject": {"sub": 7},
    "a long subject": {"sub": "a" * 1000},
    "half a character in the subject": {"sub": "al\ud800ice"},
    "a line break in the subject": {"sub": "alice\nadmin"},
    "no client": {"client_id": None},
    "no id": {"jti": None},
    "scopes as a list": {"scope": ["tickets:read"]},
    "scopes without end": {"scope": " ".join(f"s{n}" for n in range(500))},
    "a grant that is no text": {"grant_id": 1},
}


@pytest.mark.parametrize("claims", WRONG_CLAIMS.values(), ids=WRONG_CLAIMS)
async def test_a_token_with_a_wrong_claim_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        await tokens_of(EC).verify(EC.token(claims))


WRONG_HEADERS: dict[str, dict[str, Any]] = {
    "an id token": {"typ": "JWT"},
    "no type": {"typ": None},
    "a type that is no text": {"typ": ["at+jwt"]},
    "no algorithm": {"alg": None},
    "none": {"alg": "none"},
    "None": {"alg": "None"},
    "HMAC": {"alg": "HS256"},
    "an algorithm that is no text": {"alg": ["ES256"]},
    "another algorithm of this key": {"alg": "RS256"},
    "an extension": {"crit": ["exp"], "exp": 1},
    "no extension, but asked for": {"crit": []},
    "an unencoded payload": {"b64": False, "crit": ["b64"]},
    "an unknown key": {"kid": "ec-2"},
    "a path as the key's id": {"kid": "../../../../dev/null"},
    "an address as the key's id": {"kid": "https://evil.example/keys.json"},
    "a query as the key's id": {"kid": "' or 1=1 --"},
    "a number as the key's id": {"kid": 1},
    "a long key id": {"kid": "k" * 600},
}


@pytest.mark.parametrize("header", WRONG_HEADERS.values(), ids=WRONG_HEADERS)
async def test_a_token_with_a_wrong_header_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        await tokens_of(EC).verify(EC.token(header=header))


async def test_keys_that_a_token_brings_itself_count_for_nothing() -> None:
    stranger = elliptic()
    brought = {"jwk": stranger.jwk, "jku": "https://evil.example/keys.json", "x5u": "https://evil.example/cert.pem"}

    with pytest.raises(InvalidToken):
        await tokens_of(EC).verify(stranger.token(header=brought))


async def test_a_public_key_is_no_secret_to_sign_with() -> None:
    public = RSA.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header, claims, _ = RSA.token(header={"alg": "HS256"}).split(".")
    forged = segment(hmac.digest(public, f"{header}.{claims}".encode(), hashlib.sha256))

    with pytest.raises(InvalidToken):
        await tokens_of(RSA).verify(f"{header}.{claims}.{forged}")


async def test_a_signature_over_another_curve_is_none() -> None:
    wide = elliptic("ec-1", ec.SECP384R1(), "ES384")
    token = wide.token(header={"alg": "ES256"})

    for keys in (tokens_of(EC), tokens_of(wide, algorithms=("ES256", "ES384"))):
        with pytest.raises(InvalidToken):
            await keys.verify(token)


async def test_a_key_is_used_for_its_own_algorithm_alone() -> None:
    token = RSA.token(header={"alg": "PS256"})

    with pytest.raises(InvalidToken):
        await tokens_of(RSA, algorithms=("RS256", "PS256")).verify(token)


async def test_algorithms_that_are_not_allowed_count_for_nothing_whoever_signs() -> None:
    with pytest.raises(InvalidToken):
        await tokens_of(EC, RSA, algorithms=("RS256",)).verify(EC.token())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ey",
        "a.b.c",
        "..",
        "eyJhbGciOiJub25lIn0.e30.",
        "ey" * 20_000,
        f"{segment({'typ': 'at+jwt', 'alg': 'ES256', 'kid': 'ec-1'})}.{'x' * 9000}.AAAA",
        f"{segment(b'[' * 700)}.e30.AAAA",
        segment(b'{"a":' * 140) + ".e30.AAAA",
        f"{segment(b'null')}.e30.AAAA",
        f"{segment(bytes(range(128, 200)))}.e30.AAAA",
        f"{segment({'typ': 'at+jwt', 'alg': 'ES256', 'kid': 'ec-1'})}.{segment(b'[' * 5000)}.AAAA",
        "schlüssel.ü.ü",
        "ＥＹ.e30.AAAA",
        EC.token() + "\n",
        EC.token() + "=",
        EC.token() + ".AAAA",
    ],
    ids=lambda text: text[:24],
)
async def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        await tokens_of(EC).verify(text)


async def test_nested_claims_under_a_good_signature_are_refused_without_harm() -> None:
    nested: Any = 1
    for _ in range(400):
        nested = [nested]

    assert (await tokens_of(EC).verify(EC.token({"more": nested}))).text("more") is None


async def test_a_changed_token_is_refused() -> None:
    header, claims, signature = EC.token().split(".")
    other = EC.token({"scope": "admin"}).split(".")[1]

    with pytest.raises(InvalidToken):
        await tokens_of(EC).verify(f"{header}.{other}.{signature}")
    with pytest.raises(InvalidToken):
        await tokens_of(EC).verify(f"{header}.{claims}.{segment(b'0' * 64)}")


async def test_its_sender_is_not_told_what_was_wrong() -> None:
    told = set()
    for token in (EC.token({"aud": "x"}), EC.token({"exp": 1}), EC.token(header={"kid": "ec-2"}), "eyA"):
        with pytest.raises(InvalidToken) as refused:
            await tokens_of(EC).verify(token)
        told.add(str(refused.value))

    assert told == {"the access token is not valid"}


def test_keys_that_are_not_for_signatures_of_this_kind_are_passed_over() -> None:
    good = EC.jwk
    secret = {"kty": "oct", "k": segment(b"k" * 64), "kid": "secret", "alg": "HS256"}
    useless: list[Any] = [
        secret,
        {**good, "kid": "a", "use": "enc"},
        {**good, "kid": "b", "key_ops": ["sign"]},
        {**good, "kid": "c", "crv": "P-384"},
        {**good, "kid": "d", "x": "!"},
        {**good, "kid": "e", "x": 1},
        {**good, "kid": "f", "y": None},
        {**good, "kid": 1},
        {**good, "kid": "g", "alg": "HS256"},
        {**good, "kid": "h", "kty": ["EC"]},
        {**good, "kid": "i", "d": "AAAA"},
        {**RSA.jwk, "kid": "j", "n": segment(b"\xff" * 128)},
        {**RSA.jwk, "kid": "k", "n": segment(b"\xff" * 1500)},
        {**ED.jwk, "kid": "l", "crv": "X25519"},
        {**good, "kid": "m", "key_ops": 3},
        7,
        [],
    ]

    keys = PublicKeys([*useless, good])

    assert len(keys) == 1
    assert keys.find("ec-1", "ES256") is not None


def test_two_keys_under_one_id_are_none() -> None:
    keys = PublicKeys([EC.jwk, elliptic("ec-1").jwk])

    assert keys.find("ec-1", "ES256") is None


class ChangingKeys:
    """A KeySet that can be told to have other keys."""

    def __init__(self, *signers: Signer) -> None:
        self.keys = PublicKeys([signer.jwk for signer in signers])

    async def key(self, kid: str | None, algorithm: Algorithm) -> PyJWK | None:
        return await self.keys.key(kid, algorithm)


async def test_a_token_that_was_good_is_judged_again_each_time() -> None:
    keys, now = ChangingKeys(EC), [time.time()]
    tokens = AccessTokens(ISSUER, RESOURCE, keys, clock=lambda: now[0])
    token = EC.token()
    await tokens.verify(token)
    await tokens.verify(token)

    now[0] += 700
    with pytest.raises(InvalidToken):
        await tokens.verify(token)
    now[0] -= 700
    await tokens.verify(token)
    keys.keys = PublicKeys([EC.jwk])  # read anew
    await tokens.verify(token)
    for others in (PublicKeys([]), PublicKeys([elliptic("ec-1").jwk])):
        keys.keys = others
        with pytest.raises(InvalidToken):
            await tokens.verify(token)


async def test_of_tokens_that_were_good_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_tokens, "MAX_KEPT", 3)
    tokens = tokens_of(ED)

    for number in range(10):
        await tokens.verify(ED.token({"jti": str(number)}))

    assert len(tokens._signed) == 3
