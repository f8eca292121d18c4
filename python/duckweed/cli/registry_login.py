"""`login` and `logout`, in Docker's words."""

from __future__ import annotations

import sys

from duckweed.cli.parse import BOOL, STRING, Call, Flag, Refused, verb
from duckweed.cli.registry_pull import TLS_FLAG
from duckweed.errors import AccessDenied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.registry.credentials import Credential

_HUB = "https://index.docker.io/v1/"
_SUCCESS = "Login Succeeded\n"


@verb(
    "login",
    "[OPTIONS] [SERVER]",
    flags=(
        Flag("password", "p", STRING, "Password or personal access token"),
        Flag("password-stdin", "", BOOL, "Read the password from stdin"),
        Flag("username", "u", STRING, "User name"),
        TLS_FLAG,
    ),
    at_most=1,
)
def login(call: Call) -> int:
    """Log in to a registry

    Without a server, Docker Hub. Credentials are kept where `docker login` keeps them.
    """
    from duckweed.registry.login import check, stored
    from duckweed.registry.login import login as log_in

    server = call.arguments[0] if call.arguments else _HUB
    username, password = call.get("username", ""), call.get("password", "")
    if call.get("password_stdin"):
        if password:
            raise Refused("--password and --password-stdin are mutually exclusive")
        if not username:
            raise Refused("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        sys.stderr.write("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    verify = call.get("tls_verify")
    known = stored(server) if not password else None
    if known is not None and username in ("", known.username):
        sys.stdout.write(f"Authenticating with existing credentials... [Username: {known.username}]\n")
        try:
            check(server, known, tls_verify=verify)
        except AccessDenied as error:
            sys.stderr.write(f"Login did not succeed, error: {error.message}\n")
        else:
            sys.stdout.write(_SUCCESS)
            return 0
    username, password = _ask(username, password, known)
    path = log_in(server, username, password, tls_verify=verify)
    if path:
        sys.stderr.write(
            f"\nWARNING! Your credentials are stored unencrypted in '{path}'.\n"
            "Configure a credential helper (`credsStore` in that file) to remove this warning.\n\n"
        )
    sys.stdout.write(_SUCCESS)
    return 0


def _ask(username: str, password: str, known: Credential | None) -> tuple[str, str]:
    """What is missing, from the terminal. Raises Refused."""
    if username and password:
        return username, password
    if not sys.stdin.isatty():
        raise Refused(
            "Cannot perform an interactive login from a non TTY device",
            "pipe the password in: `duckweed login -u NAME --password-stdin SERVER`",
        )
    import getpass

    if not username:
        default = known.username if known is not None else ""
        sys.stderr.write(f"Username ({default}): " if default else "Username: ")
        sys.stderr.flush()
        username = sys.stdin.readline().strip() or default
        if not username:
            raise Refused("username is required")
    if not password:
        password = getpass.getpass("Password: ")
        if not password:
            raise Refused("password is required")
    return username, password


@verb("logout", "[SERVER]", at_most=1)
def logout(call: Call) -> int:
    """Log out from a registry

    Without a server, Docker Hub.
    """
    from duckweed.registry.login import logout as log_out

    server = call.arguments[0] if call.arguments else _HUB
    if log_out(server):
        sys.stdout.write(f"Removing login credentials for {server}\n")
    else:
        sys.stdout.write(f"Not logged in to {server}\n")
    return 0
