"""The explorer: a server on this machine, and the one page that asks it. Nothing else here is met without ``[serve]``.

What a browser says is a stranger's: it is checked in ``guard.py`` who speaks, in ``sent.py`` what is said.
"""
