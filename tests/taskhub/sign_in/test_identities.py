"""Who somebody is whom an OpenID provider knows."""

import asyncio

import pytest
from sqlalchemy import select

from taskhub.sign_in.errors import OpenIdRefused
from taskhub.sign_in.identities import Identities, Identity
from taskhub.sign_in.model import Visitor
from taskhub.sign_in.service import SignIn
from taskhub.sign_in.sessions import SessionStore
from taskhub.storage.schema import audit, identities, users
from tests.taskhub.world import ALICE, World, rows

GOOGLE = "https://accounts.google.com"
VISITOR = Visitor("192.0.2.1", "Browser")


def known(subject: str = "1", email: str | None = "olga@example.org", **more: str | None) -> Identity:
    given = {"issuer": "https://login.example.org", "hosted_domain": None, "name": None, **more}
    return Identity(subject=subject, email=email, **given)  # type: ignore[arg-type]  # texts, and the issuer is one


async def test_of_many_first_sign_ins_at_once_each_is_the_one_user(world: World) -> None:
    known_by = Identities(world.database, world.tickets, new_role="agent")
    several = (known_by.link("default", known(name="Olga"), VISITOR) for _ in range(5))

    assert set(await asyncio.gather(*several)) == {"olga"}
    assert len(await rows(world.database, select(users).where(users.c.email == "olga@example.org"))) == 1
    (row,) = await rows(world.database, select(identities))
    assert (row.subject, row.user_id, row.email) == ("1", "olga", "olga@example.org")


async def test_a_link_that_is_forgotten_goes_to_the_next_account_with_the_address(world: World) -> None:
    await world.add("users", "Olga", email="Olga@Example.org")
    known_by = Identities(world.database, world.tickets)
    sessions = SessionStore(world.database, idle_s=60, max_s=60)
    sign_in = SignIn(world.database, sessions)
    opened = await sign_in.by_openid("default", await known_by.link("default", known("1"), VISITOR), VISITOR)
    with pytest.raises(OpenIdRefused, match="unknown"):
        await known_by.link("default", known("2"), VISITOR)

    assert await sign_in.unlink(ALICE, "Olga") == 1
    assert await sessions.holder(opened.secret) is None
    assert await sign_in.unlink(ALICE, "Olga") == 0
    assert await known_by.link("default", known("2"), VISITOR) == "olga"
    with pytest.raises(OpenIdRefused, match="unknown"):
        await known_by.link("default", known("1"), VISITOR)
    done = [row.action for row in await rows(world.database, select(audit).order_by(audit.c.id))]
    assert done == ["identity.linked", "session.opened", "identity.removed", "identity.linked"]
    sign_in.close()


async def test_an_issuer_and_a_workspace_have_people_of_their_own(world: World) -> None:
    await world.add("users", "Olga", email="olga@example.org")
    known_by = Identities(world.database, world.tickets)
    await known_by.link("default", known("1"), VISITOR)

    with pytest.raises(OpenIdRefused, match="unknown"):
        await known_by.link("acme", known("1"), VISITOR)
    with pytest.raises(OpenIdRefused, match="unverified"):
        await known_by.link("default", known("1", None, issuer="https://other.example.org"), VISITOR)
    assert await known_by.link("default", known("1", issuer="https://other.example.org"), VISITOR) == "olga"


@pytest.mark.parametrize(
    ("identity", "domain"),
    [
        (known(email="a@B.example"), "b.example"),
        (known(email=None), None),
        (known(hosted_domain="other.example"), "example.org"),  # says something at Google alone
        (known(issuer=GOOGLE, hosted_domain="Example.org"), "example.org"),
        (known(issuer=GOOGLE, email=None, hosted_domain="example.org"), "example.org"),
        # Anybody who once read mail there can have such an account, and keeps it.
        (known(issuer=GOOGLE), None),
        (known(issuer=GOOGLE, email="a@gmail.com"), "gmail.com"),
        (known(issuer=GOOGLE, email="a@gmail.com.evil.example"), None),
    ],
)
def test_the_domain_is_that_of_who_vouches_for_somebody(identity: Identity, domain: str | None) -> None:
    assert identity.domain == domain
