"""Containers: from what a user asks for to a running process, and back to what `docker inspect` would say.

`options` checks the request, `spec` turns it into an OCI bundle, `container` follows the life of one
container, `inspect` and `logs` read what is left on disk. Nothing here is imported by
`duckweed.containers` itself.
"""
