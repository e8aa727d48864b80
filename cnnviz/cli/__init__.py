"""The command line. Nothing here imports torch or matplotlib before a command needs them: help is instant."""
