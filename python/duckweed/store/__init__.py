"""The store: everything that outlives a process, as plain files below one directory.

`layout` names every path, `scratch` makes and replaces things atomically, `blobs`, `layers`, `images`,
`containers` and `volumes` each keep one kind, `repair` puts right what killed processes left. There is no
daemon, no database and no lock: what is at a final path is whole, and who deletes looks for users after
having taken the thing away.
"""
