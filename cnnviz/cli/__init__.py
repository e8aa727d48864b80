"""The command line.

Files that declare commands load neither torch nor matplotlib, so that help is instant; a command imports what it needs
as it runs.
"""
