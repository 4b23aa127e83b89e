"""Registration, login, token rotation, logout."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from neuroedge.contract.errors import Forbidden, Unauthenticated
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import NOBODY, ROLE_PERMISSIONS, Principal
from neuroedge.infra.tokens import AccessTokens, Passwords, new_refresh_token, parse_refresh_token
from neuroedge.settings import Settings
from neuroedge.stores import accounts, ledgers
from neuroedge.stores.accounts import Login
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database, bind


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair:
    """What a login hands out."""

    access_token: str
    refresh_token: str
    expires_in_s: int
    principal: Principal


class Accounts:
    """Users of all organisations; every change writes an audit row of the organisation it concerns."""

    def __init__(self, *, db: Database, tokens: AccessTokens, clock: Clock, settings: Settings) -> None:
        self._db = db
        self._tokens = tokens
        self._clock = clock
        self._settings = settings
        self._passwords = Passwords(memory_mib=settings.argon2_memory_mib)

    async def register(self, *, username: str, email: str, password: str, request_id: str) -> Principal:
        """A self-registered user with an organisation of their own. Raises Forbidden when switched off, Conflict."""
        if not self._settings.self_registration:
            raise Forbidden("self-registration is switched off", hint="ask the operator for an account")
        return await self.create(
            username=username, email=email, password=password, admin=False, organisation=None, request_id=request_id
        )

    async def create(
        self,
        *,
        username: str,
        email: str,
        password: str,
        admin: bool,
        organisation: str | None,
        request_id: str,
    ) -> Principal:
        """A user who owns a new organisation. Raises Conflict when the name or email is taken."""
        hashed = await self._passwords.hash(password)
        async with self._db.unbound() as conn:
            login = await accounts.create_user_with_organisation(
                conn,
                username=username,
                email=email,
                password_hash=hashed,
                organisation=organisation or self._settings.tenant_default or username,
                admin=admin,
            )
            await self._audit(conn, login, "user.created", request_id)
        return _principal(login)

    async def login(self, *, login: str, password: str, request_id: str) -> TokenPair:
        """Tokens for a user name or email. Raises Unauthenticated, in the same time whether or not the user exists."""
        async with self._db.unbound() as conn:
            found = await accounts.find_login(conn, login)
        matches, better_hash = await self._passwords.verify(password, found.password_hash if found else None)
        if found is None or not matches:
            raise Unauthenticated("wrong user name or password")
        async with self._db.unbound() as conn:
            await bind(conn, found.org_id)
            if better_hash:
                await accounts.set_password_hash(conn, found.user_id, better_hash)
            await accounts.delete_expired_tokens(conn)
            await self._audit(conn, found, "user.login", request_id)
            return await self._issue(conn, found, family_id=new_id())

    async def refresh(self, token: str, *, request_id: str) -> TokenPair:
        """Exchange a refresh token, once; one used twice was stolen: its family ends. Raises Unauthenticated."""
        org_id, token_hash = parse_refresh_token(token)
        refused = Unauthenticated("the refresh token is not valid or has expired", hint="log in again")
        async with self._db.unbound() as conn:
            await bind(conn, org_id)
            stored = await accounts.lock_refresh_token(conn, token_hash)
            if stored is None or stored.revoked_at is not None or stored.expires_at <= self._clock.now():
                raise refused
            member = await accounts.member(conn, stored.user_id)
            if stored.used_at is None and member is not None:
                await accounts.mark_used(conn, stored.id)
                return await self._issue(conn, member, family_id=stored.family_id)
            await accounts.revoke_family(conn, stored.family_id)
            if member is not None:
                await self._audit(conn, member, "refresh_token.reused", request_id)
        # Raised after the transaction: the revocation must be kept.
        raise refused

    async def logout(self, token: str, *, request_id: str) -> None:
        """End every token of the login the refresh token came from; an unknown token is no error."""
        org_id, token_hash = parse_refresh_token(token)
        async with self._db.unbound() as conn:
            await bind(conn, org_id)
            stored = await accounts.lock_refresh_token(conn, token_hash)
            if stored is None:
                return
            await accounts.revoke_family(conn, stored.family_id)
            if member := await accounts.member(conn, stored.user_id):
                await self._audit(conn, member, "user.logout", request_id)

    async def _issue(self, conn: Connection, login: Login, *, family_id: UUID) -> TokenPair:
        principal, now = _principal(login), self._clock.now()
        refresh = new_refresh_token(login.org_id)
        await accounts.add_refresh_token(
            conn,
            org_id=login.org_id,
            user_id=login.user_id,
            family_id=family_id,
            token_hash=parse_refresh_token(refresh)[1],
            expires_at=now + timedelta(seconds=self._settings.refresh_token_ttl_s),
        )
        ttl_s = self._settings.access_token_ttl_s
        access = self._tokens.issue(principal, now=now, ttl_s=ttl_s)
        return TokenPair(access_token=access, refresh_token=refresh, expires_in_s=ttl_s, principal=principal)

    async def _audit(self, conn: Connection, login: Login, action: str, request_id: str) -> None:
        await ledgers.add_audit(
            conn,
            org_id=login.org_id,
            user_id=login.user_id,
            request_id=request_id,
            action=action,
            target=f"user:{login.user_id}",
        )


PROBE = Principal(
    user_id=NOBODY,
    org_id=uuid.UUID(int=0),
    username="probe",
    role="owner",
    permissions=ROLE_PERMISSIONS["owner"],
)
"""The platform's own caller for health checks and self-tests; its organisation has no rows."""


def _principal(login: Login) -> Principal:
    return Principal(
        user_id=login.user_id,
        org_id=login.org_id,
        username=login.username,
        role=login.role,
        permissions=ROLE_PERMISSIONS[login.role],
        admin=login.admin,
    )
