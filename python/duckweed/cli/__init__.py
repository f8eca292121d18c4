"""The command line: Docker's verbs and manners over `duckweed.engine`.

`main` finds the verb in `tree`, imports the one module that holds it, and lets `parse` read its flags from
the table beside it. Nothing else is imported for a command that succeeds; `help`, `completion` (which is
where click comes in) and `failure` are for the other times. Each noun has its files: `container_run`,
`container_exec`, `container_life`, `container_show`, `image`, `volume`, `inspect`, `system`. What they print
goes through `render` (tables) and `format` (Go templates).
"""
