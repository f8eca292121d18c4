"""The OCI image format as pure data: nothing here opens a file.

`reference` reads what users type, `digest` what names bytes, `manifest` and `config` the JSON documents of
an image, `platform` chooses among several. Everything read comes from strangers: each reader checks before
it believes, and raises `BadImage` with one line.
"""
