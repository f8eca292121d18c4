"""Builds: from a Dockerfile and its context to an image.

Follow one `duckweed build`: `request` checks what is wanted; `graph` finds the stages that the target needs;
`solver` runs each in a thread, step by step. A step that changes files has a key, made of what goes into it
(`keys`): when `cache` knows the key, the layer is there already. Otherwise `run_step` runs a container whose
upperdir becomes the layer, or `copy_step` writes one from files. `config_steps` are the instructions that
change the config alone. `export` makes the result an image, a directory or an archive.
"""
