"""Registries: what to ask them, in which words, as whom. The bytes are moved by `rust/transfer`.

    reference -> settings, endpoint (where to ask) -> connection (as whom; authorization, credentials)
              -> repository (manifests, blobs, tags, uploads) -> pulling, pushing (an image, whole)

Protocol: the OCI distribution specification 1.1, which Docker's registry API version 2 is a dialect of.
"""
