"""Dockerfiles as text: from bytes to stages of instructions, variables and ignore patterns.

Nothing here runs or reads anything but the text it is given. `lines` joins what the file splits (directives,
comments, continuations, heredocs), `grammar` reads each logical line by its instruction's rules, `stages`
orders them, `variables` replaces `$names` when the build gets there. The rules are BuildKit's, found in its
reference and by its behaviour; where a rule is odd, the module says so.
"""
